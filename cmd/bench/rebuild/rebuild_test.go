package rebuild_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nar"
	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
	"bigdisk/cmd/bench/rebuild"
)

// sample is a module that needs a tool, which needs a library.
func sample(t *testing.T) (*sourcetest.Memory, []lock.Entry) {
	t.Helper()
	m := sourcetest.NewMemory()
	elf := "\x7fELF" + strings.Repeat("code", 30_000)
	lib := m.Add(t, "lib", []sourcetest.File{
		sourcetest.Dir(""), sourcetest.Reg("lib.so", elf), sourcetest.Reg("x.h", "int x;\n"), sourcetest.Reg("x.pc", "Name: lib\n"),
	})
	tool := m.Add(t, "tool", []sourcetest.File{
		sourcetest.Dir(""), sourcetest.Link("lib", string(lib)+"/lib.so"), sourcetest.Link("other.pc", "lib"), sourcetest.Exe("run", "#!/bin/sh\n"), sourcetest.Reg("z", ""),
	}, lib)
	mod := m.Add(t, "module", []sourcetest.File{sourcetest.Reg("", `{"env":{"PATH":"`+string(tool)+`/bin"}}`)}, tool)
	key, tag, err := lock.ParseKey("tool:v1-20240301-aaaaaaa")
	if err != nil {
		t.Fatal(err)
	}
	e := lock.Entry{ID: key, Tag: tag, Path: mod}
	for i := range e.Commit {
		e.Commit[i] = 0xaa
	}
	return m, []lock.Entry{e}
}

// TestWrite rebuilds everything, and checks the store that comes of it.
func TestWrite(t *testing.T) {
	m, entries := sample(t)
	root := t.TempDir()
	t.Cleanup(func() { writable(t, root) })
	r, err := rebuild.Write(t.Context(), rebuild.Options{From: m, Entries: entries, To: root, Releases: 3, Percent: 100})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Entries) != 3 || r.Entries[2].Tag.Version != 3 || r.Entries[2].Tag.Date != 20260101 {
		t.Fatalf("entries: %+v", r.Entries)
	}
	for i, n := range r.Changed {
		if n != 3 {
			t.Errorf("release %d has %d new paths", i+1, n)
		}
	}
	text, err := lock.Marshal(r.Entries)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Parse(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	s, err := source.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, e := range r.Entries {
		checkClosure(t, s, root, e.Path)
	}
}

// checkClosure reads a closure whole, which checks its hashes, and sees that
// it mentions itself and nothing that it does not refer to.
func checkClosure(t *testing.T, s source.Source, root string, module store.Path) {
	t.Helper()
	c, err := bundle.FindClosure(t.Context(), s, []store.Path{module}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c.Len() != 3 {
		t.Errorf("the closure of %s has %d paths", module, c.Len())
	}
	for info := range c.All() {
		contents, err := s.Open(t.Context(), info)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sourcetest.ReadAll(contents); err != nil {
			t.Error(err)
		}
		var archive bytes.Buffer
		if err := nar.Dump(t.Context(), &archive, filepath.Join(root, string(info.Path))); err != nil {
			t.Fatal(err)
		}
		rest := archive.String()
		for _, r := range info.References {
			if !strings.Contains(rest, string(r)) {
				t.Errorf("%s does not mention %s", info.Path, r)
			}
			rest = strings.ReplaceAll(rest, string(r), "")
		}
		if i := strings.Index(rest, store.Dir+"/"); i >= 0 {
			t.Errorf("%s mentions %.60q, which it does not refer to", info.Path, rest[i:])
		}
	}
}

func writable(t *testing.T, root string) {
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWriteNothing rebuilds nothing.
func TestWriteNothing(t *testing.T) {
	m, entries := sample(t)
	root := t.TempDir()
	t.Cleanup(func() { writable(t, root) })
	r, err := rebuild.Write(t.Context(), rebuild.Options{From: m, Entries: entries, To: root, Releases: 2, Percent: 0})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Entries) != 1 || r.Changed[1] != 0 {
		t.Errorf("%d entries, %d new paths in the second release", len(r.Entries), r.Changed[1])
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	block := func(c string) string { return strings.Repeat(c, 4096) }
	for name, data := range map[string]string{
		"a": block("a") + block("b"), "b": block("a") + block("b"), // the same file
		"c": block("b") + "end", "d": block("\x00") + "end", "e": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := rebuild.Measure(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := rebuild.Redundancy{
		Files: 5, Bytes: 2*8192 + 2*4099, Blocks: 4 * 8192,
		OnceFiles: 4, OnceBytes: 8192 + 2*4099, OnceBlocks: 3 * 8192, DifferentBlocks: 3 * 4096,
	}
	if *got != want {
		t.Errorf("got %+v\nwant %+v", *got, want)
	}
}
