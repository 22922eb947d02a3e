package lock

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

func mustParse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// lockText is a lock file of "ID:vN" and the letters of a path and a commit:
// "go:v1 a b".
func lockText(t *testing.T, entries ...string) string {
	t.Helper()
	var all []Entry
	for _, e := range entries {
		var key, path, commit string
		fmt.Sscan(e, &key, &path, &commit)
		id, version, _ := strings.Cut(key, ":v")
		n, err := parseVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseCommit(strings.Repeat(commit, 40))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Entry{ID: ID(id), Tag: Tag{n, 20240301, c.String()[:ShortLen]}, Commit: c, Path: letterPath(path)})
	}
	text, err := Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func letterPath(letter string) store.Path {
	return store.Path(store.Dir + "/" + strings.Repeat(letter, store.DigestLen) + "-m")
}

func TestUpdate(t *testing.T) {
	f := mustParse(t, lockText(t, "a:v1 x 1", "b:v1 x 1", "b:v10 y 1", "b:v9 z 1", "c:v3 x 1"))
	commit := Commit{0xab, 0xcd, 0xef, 0x12}
	got := f.Update(map[ID]store.Path{
		"a": letterPath("x"), // as it was
		"b": letterPath("z"), // as an older version was
		"c": letterPath("y"), // changed; there is no version 1 or 2
		"d": letterPath("x"), // new
	}, commit, 20240229)
	var keys []string
	for _, e := range got {
		keys = append(keys, e.Key())
		if e.Commit != commit {
			t.Errorf("%s has the commit %s", e.Key(), e.Commit)
		}
	}
	want := []string{"b:v11-20240229-abcdef1", "c:v4-20240229-abcdef1", "d:v1-20240229-abcdef1"}
	if !slices.Equal(keys, want) {
		t.Errorf("%q, want %q", keys, want)
	}
	var text strings.Builder
	old := lockText(t, "a:v1 x 1", "b:v1 x 1", "b:v10 y 1", "b:v9 z 1", "c:v3 x 1")
	if err := f.Append(&text, strings.NewReader(old), got); err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, text.String())
	if more := again.Update(map[ID]store.Path{"b": letterPath("z"), "d": letterPath("x")}, commit, 20240229); len(more) != 0 {
		t.Errorf("locked twice: %v", more)
	}
	if problems := again.CheckAppended(f); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
}

func TestChecks(t *testing.T) {
	earlier := mustParse(t, lockText(t, "a:v1 x 1", "b:v1 x 1", "a:v2 y 2"))
	for name, c := range map[string]struct {
		entries []string
		want    []string
	}{
		"same":     {[]string{"a:v1 x 1", "b:v1 x 1", "a:v2 y 2"}, nil},
		"appended": {[]string{"a:v1 x 1", "b:v1 x 1", "a:v2 y 2", "c:v7 x 3"}, nil},
		"gone":     {[]string{"a:v1 x 1", "a:v2 y 2"}, []string{`"b:v1-20240301-1111111": it was in the earlier file and is gone`}},
		"path":     {[]string{"a:v1 z 1", "b:v1 x 1", "a:v2 y 2"}, []string{`line 2: "a:v1-20240301-1111111": its path was ` + string(letterPath("x")) + ` and is ` + string(letterPath("z"))}},
		"order":    {[]string{"b:v1 x 1", "a:v1 x 1", "a:v2 y 2"}, []string{`line 6: "a:v1-20240301-1111111": it was entry 1 and is entry 2: new entries belong at the end`}},
		"between":  {[]string{"a:v1 x 1", "c:v1 x 1", "b:v1 x 1", "a:v2 y 2"}, []string{`line 10: "b:v1-20240301-1111111": it was entry 2 and is entry 3: new entries belong at the end`}},
		"number":   {[]string{"a:v1 x 1", "b:v1 x 1", "a:v2 y 2", "a:v2 x 3"}, []string{`line 14: "a:v2-20240301-3333333": version 2 of a is a:v2-20240301-2222222 already, in line 10`}},
	} {
		f := mustParse(t, lockText(t, c.entries...))
		var got []string
		for _, p := range append(f.CheckAppended(earlier), f.CheckVersions()...) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestChangedCommit keeps the first digits, as the tag does.
func TestChangedCommit(t *testing.T) {
	text := lockText(t, "a:v1 x 1")
	f := mustParse(t, strings.Replace(text, strings.Repeat("1", 40), strings.Repeat("1", 39)+"2", 1))
	if problems := f.CheckAppended(mustParse(t, text)); len(problems) != 1 || !strings.Contains(problems[0].Text, "its commit was ") {
		t.Errorf("%v", problems)
	}
}

func TestParseDay(t *testing.T) {
	if day, err := ParseDay("2024-02-29"); day != 20240229 || err != nil {
		t.Errorf("%v, %v", day, err)
	}
	for _, s := range []string{"", "20240229", "2023-02-29", "2024/02/29", "2024-02-2x", "2024-1-011"} {
		if day, err := ParseDay(s); err == nil {
			t.Errorf("%q: %v", s, day)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	f, modules := new(File), make(map[ID]store.Path)
	for i := range 100_000 {
		id := ID(fmt.Sprintf("m%d", i%1000))
		f.Entries = append(f.Entries, Entry{ID: id, Tag: Tag{i/1000 + 1, 20240301, "0000000"}, Path: letterPath("x")})
		modules[id] = letterPath("y")
	}
	for b.Loop() {
		if n := len(f.Update(modules, Commit{}, 20240302)); n != 1000 {
			b.Fatal(n)
		}
	}
}
