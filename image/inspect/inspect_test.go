package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/storedb"
)

// path makes a store path whose digest is one character, many times.
func path(c byte, name string) store.Path {
	p, err := store.ParseBase(strings.Repeat(string(c), store.DigestLen) + "-" + name)
	if err != nil {
		panic(err) // a test's own name
	}
	return p
}

// aStore has two versions of app, which share lib, and tool, which shares libc
// with both; readme belongs to nobody.
func aStore() *Store {
	s := &Store{Unique: -1, Files: 9, Bytes: 5000}
	s.Info.Format, s.Info.Length, s.Info.Size = "squashfs", 1000, 1000
	s.Paths = []Path{
		{Path: path('0', "libc"), NarSize: 1000, Stored: 500},
		{Path: path('1', "lib"), NarSize: 400, Stored: 100, refs: []int32{0}},
		{Path: path('2', "app-1"), NarSize: 30, Stored: 3, refs: []int32{1}},
		{Path: path('3', "app-2"), NarSize: 50, Stored: 5, refs: []int32{1}},
		{Path: path('4', "tool"), NarSize: 7, Stored: 1, refs: []int32{0}},
		{Path: path('5', "readme"), NarSize: 2, Stored: 1},
	}
	s.Modules = []Module{
		{ID: "app:v1", Path: s.Paths[2].Path},
		{ID: "app:v2", Path: s.Paths[3].Path},
		{ID: "gone:v1", Path: path('9', "gone")},
		{ID: "tool:v1", Path: s.Paths[4].Path},
	}
	return s
}

func TestSummarize(t *testing.T) {
	got := aStore().Summarize(2)
	want := []ModuleSizes{
		{Module: Module{ID: "app:v1"}, Paths: 3, Closure: 1430, Own: 30},
		{Module: Module{ID: "app:v2"}, Paths: 3, Closure: 1450, Own: 50},
		{Module: Module{ID: "gone:v1"}},
		{Module: Module{ID: "tool:v1"}, Paths: 2, Closure: 1007, Own: 7},
	}
	if len(got.Modules) != len(want) {
		t.Fatalf("%d modules, want %d", len(got.Modules), len(want))
	}
	for i, w := range want {
		g := got.Modules[i]
		if g.ID != w.ID || g.Paths != w.Paths || g.Closure != w.Closure || g.Own != w.Own {
			t.Errorf("module %d is %+v, want %+v", i, g, w)
		}
	}
	if len(got.Largest) != 2 || got.Largest[0].NarSize != 1000 || got.Largest[1].NarSize != 400 {
		t.Errorf("the largest are %+v", got.Largest)
	}
	if got.Ratio != 5 || got.StorePaths != 6 {
		t.Errorf("summary %+v", got)
	}
}

func TestUsers(t *testing.T) {
	want := []use{
		{modules: 3, first: 0, names: 2},
		{modules: 2, first: 0, names: 1},
		{modules: 1, first: 0, names: 1},
		{modules: 1, first: 1, names: 1},
		{modules: 1, first: 3, names: 1},
		{modules: 0, first: -1, names: 0},
	}
	if got := aStore().users(); !slices.Equal(got, want) {
		t.Errorf("the paths are used by %+v, want %+v", got, want)
	}
}

func TestDiff(t *testing.T) {
	from, to := aStore(), aStore()
	to.Paths[5] = Path{Path: path('6', "readme"), NarSize: 12}            // rebuilt
	to.Paths = append(to.Paths, Path{Path: path('7', "new"), NarSize: 9}) // added
	from.Paths[4].Path = path('3', "zzz")                                 // removed, and tool added
	from.Modules = from.Modules[:3]
	to.Modules = to.Modules[1:]
	to.Modules[0].Path = to.Paths[2].Path
	d := Diff(from, to)
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Paths.Added) != 2 || d.Paths.Added[0].Path.Name() != "new" || d.Paths.Added[1].Path.Name() != "tool" ||
		len(d.Paths.Removed) != 1 || d.Paths.Removed[0].Path.Name() != "zzz" ||
		len(d.Paths.Changed) != 1 || d.Paths.Changed[0].Before != 2 || d.Paths.Changed[0].After != 12 {
		t.Errorf("paths: %s", b)
	}
	if len(d.Modules.Added) != 1 || d.Modules.Added[0].ID != "tool:v1" || len(d.Modules.Removed) != 1 || d.Modules.Removed[0].ID != "app:v1" ||
		len(d.Modules.Changed) != 1 || d.Modules.Changed[0].After != 1430 {
		t.Errorf("modules: %s", b)
	}
	if d.Before != (Total{6, 1489}) || d.After != (Total{7, 1508}) || d.Kept != (Total{4, 1480}) {
		t.Errorf("totals: %s", b)
	}
	if same := Diff(from, from); len(same.Paths.Changed)+len(same.Paths.Added)+len(same.Paths.Removed)+len(same.Modules.Changed) > 0 {
		t.Errorf("an image differs from itself: %+v", same)
	} else if b, err := json.Marshal(same); err != nil || bytes.Contains(b, []byte("null")) {
		t.Errorf("nothing at all is no empty list: %s, %v", b, err)
	}
}

// makeImage makes an image with two store paths, with a database or without.
func makeImage(t *testing.T, database bool) (string, []*store.PathInfo) {
	t.Helper()
	imagetest.NeedTools(t, "mksquashfs")
	dir := filepath.Join(t.TempDir(), "root")
	write := func(name, data string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	infos := []*store.PathInfo{
		{Path: path('1', "lib"), NarHash: store.Hash{1}, NarSize: 400},
		{Path: path('2', "app"), NarHash: store.Hash{2}, NarSize: 30, References: []store.Path{path('1', "lib"), path('2', "app")}},
	}
	write(string(infos[0].Path)+"/a/b", "12345")
	write(string(infos[1].Path), "123")
	write("etc/nixmodules/modules.json", `{"app:v1": {"commit": "c0ffee", "path": "`+string(infos[1].Path)+`"}}`)
	if database {
		write(databasePath, "")
		if err := os.Remove(filepath.Join(dir, databasePath)); err != nil {
			t.Fatal(err)
		}
		err := storedb.Write(context.Background(), filepath.Join(dir, databasePath), storedb.Infos(infos), storedb.Options{})
		if err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "disk.sqsh")
	imagetest.Command(t, "mksquashfs", dir, name, "-quiet", "-no-progress", "-no-xattrs")
	return name, infos
}

func TestOpen(t *testing.T) {
	for _, database := range []bool{true, false} {
		name, infos := makeImage(t, database)
		s, err := Open(context.Background(), name, Options{ScratchDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		wantSize, wantClosure := []int64{400, 30}, int64(430)
		if !database { // file sizes have to do, and no references are known
			wantSize, wantClosure = []int64{5, 3}, 3
		}
		for i, p := range s.Paths {
			if p.Path != infos[i].Path || p.NarSize != wantSize[i] || p.Stored != -1 {
				t.Errorf("database %v: path %+v", database, p)
			}
		}
		sum := s.Summarize(10)
		if len(sum.Modules) != 1 || sum.Modules[0].Closure != wantClosure || sum.Modules[0].Commit != "c0ffee" {
			t.Errorf("database %v: modules %+v", database, sum.Modules)
		}
		if sum.StorePaths != 2 || sum.Files < 3 {
			t.Errorf("database %v: %+v", database, sum)
		}
	}
}

// Without a place for the database's copy nothing is known of it, which is not
// that there is none.
func TestOpenWithoutScratch(t *testing.T) {
	name, _ := makeImage(t, true)
	if s, err := Open(context.Background(), name, Options{ScratchDir: filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Errorf("opened, with paths %+v", s.Paths)
	}
}

func TestOpenWithManifest(t *testing.T) {
	name, infos := makeImage(t, true)
	m := &image.Manifest{
		Image:   image.ManifestImage{Label: "label"},
		Modules: []image.ManifestModule{{ID: "x:v1", Path: infos[0].Path}},
		Totals:  image.ManifestTotals{Files: 77, Bytes: 5, UniqueBytes: 4},
		Verity:  &image.ManifestVerity{},
		Paths:   []image.ManifestPath{{Path: infos[0].Path, Data: []image.Extent{{Offset: 1, Length: 10}, {Offset: 20, Length: 5}}}},
	}
	s, err := Open(context.Background(), name, Options{Manifest: m, ScratchDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if s.Files != 77 || s.Unique != 4 || s.Label != "label" || s.Verity == "" || s.Paths[0].Stored != 15 || s.Modules[0].ID != "x:v1" {
		t.Errorf("%+v", s)
	}
}

func TestOpenRefuses(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	if _, err := Open(context.Background(), name, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent image: %v", err)
	}
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), name, Options{}); err == nil || strings.Count(err.Error(), name) != 1 {
		t.Errorf("a file of zeros: %v", err)
	}
}

func BenchmarkPage(b *testing.B) {
	s := &Store{}
	for i := range 100000 {
		p, err := store.ParseBase(fmt.Sprintf("%032d-package", i))
		if err != nil {
			b.Fatal(err)
		}
		s.Paths = append(s.Paths, Path{Path: p, NarSize: int64(i), refs: []int32{int32(i / 2)}})
	}
	for i := range 50 {
		s.Modules = append(s.Modules, Module{ID: fmt.Sprintf("m%02d:v1", i), Path: s.Paths[len(s.Paths)-1-i].Path})
	}
	for b.Loop() {
		var out bytes.Buffer
		if err := s.WritePage(&out, "benchmark"); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(out.Len()))
	}
}

func Example() {
	s := aStore() // in earnest: Open(ctx, "disk.sqsh", Options{})
	for _, m := range s.Summarize(0).Modules {
		fmt.Println(m.ID, "needs", m.Closure, "bytes,", m.Own, "of them alone")
	}
	// Output:
	// app:v1 needs 1430 bytes, 30 of them alone
	// app:v2 needs 1450 bytes, 50 of them alone
	// gone:v1 needs 0 bytes, 0 of them alone
	// tool:v1 needs 1007 bytes, 7 of them alone
}
