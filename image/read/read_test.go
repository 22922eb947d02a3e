package read

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
)

// source makes a directory with everything that a reader may go wrong with.
func source(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "src")
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, data string, mode fs.FileMode) {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(data), 0o600))
		must(t, os.Chmod(p, mode))
	}
	for i, size := range []int{0, 1, 100, 4095, 4096, 4097, 65536, 131071, 131072, 131073, 300000, 1<<20 + 5} {
		write(fmt.Sprintf("noise/%02d", i), imagetest.Noise(uint64(i), size), 0o444)
		write(fmt.Sprintf("text/%02d", i), imagetest.Text(uint64(i), size), 0o555)
	}
	for i := range 700 {
		write(fmt.Sprintf("many/%04d-%s", i, strings.Repeat("x", i%200)), fmt.Sprint(i), 0o640)
	}
	write("plain", imagetest.Text(77, 50000), 0o444)
	write("names/"+strings.Repeat("n", 255), "long", 0o4755)
	write("names/ü ö\n\"", "odd", 0o644)
	for _, n := range []int{1, 58, 59, 60, 61, 1000} {
		must(t, os.Symlink(strings.Repeat("t", n), filepath.Join(dir, "names", fmt.Sprint("link", n))))
	}
	must(t, os.Link(filepath.Join(dir, "noise/06"), filepath.Join(dir, "noise/hardlink")))
	must(t, os.MkdirAll(filepath.Join(dir, "a/b/c/d/e/f/empty"), 0o700))
	sparse(t, filepath.Join(dir, "holes"), 9<<20, []int64{0, 1 << 20, 5<<20 + 4096, 8 << 20})
	sparse(t, filepath.Join(dir, "allhole"), 3<<20+1, nil)
	fragmented := make([]int64, 0, 700)
	for i := range int64(700) {
		fragmented = append(fragmented, i*8192)
	}
	sparse(t, filepath.Join(dir, "extents"), 6<<20, fragmented)
	return dir
}

// sparse makes a file with data at a few places.
func sparse(t testing.TB, name string, size int64, at []int64) {
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte(imagetest.Noise(uint64(off), 4000)), off)
		must(t, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makers make an image of a directory, each in another way.
var makers = []struct {
	name, tool string
	args       func(dir, image string) []string
}{
	{"gzip", "mksquashfs", squash("-comp", "gzip")},
	{"zstd", "mksquashfs", squash("-comp", "zstd", "-b", "1M")},
	{"xz", "mksquashfs", squash("-comp", "xz")},
	{"lz4", "mksquashfs", squash("-comp", "lz4", "-b", "4K")},
	{"no fragments", "mksquashfs", squash("-comp", "zstd", "-no-fragments", "-no-exports")},
	{"fragments always", "mksquashfs", squash("-comp", "zstd", "-always-use-fragments", "-no-sparse")},
	{"not packed", "mksquashfs", squash("-noI", "-noD", "-noF", "-noId")},
	{"1K blocks", "mke2fs", ext("-b", "1024")},
	{"4K blocks", "mke2fs", ext("-b", "4096")},
	{"64K blocks", "mke2fs", ext("-b", "65536", "-N", "20000")},
	{"no checksums", "mke2fs", ext("-O", "^metadata_csum,^64bit")},
	{"meta_bg", "mke2fs", ext("-O", "meta_bg,^resize_inode", "-b", "1024")},
	{"sparse_super2", "mke2fs", ext("-O", "sparse_super2,^resize_inode", "-b", "1024")},
	{"csum_seed", "mke2fs", ext("-O", "metadata_csum_seed")},
	{"small inodes", "mke2fs", ext("-I", "128")},
	{"no filetype", "mke2fs", ext("-O", "^filetype")},
}

func squash(args ...string) func(dir, image string) []string {
	return func(dir, image string) []string {
		return append([]string{dir, image, "-noappend", "-quiet", "-no-progress", "-no-xattrs"}, args...)
	}
}

func ext(args ...string) func(dir, image string) []string {
	return func(dir, image string) []string {
		args := append([]string{"-q", "-t", "ext4", "-F"}, args...)
		return append(args, "-d", dir, image, "512M")
	}
}

func makeImage(t testing.TB, i int, dir string) string {
	t.Helper()
	m := makers[i]
	imagetest.NeedTools(t, m.tool)
	name := filepath.Join(t.TempDir(), "image")
	imagetest.Command(t, m.tool, m.args(dir, name)...)
	return name
}

// TestReadsWhatOthersWrite compares every file, byte for byte, with what went
// into images by other tools, with many of their options.
func TestReadsWhatOthersWrite(t *testing.T) {
	dir := source(t)
	for i, m := range makers {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			im, err := Open(makeImage(t, i, dir))
			must(t, err)
			defer im.Close()
			compare(t, im, dir)
			must(t, im.Sweep(context.Background(), func(err error) { t.Error(err) }))
			// go-diskfs cannot read all of them, but what it reads must be the same.
			if err := im.SecondReader(context.Background(), nil); errors.Is(err, ErrReadersDisagree) {
				t.Error(err)
			}
		})
	}
}

func compare(t *testing.T, im *Image, dir string) {
	t.Helper()
	root, err := im.Root()
	must(t, err)
	seen := 0
	last := ""
	must(t, im.Walk(root, func(path string, n *Node, leave bool) error {
		if leave || path == "" {
			return nil
		}
		if path == "lost+found" {
			return SkipDir
		}
		if order := strings.ReplaceAll(path, "/", "\x00"); order <= last {
			t.Errorf("%q comes after %q", path, last)
		} else {
			last = order
		}
		seen++
		compareNode(t, im, filepath.Join(dir, path), n)
		return nil
	}))
	want := 0
	filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { want++; return nil })
	if seen != want-1 {
		t.Errorf("%d files, want %d", seen, want-1)
	}
}

func compareNode(t *testing.T, im *Image, name string, n *Node) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(name, &st))
	kinds := map[uint32]store.Kind{unix.S_IFDIR: store.Directory, unix.S_IFREG: store.Regular, unix.S_IFLNK: store.Symlink}
	if kinds[st.Mode&unix.S_IFMT] != n.Kind || uint32(n.Mode) != st.Mode&0o7777 || n.UID != st.Uid || n.GID != st.Gid || n.Mtime != st.Mtim.Sec {
		t.Errorf("%s: %+v, want %+v", name, n, st)
	}
	switch n.Kind {
	case store.Symlink:
		if target, err := os.Readlink(name); err != nil || target != n.Target {
			t.Errorf("%s: target %q, want %q", name, n.Target, target)
		}
	case store.Regular:
		if n.Size != st.Size || uint64(n.Links) != uint64(st.Nlink) {
			t.Errorf("%s: %d bytes, %d links, want %d and %d", name, n.Size, n.Links, st.Size, st.Nlink)
		}
		f, err := im.OpenFile(n)
		must(t, err)
		defer f.Close()
		got, err := io.ReadAll(f)
		must(t, err)
		want, err := os.ReadFile(name)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: contents differ", name)
		}
	}
}

func TestManyGoroutines(t *testing.T) {
	dir := source(t)
	for _, i := range []int{1, 8} {
		im, err := Open(makeImage(t, i, dir))
		must(t, err)
		defer im.Close()
		root, err := im.Root()
		must(t, err)
		var wg sync.WaitGroup
		sums := make([][sha256.Size]byte, 4)
		for g := range sums {
			wg.Go(func() {
				h := sha256.New()
				err := im.Walk(root, func(path string, n *Node, leave bool) error {
					fmt.Fprintln(h, path, n.Size, n.Target, leave)
					if n.Kind != store.Regular {
						return nil
					}
					f, err := im.OpenFile(n)
					if err != nil {
						return err
					}
					defer f.Close()
					_, err = f.WriteTo(h)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				h.Sum(sums[g][:0])
			})
		}
		wg.Wait()
		for _, s := range sums {
			if s != sums[0] {
				t.Error("goroutines read different things")
			}
		}
	}
}

func TestLookup(t *testing.T) {
	dir := source(t)
	im, err := Open(makeImage(t, 0, dir))
	must(t, err)
	defer im.Close()
	for path, kind := range map[string]store.Kind{"": store.Directory, "/": store.Directory, "/a/b/c/": store.Directory, "text/03": store.Regular, "names/link60": store.Symlink} {
		if n, err := im.Lookup(path); err != nil || n.Kind != kind {
			t.Errorf("%q: %+v, %v", path, n, err)
		}
	}
	for _, path := range []string{"b", "text/3", "text/03/x", "names/link60/x", ".."} {
		if _, err := im.Lookup(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestGoDiskfsHoles pins why go-diskfs is not the only reader: if it starts to
// read holes, this fails, and the second reader can take such files in.
func TestGoDiskfsHoles(t *testing.T) {
	dir := source(t)
	im, err := Open(makeImage(t, 8, dir))
	must(t, err)
	defer im.Close()
	other, err := im.openSecond()
	must(t, err)
	f, err := other.OpenFile("holes", 0)
	must(t, err)
	defer f.Close()
	want, err := os.ReadFile(filepath.Join(dir, "holes"))
	must(t, err)
	got := make([]byte, len(want))
	if err := readFull(f, got); err == nil && bytes.Equal(got, want) {
		t.Error("go-diskfs reads files with holes now")
	}
}

// TestSecondReaderSeesDifferences lets the two readers see different bytes.
func TestSecondReaderSeesDifferences(t *testing.T) {
	dir := source(t)
	for _, c := range []struct {
		maker    int
		from, to string
	}{{6, "plain", "plane"}, {6, "inode", "iNode"}, {8, "inode", "iNode"}} {
		data, err := os.ReadFile(makeImage(t, c.maker, dir))
		must(t, err)
		im, err := New(bytes.NewReader(data), int64(len(data)))
		must(t, err)
		must(t, im.SecondReader(context.Background(), nil))
		im.disk = bytes.NewReader(bytes.ReplaceAll(data, []byte(c.from), []byte(c.to)))
		if err := im.SecondReader(context.Background(), nil); !errors.Is(err, ErrReadersDisagree) {
			t.Errorf("%s: %q for %q: %v", makers[c.maker].name, c.to, c.from, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":        nil,
		"zeros":          make([]byte, 8192),
		"short squashfs": []byte("hsqs"),
		"only magic":     append([]byte("hsqs"), make([]byte, 4096)...),
		"only ext magic": append(append(make([]byte, 1024+0x38), 0x53, 0xef), make([]byte, 4096)...),
		"empty GPT":      append(append(make([]byte, 512), "EFI PART"...), make([]byte, 4096)...),
	} {
		if _, err := New(bytes.NewReader(data), int64(len(data))); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for _, name := range []string{t.TempDir(), fifo} { // opening a FIFO would wait for its writer
		if _, err := Open(name); !errors.Is(err, image.ErrNotFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnsupportedSaysSo(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o600))
	imagetest.NeedTools(t, "mksquashfs", "mke2fs")
	for _, c := range []struct {
		tool string
		args []string
		want string
	}{
		{"mksquashfs", squash("-comp", "lzo")(dir, filepath.Join(t.TempDir(), "i")), "lzo"},
		{"mke2fs", ext("-O", "inline_data")(dir, filepath.Join(t.TempDir(), "i")), "features"},
		{"mke2fs", ext("-O", "^extents,^64bit")(dir, filepath.Join(t.TempDir(), "i")), "ext2"},
		{"mke2fs", ext("-O", "bigalloc")(dir, filepath.Join(t.TempDir(), "i")), "bigalloc"},
	} {
		imagetest.Command(t, c.tool, c.args...)
		image := c.args[1]
		if c.tool == "mke2fs" {
			image = c.args[len(c.args)-2]
		}
		if _, err := Open(image); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v", c.tool, c.args, err)
		}
	}
}

func TestBombs(t *testing.T) {
	u, err := newUnpacker(6)
	must(t, err)
	// A zstd frame of 1 MiB in RLE blocks, 4 bytes each.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58}
	for i := range 8 {
		last := byte(0)
		if i == 7 {
			last = 1
		}
		header := uint32(131072)<<3 | 1<<1 | uint32(last)
		frame = append(frame, byte(header), byte(header>>8), byte(header>>16), 'x')
	}
	if out, err := u.unpack(make([]byte, 1<<20), frame); err != nil || len(out) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	if _, err := u.unpack(make([]byte, 1<<19), frame); !errors.Is(err, ErrDamaged) {
		t.Errorf("a block larger than its buffer: %v", err)
	}
	if err := checkXzDict(append(make([]byte, 12), 2, 0, 0x21, 1, 40, 0, 0, 0)); err == nil {
		t.Error("an xz dictionary of 4 GiB is taken")
	}
}

// FuzzRead walks images that were tampered with.
func FuzzRead(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "src")
	must(f, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
	must(f, os.WriteFile(filepath.Join(dir, "d", "text"), []byte(imagetest.Text(1, 9000)), 0o444))
	must(f, os.Symlink(strings.Repeat("x", 70), filepath.Join(dir, "link")))
	sparse(f, filepath.Join(dir, "sparse"), 50000, []int64{0, 40000})
	imagetest.NeedTools(f, "mksquashfs", "mke2fs")
	for i, args := range [][]string{
		squash("-noI", "-b", "4K", "-comp", "zstd", "-nopad")(dir, filepath.Join(f.TempDir(), "i")),
		squash("-noI", "-noD", "-noF", "-b", "4K", "-nopad")(dir, filepath.Join(f.TempDir(), "i")),
	} {
		imagetest.Command(f, "mksquashfs", args...)
		data, err := os.ReadFile(args[1])
		must(f, err)
		f.Add(data)
		if i > 0 {
			continue
		}
		name := filepath.Join(f.TempDir(), "e")
		imagetest.Command(f, "mke2fs", "-q", "-t", "ext4", "-F", "-O", "^has_journal,^resize_inode,^metadata_csum", "-b", "1024", "-N", "32", "-d", dir, name, "128K")
		data, err = os.ReadFile(name)
		must(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		im, err := New(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		root, err := im.Root()
		if err != nil {
			return
		}
		budget, nodes := int64(64<<20), 0
		im.Walk(root, func(path string, n *Node, leave bool) error {
			if nodes++; nodes > 10000 {
				return errors.New("enough")
			}
			if leave || n.Kind != store.Regular {
				return nil
			}
			file, err := im.OpenFile(n)
			if err != nil {
				return nil
			}
			defer file.Close()
			sum := int64(0)
			for budget > 0 {
				b, err := file.Next()
				sum += int64(len(b))
				budget -= int64(len(b))
				if err == io.EOF && sum != n.Size {
					t.Errorf("%q: %d of %d bytes", path, sum, n.Size)
				}
				if err != nil {
					break
				}
			}
			return nil
		})
		im.Sweep(context.Background(), func(error) {})
	})
}

func BenchmarkReadAll(b *testing.B) {
	dir := source(b)
	for _, i := range []int{0, 1, 3, 8} {
		b.Run(strings.ReplaceAll(makers[i].name, " ", "-"), func(b *testing.B) {
			im, err := Open(makeImage(b, i, dir))
			must(b, err)
			defer im.Close()
			root, err := im.Root()
			must(b, err)
			b.ReportAllocs()
			for b.Loop() {
				sum := int64(0)
				must(b, im.Walk(root, func(_ string, n *Node, leave bool) error {
					if n.Kind != store.Regular {
						return nil
					}
					f, err := im.OpenFile(n)
					if err != nil {
						return err
					}
					defer f.Close()
					k, err := f.WriteTo(io.Discard)
					sum += k
					return err
				}))
				b.SetBytes(sum)
			}
		})
	}
}
