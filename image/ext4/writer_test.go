package ext4

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"bigdisk/image/internal/treegen"
)

type tree = treegen.Tree

func manyFiles(n int) tree {
	return func(yield func(treegen.Item) bool) {
		for i := range n {
			if !yield(treegen.File(fmt.Sprintf("%04d", i), treegen.Noise(int64(i), uint64(i)))) {
				return
			}
		}
	}
}

func deepTree(n int) tree {
	var items []treegen.Item
	path := "d"
	for range n {
		items = append(items, treegen.Dir(path), treegen.File(path+"/a", treegen.Noise(3, 1)))
		path += "/d"
	}
	return treegen.Of(items...)
}

var trees = []struct {
	name string
	tree tree
	opts Options
}{
	{name: "empty", tree: treegen.Of()},
	{name: "one empty file", tree: treegen.Of(treegen.File("a", nil))},
	{name: "sizes around blocks", tree: treegen.Of(
		treegen.File("0", nil), treegen.File("1", treegen.Noise(1, 1)),
		treegen.File("4095", treegen.Noise(4095, 2)), treegen.File("4096", treegen.Noise(4096, 3)),
		treegen.File("4097", treegen.Noise(4097, 4)), treegen.Exec("8192", treegen.Noise(8192, 5)),
		treegen.File("batch", treegen.Noise(batchData, 6)), treegen.File("batches", treegen.Noise(3*batchData+1, 7)),
	)},
	{name: "holes", tree: treegen.Of(
		treegen.File("all", treegen.Zeros(100_000)),
		treegen.File("byte", treegen.Zeros(1)),
		treegen.File("front", treegen.Data{{Len: 8192}, {Len: 10, Seed: 1}}),
		treegen.File("middle", treegen.Data{{Len: 4096, Seed: 1}, {Len: 3 * batchData}, {Len: 4096, Seed: 1}}),
		treegen.File("tail", treegen.Data{{Len: 10, Seed: 1}, {Len: 3 * 4096}}),
		treegen.File("unaligned", treegen.Data{{Len: 10, Seed: 1}, {Len: 20_000}, {Len: 5000, Seed: 2}, {Len: 1}}),
	)},
	{name: "symlinks", tree: treegen.Symlinks("s")},
	{name: "symlinks between files", tree: treegen.Of(
		treegen.File("a", treegen.Noise(5000, 1)), treegen.Symlink("b", strings.Repeat("x", 4095)),
		treegen.File("c", treegen.Noise(5000, 1)), treegen.Symlink("d", strings.Repeat("y", 60)),
		treegen.File("e", treegen.Noise(5000, 2)),
	)},
	{name: "deep", tree: deepTree(300)},
	{name: "long names", tree: treegen.LongNames("long", 5000)},
	{name: "directory just within a block", tree: manyFiles((dirBlockRoom - dotEntriesLen - 20) / 12)},
	{name: "directory just over a block", tree: manyFiles((dirBlockRoom-dotEntriesLen-20)/12 + 1)},
	{name: "index in the root", tree: treegen.Join(treegen.Subdirs("a", 3000), manyFiles(1500))},
	{name: "names in no order", tree: treegen.Of(
		treegen.File("z", nil), treegen.Dir("b"), treegen.File("b/z", nil), treegen.File("b/a", nil),
		treegen.Dir("a"), treegen.File("a/x", nil), treegen.File("c", nil),
	)},
	{name: "equal files", tree: treegen.Of(
		treegen.File("a", treegen.Noise(9000, 1)), treegen.File("b", treegen.Noise(9000, 1)),
		treegen.Exec("c", treegen.Noise(9000, 1)), treegen.File("d", treegen.Noise(9000, 2)),
		treegen.Exec("e", treegen.Noise(9000, 1)), treegen.File("f", treegen.Noise(9001, 1)),
	)},
	{name: "four extents", tree: treegen.Of(treegen.File("f", treegen.Striped(4, 4096, 1)))},
	{name: "five extents", tree: treegen.Of(treegen.File("f", treegen.Striped(5, 8192, 1)))},
	{name: "1360 extents", tree: treegen.Of(treegen.File("f", treegen.Striped(1360, 4096, 1)))},
	{name: "1361 extents", tree: treegen.Of(treegen.File("f", treegen.Striped(1361, 4096, 1)), treegen.File("g", treegen.Striped(700, 4096, 2)))},
	{name: "150 MiB in one file", tree: treegen.Of(
		treegen.File("a", treegen.Noise(3<<20, 2)), treegen.File("b", treegen.Noise(150<<20, 1)))},
	{name: "a size", tree: treegen.Symlinks("s"), opts: Options{Size: 300<<20 + 4096, Label: "sixteen bytes ok"}},
	{name: "no rounding", tree: treegen.Symlinks("s"), opts: Options{RoundTo: 4096}},
	{name: "a last group of one block", tree: treegen.Symlinks("s"), opts: Options{Size: 3*128<<20 + 4096}},
	{name: "rounded to a gibibyte", tree: treegen.Symlinks("s"), opts: Options{RoundTo: 1 << 30}},
	{name: "writable", tree: treegen.Store(1000), opts: Options{RoundTo: 1 << 20, Writable: true}},
	{name: "writable of a size", tree: treegen.Store(1000), opts: Options{Size: 1 << 30, Writable: true}},
	{name: "store", tree: treegen.Store(20_000)},
	{name: "more inodes than the front has room for", tree: treegen.Subdirs("s", 140_000/8)},
}

// TestTrees holds images against e2fsck and the kernel, and against a second
// run whose data comes in other pieces.
func TestTrees(t *testing.T) {
	for _, tt := range trees {
		t.Run(tt.name, func(t *testing.T) {
			if tt.opts.RoundTo == 0 && tt.opts.Size == 0 {
				tt.opts.RoundTo = smallImage.RoundTo
			}
			path, layout := build(t, tt.tree, tt.opts)
			fsck(t, path)
			checkMounted(t, path, tt.tree, 1)
			if size := tt.opts.Size; size != 0 && layout.Size != size {
				t.Errorf("%d bytes, not %d", layout.Size, size)
			}
			again, _ := build(t, tt.tree, tt.opts)
			if fileSum(t, path) != fileSum(t, again) {
				t.Error("the second image differs")
			}
		})
	}
}

// TestRandomTrees does the same for trees that nobody thought of.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(30) {
		tree := treegen.Random(seed)
		path, _ := build(t, tree, smallImage)
		fsck(t, path)
		checkMounted(t, path, tree, 1)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestPieces writes the same bytes in pieces of other sizes, zeros as bytes or
// as runs, into a file that held something else.
func TestPieces(t *testing.T) {
	tree := treegen.Join(treegen.Random(1), treegen.Of(
		treegen.File("zz", treegen.Data{{Len: 70_000, Seed: 3}, {Len: 3 << 20}, {Len: 1, Seed: 3}}),
	))
	path, _ := build(t, tree, smallImage)
	want := fileSum(t, path)
	for _, piece := range []int{1, 4095, 4096, 100_001} {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte("stale"), 1<<20), 0); err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(t.Context(), f, smallImage)
		if err != nil {
			t.Fatal(err)
		}
		for item := range tree {
			if err := w.Create(&item.Entry); err != nil {
				t.Fatal(err)
			}
			if _, err := item.Data.WriteTo(pieceWriter{w, piece}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if fileSum(t, path) != want {
			t.Errorf("pieces of %d bytes give another image", piece)
		}
	}
}

// pieceWriter hides WriteZeros and writes a piece at a time.
type pieceWriter struct {
	w     *Writer
	piece int
}

func (p pieceWriter) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += p.piece {
		if _, err := p.w.Write(b[i:min(len(b), i+p.piece)]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// golden is the SHA-256 of the image that TestGolden writes. It changes only
// when the format of images does, and then every image ever made is made
// differently.
const golden = "5785ebba942e5ab069cf0a7dc9238e9ba8b8a91e68dfe03c50a406509056ec36"

func TestGolden(t *testing.T) {
	path, _ := build(t, treegen.Join(treegen.Store(3000), treegen.Symlinks("s"), treegen.Of(
		treegen.File("zz", treegen.Striped(6, 10_000, 1)),
	)), Options{RoundTo: 1 << 20, Label: "golden"})
	fsck(t, path)
	if sum := fileSum(t, path); hex.EncodeToString(sum[:]) != golden {
		t.Errorf("the image's SHA-256 is %x", sum)
	}
}

// TestIdentity says what makes a UUID another one.
func TestIdentity(t *testing.T) {
	base := treegen.Of(treegen.Dir("a"), treegen.File("a/b", treegen.Noise(9, 1)), treegen.Symlink("c", "d"))
	others := map[string]struct {
		tree tree
		opts Options
	}{
		"":           {base, smallImage},
		"bytes":      {treegen.Of(treegen.Dir("a"), treegen.File("a/b", treegen.Noise(9, 3)), treegen.Symlink("c", "d")), smallImage},
		"executable": {treegen.Of(treegen.Dir("a"), treegen.Exec("a/b", treegen.Noise(9, 1)), treegen.Symlink("c", "d")), smallImage},
		"place":      {treegen.Of(treegen.Dir("a"), treegen.File("b", treegen.Noise(9, 1)), treegen.Symlink("c", "d")), smallImage},
		"name":       {treegen.Of(treegen.Dir("a"), treegen.File("a/x", treegen.Noise(9, 1)), treegen.Symlink("c", "d")), smallImage},
		"target":     {treegen.Of(treegen.Dir("a"), treegen.File("a/b", treegen.Noise(9, 1)), treegen.Symlink("c", "e")), smallImage},
		"label":      {base, Options{RoundTo: 1 << 20, Label: "x"}},
		"owner":      {base, Options{RoundTo: 1 << 20, UID: 1}},
		"size":       {base, Options{Size: 40 << 20}},
		"writable":   {base, Options{RoundTo: 1 << 20, Writable: true}},
	}
	seen := map[string]string{}
	for name, o := range others {
		path, _ := build(t, o.tree, o.opts)
		sb := make([]byte, 1024)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(sb, superOffset); err != nil {
			t.Fatal(err)
		}
		f.Close()
		uuid := string(sb[0x68:0x78])
		if other, ok := seen[uuid]; ok {
			t.Errorf("%q and %q have the same UUID", name, other)
		}
		seen[uuid] = name
	}
}
