package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/source/sourcetest"
)

func TestRegistration(t *testing.T) {
	name := filepath.Join(t.TempDir(), "registration")
	if err := writeRegistration(name, 200); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := readRegistration(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 200 || len(infos[100].References) != databaseRefs || infos[100].NarSize < 1000 || infos[100].NarHash.IsZero() {
		t.Errorf("%d infos, one of them %+v", len(infos), infos[100])
	}
	output := filepath.Join(t.TempDir(), "db.sqlite")
	if err := loadRegistration(t.Context(), name, output); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x\n", string(infos[0].Path) + "\nff\n", strings.Replace(string(text), "\n0\n", "\nnone\n", 1)} {
		if _, err := readRegistration(strings.NewReader(bad)); err == nil {
			t.Errorf("%.100q was read", bad)
		}
	}
}

// TestSmallModule leaves out the largest of the small modules.
func TestSmallModule(t *testing.T) {
	m := sourcetest.NewMemory()
	lib := m.Add(t, "lib", []sourcetest.File{sourcetest.Reg("", strings.Repeat("x", 500_000))})
	add := func(name string, size int) lock.Entry {
		path := m.Add(t, name, []sourcetest.File{sourcetest.Reg("", string(lib)+strings.Repeat("y", size))}, lib)
		return lock.Entry{ID: lock.ID(name), Path: path, Tag: lock.Tag{Version: 1, Date: 20240301, Short: "0000000"}}
	}
	entries := []lock.Entry{add("big", 90_000), add("tiny", 10), add("small", 9_000), add("smaller", 5_000), add("bigger", 95_000)}
	root := t.TempDir()
	m.WriteStore(t, root)
	for _, test := range []struct {
		entries []lock.Entry
		want    int
	}{{entries, 2}, {[]lock.Entry{entries[4], entries[0]}, 1}, {entries[:1], 0}} {
		at, bytes, err := smallModule(t.Context(), root, test.entries)
		if err != nil {
			t.Fatal(err)
		}
		if at != test.want || len(test.entries) > 1 && bytes != int64(len(m.Archive(test.entries[at].Path))) {
			t.Errorf("entry %d of %d, which adds %d bytes", at, len(test.entries), bytes)
		}
	}
	before, after := splitLock(entries, 2)
	if len(before) != 4 || len(after) != 5 || after[4].Path != entries[2].Path || after[4].Tag.Date != 20250101 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestPick(t *testing.T) {
	picked, err := pick(options{only: []string{"scale", "db"}})
	if err != nil || len(picked) != 2 || picked[0].name != "db" {
		t.Errorf("picked %d tables, %v", len(picked), err)
	}
	for _, o := range []options{{only: []string{"none"}}, {only: []string{"ext4"}}, {}} {
		if _, err := pick(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestRace has one that works, one that fails and one that takes too long.
func TestRace(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	rows, err := race(t.Context(), 2, []contender{
		{name: "works", out: out, steps: []step{{"sh", "-c", "printf 12345 > " + out}}},
		{name: "fails", limit: time.Minute, steps: []step{{"sh", "-c", "echo no room >&2; exit 1"}}},
		{name: "hangs", limit: 50 * time.Millisecond, steps: []step{{"sleep", "60"}}},
		{name: "is not here", steps: []step{{"no-such-program-anywhere"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || rows[0].size != 5 || rows[1].failed != "fails: no room" || rows[2].failed != "not finished after 50ms" {
		t.Errorf("rows %+v", rows)
	}
	var b strings.Builder
	printTable(&b, "title", rows)
	if lines := strings.Split(strings.TrimSpace(b.String()), "\n"); len(lines) != 5 || strings.Count(lines[3], "|") != strings.Count(lines[2], "|") {
		t.Errorf("table:\n%s", b.String())
	}
	if _, err := race(context.Background(), 1, []contender{{name: "breaks", steps: []step{{"false"}}}}); err == nil {
		t.Error("a contender that must not fail has failed, and nothing was said")
	}
}
