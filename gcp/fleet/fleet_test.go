package fleet

import (
	"bigdisk/bundle/yamlfile"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// exampleFile is the configuration that users start from.
const exampleFile = "../../configs/fleet.yaml"

// minimal is the least that a configuration can say.
const minimal = `service: s
bucket: some-bucket
targets:
  - project: prod-1
    storageLocation: us
    diskType: pd-ssd
    zones: [us-central1-a]
`

func TestExample(t *testing.T) {
	c, err := Load(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Service: "nixmodules", Bucket: "nixmodules-images",
		Targets: []Target{
			{Project: "prod-1", StorageLocation: "us", DiskType: "pd-ssd", HostsPerDisk: 100, Zones: []Zone{
				{Name: "us-central1-a", DiskType: "pd-ssd", HostsPerDisk: 100, Copies: 1},
				{Name: "us-west1-b", DiskType: "hyperdisk-ml", HostsPerDisk: 2500, Copies: 2},
			}},
			{Project: "prod-2", StorageLocation: "europe-west1", DiskType: "pd-balanced", HostsPerDisk: 10, Zones: []Zone{
				{Name: "europe-west1-b", DiskType: "pd-balanced", HostsPerDisk: 10, Copies: 1},
				{Name: "europe-west1-c", DiskType: "pd-balanced", HostsPerDisk: 10, Copies: 1},
			}},
		},
		Labels:  map[string]string{"component": "nixmodules", "cost-center": "platform"},
		State:   "gs://nixmodules-images/state",
		Publish: Publish{MutationsPerSecond: 10, Parallel: 64},
		Builder: Builder{DiskType: "pd-ssd"},
		Hosts:   Hosts{Filter: "labels.role=repl-host AND status=RUNNING"},
		Rollout: Rollout{
			Waves: []Wave{
				{Name: "canary", Hosts: Percent(1), Min: 1, Bake: 30 * time.Minute},
				{Name: "tenth", Hosts: Percent(10), Min: 1, Bake: 15 * time.Minute},
				{Name: "all", Hosts: Percent(100), Min: 1},
			},
			MaxConcurrent: 50, MaxPerZone: Percent(20), HealthTimeout: 5 * time.Minute,
			MaxFailures: Percent(2), OnFailure: OnFailurePause, KeepPrevious: true,
		},
		Retention: Retention{KeepVersions: 3, MinAge: 336 * time.Hour, Protect: []string{"*-pinned"}},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// TestDefaults: what the example's comments call a default is one.
// TestJSON wants what is printed to have the file's names, and to mean the same.
func TestJSON(t *testing.T) {
	c, err := Load(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	c.Builder = Builder{Project: "prod-1", Zone: "us-central1-a", Instance: "builder-1", DiskType: "pd-balanced"}
	c.ComputeEndpoint = "http://localhost:1"
	c.Rollout.MaxFailures = Count(3)
	for _, c := range []*Config{c, mustParse(t, minimal+"hosts: {filter: labels.a=b}\n")} {
		text, err := c.JSON()
		if err != nil || !json.Valid(text) {
			t.Fatalf("%s, %v", text, err)
		}
		if again, err := Parse(text); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s is\n%+v\nnot\n%+v, %v", text, again, c, err)
		}
	}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c, err := Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	full, err := Load(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	full.Rollout.Waves[1].Name, full.Rollout.Waves[2].Name = "wave-2", "wave-3"
	if !reflect.DeepEqual(c.Rollout, full.Rollout) {
		t.Errorf("rollout is %+v, want %+v", c.Rollout, full.Rollout)
	}
	full.Retention.Protect = nil
	if !reflect.DeepEqual(c.Retention, full.Retention) || c.Publish != full.Publish || c.Builder != full.Builder {
		t.Errorf("got %+v %+v %+v", c.Retention, c.Publish, c.Builder)
	}
	if c.State != "gs://some-bucket/state" {
		t.Errorf("state is %q", c.State)
	}
}

// TestInheritance: a zone's own type brings its own limit, the target's limit
// is for the target's type alone.
func TestInheritance(t *testing.T) {
	c, err := Parse([]byte(`
service: s
bucket: some-bucket
targets:
  - project: prod-1
    storageLocation: us
    diskType: pd-ssd
    hostsPerDisk: 30
    zones:
      - us-central1-a
      - {name: us-central1-b, diskType: pd-ssd}
      - {name: us-central1-c, diskType: pd-standard}
      - {name: us-central1-d, diskType: pd-standard, hostsPerDisk: 4, copies: 0}
  - project: prod-2
    storageLocation: us
    zones: [{name: us-central1-a, diskType: hyperdisk-ml}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Zone{{
		{"us-central1-a", "pd-ssd", 30, 1}, {"us-central1-b", "pd-ssd", 30, 1},
		{"us-central1-c", "pd-standard", 10, 1}, {"us-central1-d", "pd-standard", 4, 0},
	}, {{"us-central1-a", "hyperdisk-ml", 2500, 1}}}
	for i, target := range c.Targets {
		if !reflect.DeepEqual(target.Zones, want[i]) {
			t.Errorf("targets[%d]: got %+v, want %+v", i, target.Zones, want[i])
		}
	}
	if got := c.Projects(); !reflect.DeepEqual(got, []string{"prod-1", "prod-2"}) {
		t.Errorf("projects are %q", got)
	}
	if target, zone, ok := c.Zone("prod-2", "us-central1-a"); !ok || target.Project != "prod-2" || zone.DiskType != "hyperdisk-ml" {
		t.Errorf("got %+v %+v %v", target, zone, ok)
	}
	if _, _, ok := c.Zone("prod-2", "us-central1-b"); ok {
		t.Error("a zone that is not configured was found")
	}
}

// TestFaults: each fault is told with its line and key.
func TestFaults(t *testing.T) {
	add := func(more string) string { return minimal + more }
	zones := func(z string) string { return strings.Replace(minimal, "[us-central1-a]", z, 1) }
	for name, test := range map[string]struct{ text, want string }{
		"empty":                 {"", "line 1: the file is empty"},
		"not a mapping":         {"- a", "line 1: a mapping is wanted"},
		"two documents":         {minimal + "---\n" + minimal, "more than one YAML document"},
		"syntax":                {minimal + "labels: {a: b\n", "line "},
		"unknown key":           {add("sevice: x\n"), "line 8: sevice: unknown key, the keys here are service, bucket"},
		"unknown key deep":      {zones("[{name: us-central1-a, typ: x}]"), "line 7: targets[0].zones[0].typ: unknown key, the keys here are name, diskType"},
		"twice":                 {add("bucket: other-bucket\n"), "line 8: bucket: the key comes twice"},
		"missing":               {"service: s\n", "line 1: bucket is missing\nline 1: targets is missing"},
		"target missing":        {"service: s\nbucket: bbb\ntargets:\n- project: prod-1\n", "line 4: targets[0]: storageLocation is missing\nline 4: targets[0]: zones is missing"},
		"no targets":            {"service: s\nbucket: bbb\ntargets: []\n", "line 3: targets: there has to be one at least"},
		"no zones":              {zones("[]"), "line 7: targets[0].zones: there has to be one at least"},
		"zone twice":            {zones("[us-central1-a, us-central1-a]"), "line 4: targets[0]: zone us-central1-a of project prod-1 comes twice"},
		"bad zone":              {zones("[us-central1]"), `line 7: targets[0].zones[0]: "us-central1" is not a zone`},
		"copies":                {zones("[{name: us-central1-a, copies: 1000}]"), "targets[0].zones[0].copies: a whole number from 0 to 999 is wanted"},
		"hosts":                 {zones("[{name: us-central1-a, hostsPerDisk: 0}]"), "targets[0].zones[0].hostsPerDisk: a whole number from 1 to 10000 is wanted"},
		"not shared":            {strings.Replace(minimal, "pd-ssd", "hyperdisk-balanced", 1), `line 6: targets[0].diskType: disks of type "hyperdisk-balanced" cannot be attached to many`},
		"no type":               {strings.Replace(minimal, "    diskType: pd-ssd\n", "", 1), "line 6: targets[0].zones[0]: diskType is missing"},
		"bad project":           {strings.Replace(minimal, "prod-1", "Prod", 1), `targets[0].project: "Prod" is not a project ID`},
		"bad location":          {strings.Replace(minimal, ": us\n", ": us-central1-a\n", 1), `targets[0].storageLocation: "us-central1-a" is neither a region`},
		"service upper":         {strings.Replace(minimal, "service: s", "service: S", 1), `line 1: service: "S" is not 1 to 32`},
		"service long":          {strings.Replace(minimal, "service: s", "service: "+strings.Repeat("s", 33), 1), "line 1: service: "},
		"service number":        {strings.Replace(minimal, "service: s", "service: 12", 1), "line 1: service: text is wanted here: put it in quotes"},
		"bucket":                {strings.Replace(minimal, "some-bucket", "gs://some-bucket", 1), "line 2: bucket: "},
		"state":                 {add("state: some-bucket/state\n"), "line 8: state: "},
		"endpoint":              {add("computeEndpoint: localhost:80\n"), "line 8: computeEndpoint: "},
		"label key":             {add("labels: {Team: x}\n"), "line 8: labels.Team: a label's key is"},
		"label value":           {add("labels: {team: /nix/store}\n"), `line 8: labels.team: a label's value is`},
		"label ours":            {add("labels:\n  version: x\n"), "line 9: labels.version: this label is set by bigdisk itself"},
		"label twice":           {add("labels: {a: x, a: y}\n"), "labels.a: the key comes twice"},
		"rate":                  {add("publish: {mutationsPerSecond: 0}\n"), "publish.mutationsPerSecond: a number over 0 and up to 100 is wanted"},
		"parallel":              {add("publish: {parallel: many}\n"), "publish.parallel: a whole number from 1 to 1000 is wanted"},
		"wave without hosts":    {add("rollout:\n  waves:\n  - {name: a}\n  - {hosts: 100%}\n"), "line 10: rollout.waves[0]: hosts is missing"},
		"waves that leave some": {add("rollout: {waves: [{hosts: 10%}]}\n"), "rollout.waves: the last wave has to be of 100% of the hosts"},
		"waves of one name":     {add("rollout: {waves: [{name: a, hosts: 1%}, {name: a, hosts: 100%}]}\n"), "rollout.waves[1]: another wave is called a"},
		"share":                 {add("rollout: {maxFailures: 101%}\n"), `rollout.maxFailures: "101%" is not between 0% and 100%`},
		"share of none":         {add("rollout: {maxPerZone: 0}\n"), "rollout.maxPerZone: more than none are wanted"},
		"duration":              {add("rollout: {healthTimeout: 5}\n"), "rollout.healthTimeout: a length of time is wanted"},
		"no time":               {add("rollout: {healthTimeout: 0s}\n"), "rollout.healthTimeout: a second is the least"},
		"hosts without filter":  {add("hosts: {}\n"), "line 8: hosts: filter is missing"},
		"empty filter":          {add("hosts:\n  filter: ' '\n"), "line 9: hosts.filter: an empty filter selects every instance"},
		"rollout of no hosts":   {add("rollout: {onFailure: pause}\n"), "line 8: rollout: hosts.filter is missing"},
		"half a quote":          {add("hosts: {filter: 'labels.a=\"b'}\n"), "hosts.filter: \"labels.a=\\\"b\" has a quotation mark \" without"},
		"half a single quote":   {add("hosts: {filter: \"labels.a='b\"}\n"), "has a quotation mark ' without"},
		"open parenthesis":      {add("hosts: {filter: '(labels.a=b'}\n"), "leaves 1 parentheses open"},
		"closed parenthesis":    {add("hosts: {filter: 'labels.a=b) AND (labels.c=d'}\n"), "closes a parenthesis that is not open"},
		"waves that shrink":     {add("rollout:\n  waves:\n  - {hosts: 30%}\n  - {hosts: 10%}\n  - {hosts: 100%}\n"), "line 11: rollout.waves[1]: hosts: 10% are fewer than the 30% of wave wave-1"},
		"counts that shrink":    {add("rollout: {waves: [{hosts: 30}, {hosts: 5}, {hosts: 100%}]}\n"), "rollout.waves[1]: hosts: 5 are fewer than the 30"},
		"hasty":                 {add("hosts: {filter: a=b}\nrollout:\n  maxConcurrent: 3\n  healthTimeout: 10s\n"), "line 11: rollout.healthTimeout: 10s is too short"},
		"on failure":            {add("rollout: {onFailure: panic}\n"), `rollout.onFailure: "panic" is neither pause nor rollback`},
		"truth":                 {add("rollout: {keepPrevious: 1}\n"), "rollout.keepPrevious: the value has to be true or false"},
		"keep none":             {add("retention: {keepVersions: 0}\n"), "retention.keepVersions: a whole number from 1"},
		"age":                   {add("retention: {minAge: -1h}\n"), "retention.minAge: a length of time is wanted"},
		"pattern":               {add("retention: {protect: ['[']}\n"), "retention.protect[0]: syntax error in pattern"},
		"alias":                 {add("labels: &a {a: x}\n"), "line 8: labels: a mapping is wanted"},
		"merge":                 {add("rollout:\n  <<: {keepPrevious: true}\n"), "a key has to be text"},
		"long line":             {add("labels: {a: " + strings.Repeat("a", yamlfile.MaxLine) + "}\n"), "line 8: a line of more than"},
		"brackets":              {add("labels: " + strings.Repeat("[", 1000)), "line 8: more than 32 brackets are open"},
		"size":                  {strings.Repeat("# nothing\n", yamlfile.MaxSize/10+1), "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			if at := new(Error); !errors.As(err, &at) || at.Line < 1 {
				t.Errorf("%v has no place", err)
			}
		})
	}
}

// TestFine: what looks odd and is right.
func TestFine(t *testing.T) {
	for name, more := range map[string]string{
		"canary without bake":  "hosts: {filter: a=b}\nrollout: {waves: [{name: canary, hosts: 1, bake: 0s}, {hosts: 30%}, {hosts: 100%}]}\n",
		"the same share twice": "hosts: {filter: a=b}\nrollout: {waves: [{hosts: 10%}, {hosts: 10%, bake: 1h}, {hosts: 100%}]}\n",
		"parentheses quoted":   "hosts: {filter: '(labels.a=\"(b\" OR name=\"x\\\"(\") AND status=RUNNING'}\n",
		"an apostrophe":        "hosts: {filter: \"description=it's\"}\n",
		"an emulator":          "computeEndpoint: http://localhost:80\nhosts: {filter: a=b}\nrollout: {healthTimeout: 2s}\n",
		"only published":       "publish: {parallel: 3}\n",
	} {
		if _, err := Parse([]byte(minimal + more)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManyFaults: a file with many faults is told all of them, within bounds.
func TestManyFaults(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal + "labels:\n")
	for i := range 30 {
		fmt.Fprintf(&b, "  BAD%d: x\n", i)
	}
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file)
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrors || !strings.HasPrefix(lines[0], file+":") {
		t.Errorf("%d lines, the first is %s", len(lines), lines[0])
	}
}

func TestStateLocation(t *testing.T) {
	for state, want := range map[string][2]string{
		"gs://bucket":        {"bucket", ""},
		"gs://bucket/":       {"bucket", ""},
		"gs://bucket/a/b/":   {"bucket", "a/b"},
		"gs://bucket/rollup": {"bucket", "rollup"},
	} {
		c := Config{State: state}
		if bucket, prefix := c.StateLocation(); bucket != want[0] || prefix != want[1] {
			t.Errorf("%s: got %q %q", state, bucket, prefix)
		}
	}
}

func TestShare(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want int
	}{
		{"1%", 2000, 20}, {"1%", 99, 0}, {"0.5%", 2000, 10}, {"33.33%", 10000, 3333},
		{"100%", 7, 7}, {"20%", 4, 0}, {"20%", 5, 1}, {"3", 10, 3}, {"30", 10, 10},
		{"0", 10, 0}, {"0%", 10, 0}, {"50%", -1, 0}, {"5", -1, 0},
	} {
		s, err := ParseShare(test.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Of(test.n); got != test.want || s.String() != test.text {
			t.Errorf("%s of %d is %d, want %d; written %s", test.text, test.n, got, test.want, s)
		}
	}
	for _, bad := range []string{"", "%", "-1", "+1", "1e3", "1.5", "100.01%", "1.234%", "1.%", ".5%", "1000001", "99999999999", "x"} {
		if s, err := ParseShare(bad); err == nil {
			t.Errorf("%q was read as %s", bad, s)
		}
	}
}
