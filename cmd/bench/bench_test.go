package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
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

// TestLeastAdded leaves out the module that shares the most.
func TestLeastAdded(t *testing.T) {
	m := sourcetest.NewMemory()
	lib := m.Add(t, "lib", []sourcetest.File{sourcetest.Reg("", strings.Repeat("x", 5000))})
	big := m.Add(t, "big", []sourcetest.File{sourcetest.Reg("", string(lib)+strings.Repeat("y", 9000))}, lib)
	small := m.Add(t, "small", []sourcetest.File{sourcetest.Reg("", string(lib))}, lib)
	root := t.TempDir()
	m.WriteStore(t, root)
	entries := []lock.Entry{anEntry("small", small, 20240301), anEntry("big", big, 20240501)}
	at, bytes, err := leastAdded(t.Context(), root, entries)
	if err != nil {
		t.Fatal(err)
	}
	if at != 0 || bytes != int64(len(m.Archive(small))) {
		t.Errorf("entry %d, which adds %d bytes", at, bytes)
	}
	before, after := splitLock(entries, at)
	if !reflect.DeepEqual(before, entries[1:]) || len(after) != 2 || after[1].Path != small || after[1].Tag.Date != 20250101 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func anEntry(id string, path store.Path, date lock.Date) lock.Entry {
	return lock.Entry{ID: lock.ID(id), Path: path, Tag: lock.Tag{Version: 1, Date: date, Short: "0000000"}}
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
