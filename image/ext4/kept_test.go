package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/internal/filesum"
	"bigdisk/image/internal/treegen"
	"bigdisk/image/read"
)

// earlier is an earlier image: the regular files in it that are not empty.
type earlier map[string]*image.Kept

// openEarlier looks for every file in an image.
func openEarlier(t testing.TB, r io.ReaderAt, size int64) earlier {
	t.Helper()
	im, err := read.New(r, size)
	if err != nil {
		t.Fatal(err)
	}
	root, err := im.Root()
	if err != nil {
		t.Fatal(err)
	}
	unit := &image.KeptUnit{Image: r}
	files := earlier{}
	err = im.Walk(root, func(path string, n *read.Node, leave bool) error {
		if n.Kind != store.Regular || n.Size == 0 {
			return nil
		}
		f, err := im.OpenFile(n)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		h := filesum.New()
		h.Write(data)
		place, err := im.Place(n)
		files[path] = &image.Kept{Unit: unit, Sum: h.End(n.Size), Place: place}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func openEarlierFile(t testing.TB, path string) earlier {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return openEarlier(t, f, st.Size())
}

// addKept adds a tree to w, as AddTo does, taking from an earlier image the
// files for which it has something.
func addKept(w *Writer, tree tree, kept earlier) error {
	for item := range tree {
		if name, ok := strings.CutPrefix(item.Path, "nix/store/"); ok && !strings.Contains(name, "/") {
			if err := w.Begin(name); err != nil {
				return err
			}
		}
		if k := kept[item.Path]; k != nil {
			if err := w.CreateKept(&item.Entry, k); err != nil {
				return err
			}
			continue
		}
		if err := w.Create(&item.Entry); err != nil {
			return err
		}
		if _, err := item.Data.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

func writeKept(f File, tree tree, kept earlier, opts Options) (*image.Layout, error) {
	w, err := NewWriter(context.Background(), f, opts)
	if err != nil {
		return nil, err
	}
	err = errors.Join(addKept(w, tree, kept), w.Close())
	return w.Layout(), err
}

// some leaves out of an earlier image what the seed says.
func (e earlier) some(seed uint64) earlier {
	out := earlier{}
	for path, k := range e {
		if rand.New(rand.NewPCG(seed, uint64(len(path))<<32|uint64(k.Sum[0]))).IntN(3) > 0 {
			out[path] = k
		}
	}
	return out
}

// TestKeptTrees wants every tree to become the same image from its bytes and
// from an earlier image in which it lies elsewhere.
func TestKeptTrees(t *testing.T) {
	for _, tt := range trees {
		if tt.name == "deep" || tt.opts.Size != 0 || tt.opts.RoundTo == 1<<30 {
			continue // deeper than package read goes, or a size that says nothing here
		}
		t.Run(tt.name, func(t *testing.T) {
			if tt.opts.RoundTo == 0 && tt.opts.Size == 0 {
				tt.opts.RoundTo = smallImage.RoundTo
			}
			want, layout := build(t, tt.tree, tt.opts)
			before, _ := build(t, treegen.Join(treegen.Of(treegen.File("!before", treegen.Noise(7777, 99))), tt.tree), smallImage)
			checkKept(t, want, layout, tt.tree, openEarlierFile(t, before), tt.opts)
		})
	}
}

func checkKept(t *testing.T, want string, layout *image.Layout, tree tree, kept earlier, opts Options) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := writeKept(f, tree, kept, opts)
	if err != nil {
		t.Fatal(err)
	}
	if fileSum(t, f.Name()) != fileSum(t, want) {
		t.Error("the image is another one")
	}
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", layout); a != b {
		t.Errorf("the layout is\n%s\nnot\n%s", a, b)
	}
}

// TestKeptRandom does the same for random trees, of which an earlier image has
// some files, between others.
func TestKeptRandom(t *testing.T) {
	for seed := range uint64(20) {
		tree := treegen.Join(treegen.Random(seed), stores(seed))
		before, _ := build(t, treegen.Join(treegen.Random(seed), stores(seed+1)), smallImage)
		want, layout := build(t, tree, smallImage)
		kept := openEarlierFile(t, before)
		kept.fit(tree)
		checkKept(t, want, layout, tree, kept.some(seed), smallImage)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// stores is a store whose files are mostly those of the store for the seed
// before.
func stores(seed uint64) tree {
	return func(yield func(treegen.Item) bool) {
		if !yield(treegen.Dir("nix")) || !yield(treegen.Dir("nix/store")) {
			return
		}
		for i := range uint64(40) {
			if (i+seed)%5 == 0 {
				continue
			}
			rnd := rand.New(rand.NewPCG(i, 7))
			dir := fmt.Sprintf("nix/store/%02d", i)
			if !yield(treegen.Dir(dir)) {
				return
			}
			for k := range 1 + rnd.IntN(4) {
				data := treegen.Data{{Len: rnd.Int64N(40_000), Seed: uint64(rnd.IntN(9)) | 1}, {Len: rnd.Int64N(4) * 5000}, {Len: rnd.Int64N(9), Seed: 3}}
				item := treegen.File(fmt.Sprintf("%s/%d", dir, k), data)
				item.Executable = rnd.IntN(2) == 0
				if !yield(item) {
					return
				}
			}
		}
	}
}

// fit leaves out what the tree has otherwise.
func (e earlier) fit(tree tree) {
	sums := map[string]image.FileSum{}
	for item := range tree {
		k := e[item.Path]
		if k == nil {
			continue
		}
		text := fmt.Sprint(item.Data)
		if _, known := sums[text]; !known {
			sums[text] = sumOf(item.Data)
		}
		if k.Sum != sums[text] {
			delete(e, item.Path)
		}
	}
}

func sumOf(d treegen.Data) image.FileSum {
	var b bytes.Buffer
	d.WriteTo(&b)
	h := filesum.New()
	h.Write(b.Bytes())
	return h.End(d.Size())
}

// TestKeptImagetest holds the trees of all writers.
func TestKeptImagetest(t *testing.T) {
	for name, files := range imagetest.Trees() {
		t.Run(name, func(t *testing.T) {
			want, layout := build(t, ofFiles(files), smallImage)
			checkKept(t, want, layout, ofFiles(files), openEarlierFile(t, want), smallImage)
		})
	}
}

// ofFiles makes a tree of files whose bytes only the earlier image knows.
func ofFiles(files []imagetest.File) tree {
	return func(yield func(treegen.Item) bool) {
		for _, f := range files {
			if !strings.HasPrefix(f.Path, "unit:") && !yield(treegen.Item{Entry: f.Entry, Data: treegen.Noise(f.Size, uint64(len(f.Path)))}) {
				return
			}
		}
	}
}

// TestKeptLinks is past the names that an inode can have: the second inode has
// data of its own.
func TestKeptLinks(t *testing.T) {
	skipShort(t)
	tree := treegen.Duplicates("same", 70_000, treegen.Noise(5000, 1))
	want, layout := build(t, tree, smallImage)
	kept := openEarlierFile(t, want)
	checkKept(t, want, layout, tree, kept, smallImage)
	checkKept(t, want, layout, tree, kept.some(1), smallImage)
}

func TestBadKept(t *testing.T) {
	unit := &image.KeptUnit{Image: bytes.NewReader(make([]byte, 10*blockSize))}
	run := func(logical, physical, length int64) []image.BlockRun {
		return []image.BlockRun{{Logical: logical, Physical: physical, Length: length}}
	}
	failing := func() error { return errors.New("earlier: /nix/store/x/a: its sum is another one") }
	for name, tt := range map[string]struct {
		e    *store.Entry
		k    image.Kept
		want string
	}{
		"directory":     {dir("a"), image.Kept{}, "has no data"},
		"empty":         {file("a", 0), image.Kept{}, "has no data"},
		"too long":      {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(1, 9, 2)}}, "blocks 1 to 3 of a file of 2"},
		"far":           {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(1<<62, 9, 1<<62)}}, "of a file of 2"},
		"no length":     {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(1, 9, 0)}}, "of a file of 2"},
		"at zero":       {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(0, 0, 1)}}, "at block 0"},
		"not there":     {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(0, 11, 2)}}, "unexpected EOF"},
		"backwards":     {file("a", 8192), image.Kept{Place: image.FilePlace{Runs: append(run(1, 9, 1), run(0, 8, 1)...)}}, "after block 2"},
		"does not hold": {file("a", 5000), image.Kept{Place: image.FilePlace{Runs: run(0, 1, 2)}, Check: failing}, "a: its sum is another one"},
	} {
		tt.k.Unit = unit
		w, err := NewWriter(t.Context(), discard{}, smallImage)
		if err != nil {
			t.Fatal(err)
		}
		w.CreateKept(tt.e, &tt.k)
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "a: ")+strings.Count(err.Error(), `"a"`) > 1 {
			t.Errorf("%s: %v, not %q with the file's name once", name, err, tt.want)
		}
	}
}

// TestRelease wants each unit of an earlier image to be released once: when
// the next has begun, and at the latest by Close, even after a failure.
func TestRelease(t *testing.T) {
	path, _ := build(t, stores(1), smallImage)
	kept := openEarlierFile(t, path)
	for _, calls := range []int{1 << 30, 3} {
		released := make(chan string, 100)
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := NewWriter(t.Context(), &failing{f, calls}, smallImage)
		if err != nil {
			t.Fatal(err)
		}
		var unit *image.KeptUnit
		used, waited := 0, 0
		for item := range stores(1) {
			if strings.Count(item.Path, "/") == 2 {
				if w.Begin(item.Path); unit != nil && calls > 100 {
					<-released
					waited++
				}
				unit = nil
			}
			k := kept[item.Path]
			if k == nil {
				w.Create(&item.Entry)
				continue
			}
			first := unit == nil
			if first {
				unit = &image.KeptUnit{Image: k.Unit.Image, Release: func() { released <- item.Path }}
			}
			if w.CreateKept(&item.Entry, &image.Kept{Unit: unit, Sum: k.Sum, Place: k.Place}) == nil && first {
				used++
			}
		}
		if err := w.Close(); (err == nil) != (calls > 100) {
			t.Error(err)
		}
		if waited+len(released) != used {
			t.Errorf("%d of %d units were released", waited+len(released), used)
		}
	}
}
