package ext4

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image/internal/treegen"
)

func dir(path string) *store.Entry { return &store.Entry{Path: path, Kind: store.Directory} }
func file(path string, size int64) *store.Entry {
	return &store.Entry{Path: path, Kind: store.Regular, Size: size}
}
func link(path, target string) *store.Entry {
	return &store.Entry{Path: path, Kind: store.Symlink, Target: target}
}

func TestBadEntries(t *testing.T) {
	tests := []struct {
		name    string
		entries []*store.Entry
		want    string
	}{
		{"no path", []*store.Entry{dir("")}, "not a name"},
		{"dot", []*store.Entry{dir("a"), file("a/.", 0)}, "not a name"},
		{"dot dot", []*store.Entry{dir("..")}, "not a name"},
		{"absolute", []*store.Entry{dir("/a")}, "not relative"},
		{"trailing slash", []*store.Entry{dir("a/")}, "not a name"},
		{"two slashes", []*store.Entry{dir("a"), dir("a//b")}, "has not come"},
		{"NUL", []*store.Entry{dir("a\x00b")}, "NUL in a name"},
		{"long name", []*store.Entry{dir(strings.Repeat("x", 256))}, "256 bytes"},
		{"lost+found", []*store.Entry{dir("lost+found")}, "filesystem's own"},
		{"no parent", []*store.Entry{file("a/b", 0)}, "has not come"},
		{"parent is a file", []*store.Entry{file("a", 0), file("a/b", 0)}, "has not come"},
		{"up and out", []*store.Entry{dir("a"), file("a/../b", 0)}, "has not come"},
		{"directory left", []*store.Entry{dir("a"), dir("b"), file("a/x", 0)}, "has been left"},
		{"twice in order", []*store.Entry{file("a", 0), file("a", 0)}, "twice"},
		{"twice, file and directory", []*store.Entry{file("a", 0), dir("a")}, "twice"},
		{"twice out of order", []*store.Entry{dir("d"), file("d/b", 0), file("d/a", 0), file("d/b", 0)}, `"b" in "/d"`},
		{"twice in the root", []*store.Entry{file("b", 0), file("a", 0), link("b", "x")}, `"b" in "/"`},
		{"negative size", []*store.Entry{file("a", -1)}, "-1 bytes"},
		{"size beyond ext4", []*store.Entry{file("a", 16<<40)}, "17592186044416 bytes"},
		{"no kind", []*store.Entry{{Path: "a"}}, "neither"},
		{"odd kind", []*store.Entry{{Path: "a", Kind: 77}}, "neither"},
		{"empty target", []*store.Entry{link("a", "")}, "without a target"},
		{"long target", []*store.Entry{link("a", strings.Repeat("x", 4096))}, "4096 bytes"},
		{"NUL in target", []*store.Entry{link("a", "x\x00")}, "NUL"},
		{"bytes missing", []*store.Entry{file("a", 1), dir("b")}, "0 of 1 bytes"},
		{"bytes missing at the end", []*store.Entry{file("a", 1)}, "0 of 1 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := NewWriter(t.Context(), discard{}, smallImage)
			if err != nil {
				t.Fatal(err)
			}
			var first error
			for _, e := range tt.entries {
				if err := w.Create(e); err != nil && first == nil {
					first = err
				}
			}
			err = w.Close()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, not %q", err, tt.want)
			}
			if first != nil && err != first {
				t.Errorf("Close says %v after %v", err, first)
			}
			if w.Layout() != nil {
				t.Error("there is a layout")
			}
		})
	}
}

func TestErrorsStay(t *testing.T) {
	w, err := NewWriter(t.Context(), discard{}, smallImage)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Create(file("a", 10)); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(make([]byte, 4)); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	_, first := w.Write(make([]byte, 7))
	if first == nil || !strings.Contains(first.Error(), "10 bytes") {
		t.Fatalf("too many bytes: %v", first)
	}
	_, again := w.Write([]byte{1})
	for _, err := range []error{again, w.Begin("u"), w.Create(dir("d")), w.WriteZeros(1), w.Close(), w.Close()} {
		if err != first {
			t.Errorf("%v, not %v", err, first)
		}
	}
}

func TestAfterClose(t *testing.T) {
	w, err := NewWriter(t.Context(), discard{}, smallImage)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(nil)
	for _, err := range []error{err, w.Begin("u"), w.Create(dir("d")), w.WriteZeros(0)} {
		if !errors.Is(err, errClosed) {
			t.Errorf("%v after Close", err)
		}
	}
}

func TestWriteWithoutFile(t *testing.T) {
	for name, e := range map[string]*store.Entry{"directory": dir("d"), "symlink": link("l", strings.Repeat("x", 99)), "empty file": file("f", 0)} {
		w, err := NewWriter(t.Context(), discard{}, smallImage)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Create(e); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte{1}); err == nil {
			t.Errorf("a byte went into a %s", name)
		}
		if err := w.Close(); err == nil {
			t.Errorf("%s: Close has forgotten", name)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for want, opts := range map[string]Options{
		"label":      {Label: "seventeen bytes!!"},
		"NUL":        {Label: "a\x00"},
		"size of":    {Size: 4097},
		"64 TiB":     {Size: 65 << 40},
		"size of -":  {Size: -4096},
		"rounded to": {RoundTo: 5},
	} {
		if _, err := NewWriter(t.Context(), discard{}, opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, not %q", opts, err, want)
		}
	}
}

// TestSizeTooSmall is refused as soon as it is sure, and not for a file that
// would have been taken back.
func TestSizeTooSmall(t *testing.T) {
	one, two := treegen.Noise(20<<20, 1), treegen.Noise(20<<20, 2)
	opts := Options{Size: 55 << 20}
	tree := treegen.Of(treegen.File("a", one), treegen.File("b", one), treegen.File("c", one))
	path, _ := build(t, tree, opts)
	fsck(t, path)
	_, err := write(discard{}, treegen.Of(treegen.File("a", one), treegen.File("b", two)), opts)
	if err == nil || !strings.Contains(err.Error(), "do not fit into the image's size of 57671680 bytes") {
		t.Error(err)
	}
	_, err = write(discard{}, treegen.Of(treegen.File("a", one), treegen.Dir("d"), treegen.Dir("e")), Options{Size: 53 << 20})
	if err == nil || !strings.Contains(err.Error(), "need 55590912 bytes") {
		t.Error(err)
	}
}

func TestCanceled(t *testing.T) {
	cause := errors.New("enough")
	for _, when := range []string{"before", "between", "at the end"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		if when == "before" {
			cancel(cause)
		}
		w, err := NewWriter(ctx, discard{}, smallImage)
		if err != nil {
			t.Fatal(err)
		}
		if when == "between" {
			err := w.Create(file("a", 1<<40))
			for i := 0; err == nil; i++ {
				if _, err = w.Write(make([]byte, 1<<20)); i == 20 {
					cancel(cause)
				}
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", when, err)
			}
		}
		cancel(cause)
		if err := w.Close(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Close: %v", when, err)
		}
	}
}

// failing is a File that fails from a certain call on.
type failing struct {
	File
	calls int
}

var errDiskFull = errors.New("disk full")

func (f *failing) WriteAt(p []byte, at int64) (int, error) {
	if f.calls--; f.calls < 0 {
		return 0, errDiskFull
	}
	return f.File.WriteAt(p, at)
}

func (f *failing) Truncate(size int64) error {
	if f.calls--; f.calls < 0 {
		return errDiskFull
	}
	return f.File.Truncate(size)
}

// TestTorn lets every write fail in turn. What is left is never a filesystem.
func TestTorn(t *testing.T) {
	tree := treegen.Join(treegen.Store(300), treegen.Of(
		treegen.File("data", treegen.Noise(3*batchData, 1)), treegen.File("many", treegen.Striped(10, blockSize, 1))))
	path := filepath.Join(t.TempDir(), "image")
	for calls := 0; ; calls++ {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = write(&failing{f, calls}, tree, smallImage)
		f.Truncate(64 << 20)
		f.Close()
		if err == nil {
			if calls < 10 {
				t.Errorf("only %d calls", calls)
			}
			fsck(t, path)
			return
		}
		if !errors.Is(err, errDiskFull) || strings.Contains(err.Error(), `"`) {
			t.Fatalf("after %d calls: %v, want %v without the name of an entry", calls, err, errDiskFull)
		}
		if out, err := tool(t, "dumpe2fs", "-h", path); err == nil {
			t.Errorf("after %d calls dumpe2fs sees a filesystem:\n%s", calls, out)
		}
		if os.Geteuid() != 0 {
			continue
		}
		if _, err := tryMount(t, path, "ro"); err == nil {
			t.Errorf("after %d calls the kernel mounts it", calls)
		}
	}
}

// TestLayout reads each unit's data from where the layout says it is.
func TestLayout(t *testing.T) {
	a, b, c := treegen.Noise(10_000, 1), treegen.Noise(20_000, 2), treegen.Noise(3, 3)
	path, layout := build(t, treegen.Of(
		treegen.File("first", c), // of no unit
		treegen.Dir("nix"), treegen.Dir("nix/store"),
		treegen.Dir("nix/store/1"), treegen.File("nix/store/1/a", a), treegen.File("nix/store/1/b", b),
		treegen.File("nix/store/2", a),
		treegen.Dir("nix/store/3"), treegen.File("nix/store/3/a", a), treegen.Exec("nix/store/3/b", b),
		treegen.Symlink("nix/store/4", "3"),
	), smallImage)
	if layout.Files != 6 || layout.Dirs != 4 || layout.Symlinks != 1 {
		t.Errorf("%d files, %d directories, %d symlinks", layout.Files, layout.Dirs, layout.Symlinks)
	}
	if layout.DataBytes != 3+3*10_000+2*20_000 || layout.UniqueBytes != 3+10_000+2*20_000 {
		t.Errorf("%d of %d bytes unique", layout.UniqueBytes, layout.DataBytes)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []struct {
		name    string
		extents int
		data    []treegen.Data
		files   int64
		bytes   int64
	}{
		{"1", 1, []treegen.Data{a, b}, 2, 30_000},
		{"2", 0, nil, 1, 10_000},
		{"3", 1, []treegen.Data{b}, 2, 30_000},
		{"4", 0, nil, 0, 0},
	}
	if len(layout.Units) != len(want) {
		t.Fatalf("%d units", len(layout.Units))
	}
	for i, u := range layout.Units {
		w := want[i]
		if u.Name != w.name || u.Files != w.files || u.Bytes != w.bytes || len(u.Extents) != w.extents {
			t.Errorf("unit %+v, not %+v", u, w)
			continue
		}
		length := int64(0)
		for _, d := range w.data {
			at := io.NewSectionReader(f, u.Extents[0].Offset+length, d.Size())
			if err := d.Check(at, 0, d.Size()); err != nil {
				t.Errorf("%s: %v", u.Name, err)
			}
			length += ceilDiv(d.Size(), blockSize) * blockSize
		}
		if w.extents > 0 && u.Extents[0].Length != length {
			t.Errorf("%s: %d bytes, not %d", u.Name, u.Extents[0].Length, length)
		}
	}
}
