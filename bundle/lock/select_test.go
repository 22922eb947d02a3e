package lock_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/lock"
)

// decode reads a lock file with encoding/json, which checks little.
func decode(data []byte) (map[string]struct{ Commit, Path string }, error) {
	var all map[string]struct{ Commit, Path string }
	err := json.Unmarshal(data, &all)
	return all, err
}

func TestSelect(t *testing.T) {
	const v1, gxx, v10, v9 = "go-1.19:v1-20230525-c48c43c", "g++-12:v1-20240229-15011da",
		"go-1.19:v10-20230608-10cb54c", "go-1.19:v9-20230607-0b7a606"
	tests := []struct {
		name    string
		modules string
		latest  int
		want    []string
	}{
		{"everything", "", 0, []string{v1, gxx, v10, v9}},
		{"newest of each", "", 1, []string{gxx, v10}},
		{"two of each", "", 2, []string{gxx, v10, v9}},
		{"more than there are", "", 100, []string{v1, gxx, v10, v9}},
		{"one module", "go-1.19", 0, []string{v10}},
		{"two versions of one module", "go-1.19", 2, []string{v10, v9}},
		{"a version", v1, 0, []string{v1}},
		{"latest does not touch a version", v1, 2, []string{v1}},
		{"module and version", "go-1.19 " + v1, 0, []string{v1, v10}},
		{"in the file's order, once", v9 + " g++-12 " + v1 + " " + v9 + " g++-12", 0, []string{v1, gxx, v9}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parse(t, small).Select(lock.Selection{Modules: strings.Fields(test.modules), Latest: test.latest})
			if err != nil || !slices.Equal(keys(got), test.want) {
				t.Errorf("%v, %v; want %v", keys(got), err, test.want)
			}
		})
	}
}

// What is selected is the caller's own.
func TestSelectCopies(t *testing.T) {
	f := parse(t, small)
	got, err := f.Select(lock.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	got[0].ID = "changed"
	if f.Entries[0].ID != "go-1.19" {
		t.Error("the file's entry has changed")
	}
}

func TestSelectRefuses(t *testing.T) {
	tests := []struct {
		module  string
		latest  int
		unknown bool
		want    string
	}{
		{"go-1.20", 0, true, `did you mean "go-1.19"?`},
		{"go", 0, true, `did you mean "go-1.19"?`},
		{"g++12", 0, true, `did you mean "g++-12"?`},
		{"something-else", 0, true, "is not in the lock file"},
		{"go-1.19:v2-20230525-c48c43c", 0, true, `did you mean "v1-20230525-c48c43c"`},
		{"go-1.19:v1", 0, true, `did you mean "v1-20230525-c48c43c" or "v10-20230608-10cb54c"?`},
		{"go-1.19:", 0, true, `version ""`},
		{"", 0, false, "module ID"},
		{"a b", 0, false, `has ' '`},
		{"-x", 0, false, `starts with '-'`},
		{"../x", 0, false, `starts with '.'`},
		{"aø", 0, false, `has 'ø'`},
		{"a\xff", 0, false, `has '�'`},
		{"go-1.19", -1, false, "negative"},
	}
	for _, test := range tests {
		t.Run(test.module, func(t *testing.T) {
			_, err := parse(t, small).Select(lock.Selection{Modules: []string{test.module}, Latest: test.latest})
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, lock.ErrUnknown) != test.unknown || errors.Is(err, lock.ErrFormat) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}
