package ext4

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"bigdisk/image/internal/treegen"
)

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("big, and -short is set")
	}
}

// TestMillionPaths has a million names in one directory, and enough of them
// for some hashes to come twice across the border of two blocks.
func TestMillionPaths(t *testing.T) {
	skipShort(t)
	const n = 1_000_000
	tree := treegen.Store(n)
	path, layout := build(t, tree, smallImage)
	if len(layout.Units) != n {
		t.Errorf("%d units", len(layout.Units))
	}
	fsck(t, path)
	dump := mustTool(t, "debugfs", "-R", "htree_dump /nix/store", path)
	if !strings.Contains(dump, "Indirect levels: 1\n") {
		t.Error("the index of /nix/store does not have two levels")
	}
	if !regexp.MustCompile(`Entry #\d+: Hash 0x[0-9a-f]{7}[13579bdf],`).MatchString(dump) {
		t.Error("no block of /nix/store continues a hash of the block before")
	}
	checkMounted(t, path, tree, 97)
}

// TestManySubdirectories is past what a link count can say.
func TestManySubdirectories(t *testing.T) {
	skipShort(t)
	tree := treegen.Subdirs("many", 70_000)
	path, _ := build(t, tree, smallImage)
	fsck(t, path)
	checkMounted(t, path, tree, 1)
	if stat := mustTool(t, "debugfs", "-R", "stat /many", path); !strings.Contains(stat, "Links: 1 ") {
		t.Errorf("the link count is not 1:\n%s", stat)
	}
}

func TestDirectoryLinks(t *testing.T) {
	for subdirs, want := range map[uint32]uint16{0: 2, 1: 3, 64_998: 65_000, 64_999: 1, 70_000: 1} {
		d := directory{subdirs: subdirs}
		if got := d.links(); got != want {
			t.Errorf("%d subdirectories: %d links, not %d", subdirs, got, want)
		}
	}
}

// TestManyDuplicates is past what an inode can have as names.
func TestManyDuplicates(t *testing.T) {
	skipShort(t)
	tree := treegen.Duplicates("same", 70_000, treegen.Noise(5000, 1))
	path, layout := build(t, tree, smallImage)
	fsck(t, path)
	checkMounted(t, path, tree, 1)
	for file, want := range map[string]string{"000000": "Links: 65000 ", "064999": "Links: 65000 ", "065000": "Links: 5000 "} {
		if stat := mustTool(t, "debugfs", "-R", "stat /same/"+file, path); !strings.Contains(stat, want) {
			t.Errorf("%s: not %q:\n%s", file, want, stat)
		}
	}
	if layout.UniqueBytes != 5000 || layout.DataBytes != 70_000*5000 {
		t.Errorf("%d of %d bytes are unique", layout.UniqueBytes, layout.DataBytes)
	}
}

// TestFragments has a file that needs two levels of blocks for its extents.
func TestFragments(t *testing.T) {
	skipShort(t)
	tree := treegen.Of(
		treegen.File("a", treegen.Noise(10_000, 1)),
		treegen.File("fragments", treegen.Striped(100_000, blockSize, 1)),
		treegen.File("z", treegen.Noise(10_000, 2)),
	)
	path, _ := build(t, tree, smallImage)
	fsck(t, path)
	extents := mustTool(t, "debugfs", "-R", "dump_extents /fragments", path)
	if n := strings.Count(extents, " 2/ 2 "); n != 100_000 {
		t.Errorf("%d extents at level 2", n)
	}
	checkMounted(t, path, tree, 1)
}

// windowFile keeps of the data only what lies in some windows, so that an
// image takes less room than it has data. Metadata is always kept: it comes
// when the data is done.
type windowFile struct {
	*os.File
	windows [][2]int64
	data    bool
}

func (f *windowFile) WriteAt(p []byte, at int64) (int, error) {
	if !f.data {
		return f.File.WriteAt(p, at)
	}
	for _, w := range f.windows {
		from, to := max(w[0], at), min(w[1], at+int64(len(p)))
		if from < to {
			if _, err := f.File.WriteAt(p[from-at:to-at], from); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// Truncate to anything but nothing is how the metadata begins.
func (f *windowFile) Truncate(size int64) error {
	f.data = size == 0
	return f.File.Truncate(size)
}

// TestBigFiles has a file of 6 GiB full of data, which is read where a 32-bit
// number would go wrong, and a sparse one of 5 TiB.
func TestBigFiles(t *testing.T) {
	skipShort(t)
	const full = 6 << 30
	big := treegen.Noise(full, 1)
	sparse := treegen.Data{
		{Len: 5000, Seed: 2}, {Len: 3<<40 - 5000}, {Len: 123_456, Seed: 3}, {Len: 2<<40 - 123_456 - 77}, {Len: 77, Seed: 4},
	}
	small := treegen.Of(treegen.File("after", treegen.Noise(10_000, 9)), treegen.File("sparse", sparse))
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var offsets, windows [][2]int64
	for _, at := range []int64{0, 128<<20 - 1<<20, 2<<30 - 1<<20, 4<<30 - 1<<20, full - 1<<20} {
		from, to := at, min(at+2<<20, full)
		offsets = append(offsets, [2]int64{from, to})
		windows = append(windows, [2]int64{from + firstData*blockSize, to + firstData*blockSize})
	}
	windows = append(windows, [2]int64{full + firstData*blockSize, 1 << 62})
	tree := treegen.Join(treegen.Of(treegen.File("a", big)), small)
	if _, err := write(&windowFile{File: f, windows: windows}, tree, smallImage); err != nil {
		t.Fatal(err)
	}
	fsck(t, f.Name())
	extents := mustTool(t, "debugfs", "-R", "dump_extents /a", f.Name())
	if n := strings.Count(extents, " 32768\n") + strings.Count(extents, " 32768 \n"); n < 48 {
		t.Errorf("%d extents of 128 MiB, not 48:\n%s", n, extents)
	}
	dir := mount(t, f.Name(), "ro")
	got, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if st, err := got.Stat(); err != nil || st.Size() != full {
		t.Errorf("%d bytes (%v)", st.Size(), err)
	}
	for _, w := range offsets {
		if err := big.Check(got, w[0], w[1]); err != nil {
			t.Error(err)
		}
	}
	got.Close()
	c := treegen.Checker{Ignore: lostFound, Skip: "a"}
	if err := c.Check(dir, tree); err != nil {
		t.Error(err)
	}
}

// hugeDir returns a directory for files of tens of terabytes.
func hugeDir(t *testing.T) string {
	t.Helper()
	candidates := []string{t.TempDir()}
	if dir, err := os.MkdirTemp("/dev/shm", "ext4"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		candidates = append(candidates, dir)
	}
	for _, dir := range candidates {
		name := filepath.Join(dir, "probe")
		f, err := os.Create(name)
		if err != nil {
			continue
		}
		err = f.Truncate(60 << 40)
		f.Close()
		os.Remove(name)
		if err == nil {
			return dir
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("neither the temporary directory nor /dev/shm holds a file of 60 TiB")
	}
	t.Skip("neither the temporary directory nor /dev/shm holds a file of 60 TiB")
	return ""
}

// TestBeyond16TiB puts data, directories, extent trees, bitmaps and inode
// tables where a block number does not fit into 32 bits.
func TestBeyond16TiB(t *testing.T) {
	skipShort(t)
	tree := treegen.Join(
		treegen.Store(5000), treegen.Symlinks("symlinks"),
		treegen.Of(treegen.File("fragments", treegen.Striped(2000, blockSize, 1)),
			treegen.File("two", treegen.Noise(130<<20, 7))),
	)
	for _, opts := range []Options{
		{dataStart: 1<<32 - 300, Label: "across"},
		{dataStart: 1<<32 + 5, Size: 20 << 40, Label: "beyond"},
	} {
		t.Run(opts.Label, func(t *testing.T) {
			path, layout := buildIn(t, hugeDir(t), tree, opts)
			if layout.Size <= 16<<40 {
				t.Fatalf("only %d bytes", layout.Size)
			}
			start := time.Now()
			fsck(t, path)
			t.Logf("e2fsck took %v", time.Since(start))
			checkMounted(t, path, tree, 1)
		})
	}
}

// TestMemory holds what a file costs against the budget.
func TestMemory(t *testing.T) {
	skipShort(t)
	const n = 300_000
	w, err := NewWriter(t.Context(), discard{}, smallImage)
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	for i := range n {
		item := treegen.File(fmt.Sprintf("%020d", i), treegen.Noise(16, uint64(2*i)))
		if err := w.Create(&item.Entry); err != nil {
			t.Fatal(err)
		}
		if _, err := item.Data.WriteTo(w); err != nil {
			t.Fatal(err)
		}
	}
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a file, 20 of them its name's", each)
	if each > 130 {
		t.Errorf("%.0f bytes a file", each)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// discard is a File that keeps nothing.
type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discard) Truncate(int64) error                   { return nil }
