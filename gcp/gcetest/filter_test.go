package gcetest_test

import (
	"strings"
	"testing"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

var filterVM = &computepb.Instance{
	Name: proto.String("host-1"), Status: proto.String("RUNNING"), Id: proto.Uint64(1000),
	Labels:     map[string]string{"role": "repl-host", "service": "nixmodules", "a_b-c": "1"},
	Scheduling: &computepb.Scheduling{AutomaticRestart: proto.Bool(true)},
	Disks: []*computepb.AttachedDisk{{DeviceName: proto.String("boot")},
		{DeviceName: proto.String("nixmodules-v1"), Source: proto.String("https://x/disks/d")}},
}

func TestFilter(t *testing.T) {
	for filter, want := range map[string]bool{
		"":                      true,
		"labels.role=repl-host": true,
		"labels.role=repl-host AND status=RUNNING":               true,
		"labels.role=repl-host AND status!=RUNNING":              false,
		"(labels.role = repl-host) (name != host-2)":             true,
		"(labels.role = repl-host) (name != host-1)":             false,
		"labels.role=other OR labels.service=nixmodules":         true,
		"labels.role=other OR name=x OR name=host-1":             true,
		"NOT labels.role=other":                                  true,
		"-labels.role:*":                                         false,
		"NOT (name=host-1 OR name=host-2)":                       false,
		"name=host-1 AND (status=STOPPED OR status=\"RUNNING\")": true,
		"labels.role:*":                                          true,
		"labels.none:*":                                          false,
		"labels.none=x":                                          false,
		"labels.none!=x":                                         true,
		"labels.a_b-c=1":                                         true,
		"name:host":                                              true,
		"name:host-*":                                            true,
		"name:*-2":                                               false,
		"name eq host-.*":                                        true,
		"name ne host-.*":                                        false,
		"name eq host":                                           false,
		"id > 999":                                               true,
		"id >= 1000 AND id <= 1000":                              true,
		"id < 1000":                                              false,
		"scheduling.automaticRestart = true":                     true,
		"disks.deviceName=nixmodules-v1":                         true,
		"disks.source:\"disks/d\"":                               true,
		"disks.deviceName=other":                                 false,
		`name = "host\-1"`:                                       true,
		"description:*":                                          false,
	} {
		f, err := gcetest.ParseFilter(filter)
		if err != nil {
			t.Errorf("%q: %v", filter, err)
			continue
		}
		if got, err := f.Match(filterVM); got != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", filter, got, err, want)
		}
	}
}

func TestBadFilters(t *testing.T) {
	for _, filter := range []string{
		"name", "name=", "=x", "name=a AND", "AND name=a", "(name=a", "name=a)", "name==a", "name=a,", `name="a`, "name a", "()",
		"name eq a AND name=b", "name eq [", "na me=a", "name=host-*", "(name=a) OR", `"name"=a`, "labels.=a", ".a=b", "name=(a)", "name:*\xb2",
		strings.Repeat("(", 1000) + "name=a" + strings.Repeat(")", 1000),
	} {
		if f, err := gcetest.ParseFilter(filter); err == nil {
			_, err := f.Match(filterVM)
			if err == nil {
				t.Errorf("%q was accepted", filter)
			}
		}
	}
	for _, filter := range []string{"nosuch=a", "labels=a", "name.first=a", "disks.nosuch=a", "Name=a"} {
		f, err := gcetest.ParseFilter(filter)
		if err != nil {
			t.Errorf("%q: %v", filter, err)
			continue
		}
		if _, err := f.Match(filterVM); err == nil {
			t.Errorf("%q: a field that instances do not have was accepted", filter)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"", "labels.role=repl-host AND status=RUNNING", "(labels.a = b) (name != c)", "labels.k:*", "name eq x.*",
		`NOT (id>=3 OR -name:"a b\"")`, "((((", "a=b)", "A:*\xb2", "disks.deviceName:nix*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := gcetest.ParseFilter(text)
		if err != nil {
			return
		}
		plain, err := filter.Match(filterVM)
		if err != nil {
			return
		}
		// What is said twice is the same, and what is denied the opposite.
		if strings.TrimSpace(text) == "" {
			return
		}
		for _, tt := range []struct {
			text string
			want bool
		}{{"(" + text + ") AND (" + text + ")", plain}, {"NOT (" + text + ")", !plain}} {
			again, err := gcetest.ParseFilter(tt.text)
			if err != nil {
				if strings.Contains(err.Error(), "parentheses") {
					continue
				}
				t.Fatalf("%q is accepted, %q is not: %v", text, tt.text, err)
			}
			if got, err := again.Match(filterVM); err != nil || got != tt.want {
				t.Errorf("%q: %v, %v; want %v", tt.text, got, err, tt.want)
			}
		}
	})
}
