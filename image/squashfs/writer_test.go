package squashfs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/squashfs"
)

func parse(t testing.TB, s string) squashfs.Compression {
	t.Helper()
	c, err := squashfs.ParseCompression(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// build writes the files into an image and returns its path and layout.
func build(t testing.TB, opts squashfs.Options, files []imagetest.File) (string, *image.Layout) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.sqsh")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(t.Context(), f, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := imagetest.Write(w, files); err != nil {
		t.Fatal(err)
	}
	l := w.Layout()
	if info, err := f.Stat(); err != nil || info.Size() != l.Size {
		t.Fatalf("the image has %d bytes, its layout says %d (%v)", info.Size(), l.Size, err)
	}
	return name, l
}

// variants are options that change the bytes of an image.
func variants(t testing.TB) map[string]squashfs.Options {
	v := map[string]squashfs.Options{
		"default":     {},
		"owner":       {UID: 1000, GID: 100, BlockSize: 64 << 10},
		"small":       {BlockSize: squashfs.MinBlockSize},
		"large":       {BlockSize: squashfs.MaxBlockSize, Jobs: 3},
		"none-small":  {BlockSize: squashfs.MinBlockSize, Compression: parse(t, "none")},
		"gzip-small":  {BlockSize: squashfs.MinBlockSize, Compression: parse(t, "gzip")},
		"lz4-small":   {BlockSize: squashfs.MinBlockSize, Compression: parse(t, "lz4")},
		"zstd-better": {Compression: parse(t, "zstd:better")},
	}
	for _, c := range []string{"zstd:fastest", "zstd:best", "gzip", "lz4", "none"} {
		v[c] = squashfs.Options{Compression: parse(t, c), BlockSize: 128 << 10}
	}
	return v
}

// TestKernelShowsWhatWasWritten mounts every tree, and all of them in one with
// every kind of options, and holds each file, mode, owner, time, link and byte
// against what went in.
func TestKernelShowsWhatWasWritten(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	check := func(name string, opts squashfs.Options, files []imagetest.File) {
		t.Run(name, func(t *testing.T) {
			image, _ := build(t, opts, files)
			at := imagetest.Mount(t, image)
			imagetest.CheckSame(t, imagetest.ReadTree(t, at), imagetest.Want(files, opts.UID, opts.GID))
		})
	}
	for tree, files := range imagetest.Trees() {
		check(tree, squashfs.Options{BlockSize: squashfs.MinBlockSize}, files)
	}
	for name, opts := range variants(t) {
		check(name, opts, allTrees())
	}
}

// allTrees is every tree but the one with long names, each in a directory and
// a unit of its own.
func allTrees() []imagetest.File {
	var files []imagetest.File
	trees := imagetest.Trees()
	for _, tree := range slices.Sorted(maps.Keys(trees)) {
		if tree == "names" {
			continue
		}
		files = append(files, imagetest.Unit(tree), imagetest.Dir(tree))
		for _, f := range trees[tree] {
			if !strings.HasPrefix(f.Path, "unit:") {
				f.Path = tree + "/" + f.Path
				files = append(files, f)
			}
		}
	}
	return files
}

// TestUnsquashfsAgrees unpacks every tree with the reader that squashfs's own
// authors keep. It needs no root, and then cannot keep owners.
func TestUnsquashfsAgrees(t *testing.T) {
	imagetest.NeedTools(t, "unsquashfs")
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	for tree, files := range imagetest.Trees() {
		t.Run(tree, func(t *testing.T) {
			image, _ := build(t, squashfs.Options{UID: uid, GID: gid, BlockSize: squashfs.MinBlockSize}, files)
			at := filepath.Join(t.TempDir(), "root")
			imagetest.Command(t, "unsquashfs", "-no-progress", "-d", at, image)
			imagetest.CheckSame(t, imagetest.ReadTree(t, at), imagetest.Want(files, uid, gid))
			imagetest.Command(t, "chmod", "-R", "u+w", at)
		})
	}
}

func digest(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestBytesDoNotDependOnWorkers builds the same tree with different numbers of
// workers, more than once.
func TestBytesDoNotDependOnWorkers(t *testing.T) {
	for name, opts := range variants(t) {
		t.Run(name, func(t *testing.T) {
			files := allTrees()
			var first string
			for _, jobs := range []int{1, 8, 2, 8} {
				opts.Jobs = jobs
				image, _ := build(t, opts, files)
				if got := digest(t, image); first == "" {
					first = got
				} else if got != first {
					t.Errorf("%d jobs give %s, one gave %s", jobs, got, first)
				}
			}
		})
	}
}

// TestGolden pins the bytes of a small image. They change with the format of
// what this package writes, or with the compressor's version: then every image
// changes, and reusing an older image's data is over, so this must be meant.
func TestGolden(t *testing.T) {
	want := map[string]string{
		"zstd:default": "b659a74ea082f71acb6d087521a9e9936bbe69c36b353bab1afe1d7dd804dfd5",
		"none":         "c82cc269fb8746487c52a4f480379f9cdf83fc7a08b71ba16de666d41c0ed833",
	}
	for c, sum := range want {
		t.Run(c, func(t *testing.T) {
			image, _ := build(t, squashfs.Options{Compression: parse(t, c), BlockSize: 4096}, imagetest.Trees()["duplicates"])
			if got := digest(t, image); got != sum {
				t.Errorf("the image is %s, was %s", got, sum)
			}
		})
	}
}

// TestLongDuplicateIsWrittenOver covers files too long to be held back: the
// second of two leaves nothing behind, and what follows it lies where it would
// have.
func TestLongDuplicateIsWrittenOver(t *testing.T) {
	long := imagetest.Noise(1, 17<<20)
	opts := squashfs.Options{Compression: parse(t, "none"), BlockSize: 1 << 20}
	files := []imagetest.File{
		imagetest.Unit("a"), imagetest.Reg("a", long),
		imagetest.Unit("b"), imagetest.Dir("b"), imagetest.Reg("b/copy", long), imagetest.Reg("b/other", imagetest.Noise(2, 3<<20)),
		imagetest.Unit("c"), imagetest.Reg("c", long),
		imagetest.Unit(""), imagetest.Reg("of-no-unit", "but on the disk"),
	}
	name, l := build(t, opts, files)
	if max := int64(20<<20 + 64<<10); l.Size > max {
		t.Errorf("the image has %d bytes, with the copies stored once it has under %d", l.Size, max)
	}
	want := []image.Unit{
		{Name: "a", Files: 1, Bytes: 17 << 20, Extents: []image.Extent{{Offset: 96, Length: 17 << 20}}},
		{Name: "b", Files: 2, Bytes: 20 << 20, Extents: []image.Extent{{Offset: 96 + 17<<20, Length: 3 << 20}}},
		{Name: "c", Files: 1, Bytes: 17 << 20},
	}
	sum := l.Units[0].Sums[0]
	for i := range l.Units {
		u := &l.Units[i]
		if len(u.Sums) != int(want[i].Files) || u.Sums[0] != sum {
			t.Errorf("unit %s has the sums %x", u.Name, u.Sums)
		}
		if got := dataSum(t, name, u); got != *u.Data {
			t.Errorf("the data of unit %s has the sum %s, not %s", u.Name, got, u.Data)
		}
		u.Sums, u.Data = nil, nil
	}
	if got := fmt.Sprint(l.Units); got != fmt.Sprint(want) {
		t.Errorf("units %v, want %v", got, want)
	}
	if l.UniqueBytes != 20<<20+15 || l.DataBytes != 54<<20+15 {
		t.Errorf("%d of %d bytes are unique, want %d of %d", l.UniqueBytes, l.DataBytes, 20<<20+15, 54<<20+15)
	}
	imagetest.CheckSame(t, imagetest.ReadTree(t, imagetest.Mount(t, name)), imagetest.Want(files, 0, 0))
}

// dataSum hashes what a file has for a unit.
func dataSum(t *testing.T, name string, u *image.Unit) (sum image.DataSum) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := blake3.New()
	for _, x := range u.Extents {
		if _, err := io.Copy(h, io.NewSectionReader(f, x.Offset, x.Length)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range u.Sums {
		h.Write(s[:])
	}
	h.Sum(sum[:0])
	return sum
}

// TestUnitsStandAlone shows that what a unit writes does not depend on its
// neighbours, as long as they share no file.
func TestUnitsStandAlone(t *testing.T) {
	unit := []imagetest.File{imagetest.Unit("u"), imagetest.Dir("u"), imagetest.Reg("u/text", imagetest.Text(1, 99999)), imagetest.Reg("u/small", "small")}
	before := []imagetest.File{imagetest.Unit("t"), imagetest.Dir("t"), imagetest.Reg("t/text", imagetest.Text(2, 77777)), imagetest.Reg("t/small", "other")}
	opts := squashfs.Options{BlockSize: 16 << 10}
	alone := unitBytes(t, opts, "u", unit)
	if got := unitBytes(t, opts, "u", append(before, unit...)); !bytes.Equal(got, alone) {
		t.Error("the unit's bytes changed with what came before")
	}
}

func unitBytes(t *testing.T, opts squashfs.Options, unit string, files []imagetest.File) []byte {
	t.Helper()
	name, l := build(t, opts, files)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range l.Units {
		if u.Name == unit && len(u.Extents) == 1 {
			return data[u.Extents[0].Offset:][:u.Extents[0].Length]
		}
	}
	t.Fatalf("no extent of unit %s in %v", unit, l.Units)
	return nil
}

func TestBadEntries(t *testing.T) {
	reg := func(path string, size int64) *store.Entry {
		return &store.Entry{Path: path, Kind: store.Regular, Size: size}
	}
	dir := func(path string) *store.Entry { return &store.Entry{Path: path, Kind: store.Directory} }
	link := func(target string) *store.Entry {
		return &store.Entry{Path: "l", Kind: store.Symlink, Target: target}
	}
	tests := map[string]struct {
		entries []*store.Entry
		want    string // in the error
	}{
		"empty name":         {[]*store.Entry{reg("", 0)}, `"" is not a name`},
		"dot":                {[]*store.Entry{reg(".", 0)}, `"." is not a name`},
		"dot dot":            {[]*store.Entry{dir("a"), reg("a/..", 0)}, `".." is not a name`},
		"nul":                {[]*store.Entry{reg("a\x00b", 0)}, "is not a name"},
		"trailing slash":     {[]*store.Entry{dir("a"), reg("a/", 0)}, `"" is not a name`},
		"long":               {[]*store.Entry{reg(strings.Repeat("n", 257), 0)}, "is not a name"},
		"absolute":           {[]*store.Entry{reg("/a", 0)}, "not relative"},
		"no directory":       {[]*store.Entry{reg("a/b", 0)}, `"a" is not open`},
		"below a file":       {[]*store.Entry{reg("a", 0), reg("a/b", 0)}, `"a" is not open`},
		"closed directory":   {[]*store.Entry{dir("a"), dir("b"), reg("a/b", 0)}, `"a" is not open`},
		"twice":              {[]*store.Entry{reg("a", 0), reg("a", 0)}, `the name "a" is there twice`},
		"twice, apart":       {[]*store.Entry{dir("d"), reg("d/a", 0), reg("d/b", 0), dir("d/a")}, `/d: the name "a" is there twice`},
		"negative size":      {[]*store.Entry{reg("a", -1)}, "-1 bytes"},
		"absurd size":        {[]*store.Entry{reg("a", 1<<62)}, "4611686018427387904 bytes"},
		"missing bytes":      {[]*store.Entry{reg("a", 7), reg("b", 0)}, `"a": 7 bytes are missing`},
		"missing at the end": {[]*store.Entry{reg("a", 7)}, `"a": 7 bytes are missing`},
		"empty target":       {[]*store.Entry{link("")}, "target"},
		"nul in target":      {[]*store.Entry{link("a\x00")}, "target"},
		"endless target":     {[]*store.Entry{link(strings.Repeat("t", 1<<16))}, "target"},
		"no kind":            {[]*store.Entry{{Path: "a"}}, "kind 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := writeEntries(t, test.entries)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got the error %v, want one with %q", err, test.want)
			}
		})
	}
}

func writeEntries(t *testing.T, entries []*store.Entry) error {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(t.Context(), f, squashfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := w.Create(e); err != nil {
			if closed := w.Close(); !errors.Is(closed, err) {
				t.Errorf("Close forgot the error %v and said %v", err, closed)
			}
			return err
		}
	}
	err = w.Close()
	if err != nil && w.Layout() != nil {
		t.Error("an image that failed has a layout")
	}
	return err
}

func TestTooManyBytes(t *testing.T) {
	w, err := squashfs.NewWriter(t.Context(), &memory{}, squashfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Create(&store.Entry{Path: "a", Kind: store.Regular, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "four"); !errors.Is(err, squashfs.ErrWriteTooLong) {
		t.Errorf("Write says %v", err)
	}
	if err := w.Close(); !errors.Is(err, squashfs.ErrWriteTooLong) {
		t.Errorf("Close says %v", err)
	}
	if err := w.Begin("x"); !errors.Is(err, squashfs.ErrClosed) {
		t.Errorf("Begin after Close says %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	for _, size := range []int{-1, 1, 4095, 2048, 96 << 10, 2 << 20} {
		if _, err := squashfs.NewWriter(t.Context(), &memory{}, squashfs.Options{BlockSize: size}); err == nil {
			t.Errorf("block size %d is accepted", size)
		}
	}
	if _, err := squashfs.NewWriter(t.Context(), &memory{}, squashfs.Options{Jobs: -1}); err == nil {
		t.Error("-1 jobs are accepted")
	}
	for _, c := range []string{"", "zstd:", "zstd:3", "gzip:9", "xz", "none:"} {
		if _, err := squashfs.ParseCompression(c); err == nil {
			t.Errorf("compression %q is accepted", c)
		}
	}
	for _, c := range []string{"zstd:fastest", "zstd:default", "zstd:better", "zstd:best", "gzip", "lz4", "none"} {
		if got := parse(t, c).String(); got != c {
			t.Errorf("compression %q calls itself %q", c, got)
		}
	}
}

// memory is an image in memory that fails, or calls a function, once it is
// limit bytes long.
type memory struct {
	limit int64
	then  func() error
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if m.then != nil && at+int64(len(p)) > m.limit {
		if err := m.then(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (m *memory) Truncate(int64) error { return nil }

var errFull = errors.New("no space left on device")

// TestFullDisk and TestCancel: the error comes back from whatever is called
// next, Close returns it too, and no goroutine stays.
func TestFullDisk(t *testing.T) {
	err := endless(t, t.Context(), &memory{limit: 5 << 20, then: func() error { return errFull }})
	if !errors.Is(err, errFull) || strings.Contains(err.Error(), "endless") {
		t.Errorf("got %v, want %v without the name of an entry", err, errFull)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := endless(t, ctx, &memory{limit: 5 << 20, then: func() error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// endless writes until something says no, and returns what Close then says.
func endless(t *testing.T, ctx context.Context, f squashfs.File) error {
	t.Helper()
	before := runtime.NumGoroutine()
	w, err := squashfs.NewWriter(ctx, f, squashfs.Options{Jobs: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Create(&store.Entry{Path: "endless", Kind: store.Regular, Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(1000) {
		if _, err = io.WriteString(w, imagetest.Noise(seed, 1<<20)); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("1000 MiB went through")
	}
	failed := err
	if err = w.Close(); err != failed {
		t.Errorf("Write says %v, Close %v", failed, err)
	}
	if w.Layout() != nil {
		t.Error("an image that failed has a layout")
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	return err
}

// TestTornImageIsRefused leaves out what Close writes last, the superblock.
func TestTornImageIsRefused(t *testing.T) {
	imagetest.NeedTools(t, "unsquashfs")
	name, _ := build(t, squashfs.Options{}, imagetest.Trees()["kinds"])
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 96), 0); err != nil {
		t.Fatal(err)
	}
	if out, err := execOutput("unsquashfs", "-l", name); err == nil {
		t.Errorf("an image without a superblock is read:\n%s", out)
	}
}
