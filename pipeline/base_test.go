package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"golang.org/x/sys/unix"

	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/base"
)

// randomStore writes a store whose paths share many files, and returns its
// directory and its paths.
func randomStore(t *testing.T, r *rand.Rand, paths int) (dir string, all []store.Path) {
	t.Helper()
	sizes := []int{1, 7, 300, 4000, 4096, 5000, 9000, 8192, 20_000, 70_000, 300_000}
	pool := make([][]byte, 40)
	for i := range pool {
		p := make([]byte, sizes[r.IntN(len(sizes))])
		for at := 0; at < len(p); {
			n := min(1+r.IntN(9000), len(p)-at)
			if r.IntN(3) > 0 { // the others stay zero
				word := fmt.Sprintf("%x ", r.Uint64())
				copy(p[at:at+n], strings.Repeat(word, n/len(word)+1))
			}
			at += n
		}
		pool[i] = p
	}
	if r.IntN(4) == 0 {
		pool[0] = bytes.Repeat([]byte("longer than what is held back "), 17<<20/30)
	}
	m := sourcetest.NewMemory()
	for i := range paths {
		tree := []sourcetest.File{sourcetest.Dir("")}
		for j := range r.IntN(12) {
			data := string(pool[r.IntN(len(pool))])
			if len(data) > 16<<20 && r.IntN(4) > 0 {
				data = "short"
			}
			switch r.IntN(8) {
			case 0:
				tree = append(tree, sourcetest.Link(fmt.Sprintf("f%02d", j), strings.Repeat("to/", 1+r.IntN(40))))
			case 1:
				tree = append(tree, sourcetest.Exe(fmt.Sprintf("f%02d", j), data))
			case 2:
				tree = append(tree, sourcetest.Dir(fmt.Sprintf("f%02d", j)), sourcetest.Reg(fmt.Sprintf("f%02d/x", j), data))
			case 3:
				tree = append(tree, sourcetest.Reg(fmt.Sprintf("f%02d", j), ""))
			default:
				tree = append(tree, sourcetest.Reg(fmt.Sprintf("f%02d", j), data))
			}
		}
		m.Add(t, fmt.Sprintf("path-%d", i), tree)
	}
	dir = t.TempDir()
	m.WriteStore(t, dir)
	return dir, m.Paths()
}

// some returns a random part of paths, never none.
func some(r *rand.Rand, paths []store.Path, share float64) (part []string) {
	for _, p := range paths {
		if r.Float64() < share {
			part = append(part, string(p))
		}
	}
	if part == nil {
		return []string{string(paths[0])}
	}
	return part
}

// TestBaseChangesNothing builds random parts of random stores on top of other
// parts, and wants the bytes of a build in full.
func TestBaseChangesNothing(t *testing.T) {
	for seed := range uint64(9) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			from, paths := randomStore(t, r, 15)
			dir := t.TempDir()
			opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Jobs: 1 + r.IntN(4)}
			suffix := ".raw"
			if opts.Size = 256 << 20; seed%3 != 0 {
				suffix, opts.Size = ".sqsh", 0
				opts.Compression = []string{"zstd:fastest", "zstd:default", "gzip", "lz4", "none"}[r.IntN(5)]
				opts.BlockSize = 4096 << r.IntN(6)
			}
			build := func(name string, part []string, onto string) []byte {
				o := opts
				o.Output, o.Paths = filepath.Join(dir, name+suffix), part
				if onto != "" {
					o.Base, o.TrustBase = filepath.Join(dir, onto+suffix), r.IntN(2) == 0
				}
				if _, err := Build(t.Context(), o); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return append(readFile(t, o.Output), readFile(t, image.ManifestName(o.Output))...)
			}
			first, second := some(r, paths, 0.6), some(r, paths, 0.6)
			build("base", first, "")
			full := build("full", second, "")
			if !bytes.Equal(full, build("onto", second, "base")) {
				t.Error("the image differs from one that is built without a base")
			}
			if !bytes.Equal(full, build("again", second, "onto")) {
				t.Error("the image on top of one that has a base differs")
			}
			if suffix == ".raw" {
				return
			}
			opts.Cache = filepath.Join(dir, "cache")
			shard := opts
			shard.Paths = second
			if _, err := Pack(t.Context(), shard, Shard{Index: r.IntN(3), Count: 3}); err != nil {
				t.Fatal(err)
			}
			for _, onto := range []string{"", "", "base"} {
				if !bytes.Equal(full, build("cached", second, onto)) {
					t.Errorf("the image from the cache, on top of %q, differs", onto)
				}
			}
		})
	}
}

// TestBaseRefused covers bases that are damaged or do not fit, each a clear
// error, or a build in full where that is allowed.
func TestBaseRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	from, paths := randomStore(t, r, 6)
	dir := t.TempDir()
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: some(r, paths, 2), BlockSize: 4096}
	opts.Output = filepath.Join(dir, "base.sqsh")
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	want := readFile(t, opts.Output)
	m, err := image.ReadManifest(image.ManifestName(opts.Output))
	if err != nil {
		t.Fatal(err)
	}
	tables := int(m.Image.Metadata.Extents[1].Offset)
	damage := func(at int) func(t *testing.T, name string) {
		return func(t *testing.T, name string) {
			b := bytes.Clone(want)
			b[at] ^= 1
			if err := os.WriteFile(name, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, name string)
		opts   func(*BuildOptions)
		err    error
		text   string
	}{
		{name: "data", change: damage(300), err: base.ErrDamaged, text: "its data has the sum"},
		{name: "superblock", change: damage(40), err: base.ErrDamaged, text: "its structures hash to"},
		{name: "metadata", change: damage(tables + 9), err: base.ErrDamaged, text: "its structures hash to"},
		{name: "a file's sum", change: func(t *testing.T, name string) {
			m := *m
			m.Paths = slices.Clone(m.Paths)
			i := slices.IndexFunc(m.Paths, func(p image.ManifestPath) bool { return len(p.Sums) > 0 })
			m.Paths[i].Sums = slices.Clone(m.Paths[i].Sums)
			m.Paths[i].Sums[0][7] ^= 1
			f, err := os.Create(image.ManifestName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := m.Encode(f); err != nil {
				t.Fatal(err)
			}
		}, err: base.ErrDamaged, text: "its data has the sum"},
		{name: "truncated", change: func(t *testing.T, name string) {
			if err := os.WriteFile(name, want[:len(want)-4096], 0o666); err != nil {
				t.Fatal(err)
			}
		}, err: base.ErrDamaged, text: "bytes, its manifest says"},
		{name: "no manifest", change: func(t *testing.T, name string) { os.Remove(image.ManifestName(name)) }, err: os.ErrNotExist, text: "manifest.json"},
		{name: "gone", change: func(t *testing.T, name string) { os.Remove(name) }, err: os.ErrNotExist, text: "base.sqsh"},
		{name: "compression", opts: func(o *BuildOptions) { o.Compression = "lz4" }, err: base.ErrUnfit, text: "its compression is zstd:default, not lz4"},
		{name: "block size", opts: func(o *BuildOptions) { o.BlockSize = 8192 }, err: base.ErrUnfit, text: "its block size is 4096, not 8192"},
		{name: "format", opts: func(o *BuildOptions) { o.Format = Ext4; o.BlockSize = 0 }, err: base.ErrUnfit, text: "it is squashfs, the new image is ext4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := opts
			o.Base, o.Output = filepath.Join(dir, "base.sqsh"), filepath.Join(dir, "new.sqsh")
			copyFile(t, opts.Output, o.Base)
			copyFile(t, image.ManifestName(opts.Output), image.ManifestName(o.Base))
			if c.change != nil {
				c.change(t, o.Base)
			}
			if c.opts != nil {
				c.opts(&o)
			}
			_, err := Build(t.Context(), o)
			if !errors.Is(err, c.err) || !strings.Contains(fmt.Sprint(err), c.text) || !strings.Contains(fmt.Sprint(err), "base.sqsh") {
				t.Errorf("error %v, want %q of the base", err, c.text)
			}
			if _, err := os.Stat(o.Output); err == nil {
				t.Error("there is an image all the same")
			}
			o.BaseOptional = true
			if _, err := Build(t.Context(), o); err != nil {
				t.Fatalf("with an optional base: %v", err)
			}
			if c.opts == nil && !bytes.Equal(readFile(t, o.Output), want) {
				t.Error("with an optional base the image is another")
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, readFile(t, from), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestBaseInBucket takes a base from Cloud Storage.
func TestBaseInBucket(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	from, paths := randomStore(t, r, 8)
	dir := t.TempDir()
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: some(r, paths, 2), BlockSize: 4096}
	opts.Output = filepath.Join(dir, "full.sqsh")
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	part := opts
	part.Output, part.Paths = filepath.Join(dir, "part.sqsh"), opts.Paths[:5]
	if _, err := Build(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	var objects []fakestorage.Object
	for _, name := range []string{"part.sqsh", image.ManifestName("part.sqsh")} {
		objects = append(objects, fakestorage.Object{
			ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "images", Name: "v1/" + name},
			Content:     readFile(t, filepath.Join(dir, name)),
		})
	}
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http", InitialObjects: objects})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(server.URL(), "http://"))
	onto := opts
	onto.Output, onto.Base = filepath.Join(dir, "onto.sqsh"), "gs://images/v1/part.sqsh"
	if _, err := Build(t.Context(), onto); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, onto.Output), readFile(t, opts.Output)) {
		t.Error("the image differs from one that is built without a base")
	}
	onto.Base = "gs://images/v2/part.sqsh"
	if _, err := Build(t.Context(), onto); !strings.Contains(fmt.Sprint(err), "gs://images/v2/part.sqsh") {
		t.Errorf("a base that is not there: %v", err)
	}
}

// TestBaseNames covers bases that are no files, and outputs that would write over
// what the base is.
func TestBaseNames(t *testing.T) {
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "base.sqsh")
	if err := errors.Join(unix.Mkfifo(fifo, 0o666), os.WriteFile(file, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	opts := BuildOptions{From: []string{dir}, NoCheckSigs: true, Paths: []string{"/nix/store/00000000000000000000000000000000-x"}, Format: Squashfs}
	for _, c := range []struct {
		base, output string
		err          error
	}{
		{file, image.ManifestName(file), ErrUsage},
		{image.ManifestName(file), file, ErrUsage},
		{"https://example.org/base.sqsh", filepath.Join(dir, "new.sqsh"), ErrUsage},
	} {
		o := opts
		o.Base, o.Output = c.base, c.output
		if _, err := Build(t.Context(), o); !errors.Is(err, c.err) {
			t.Errorf("%s on %s: %v", c.output, c.base, err)
		}
	}
	if _, err := image.OpenFile(fifo); !errors.Is(err, image.ErrNotFile) {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := image.ReadManifest(fifo); !errors.Is(err, image.ErrNotFile) {
		t.Errorf("a FIFO for a manifest: %v", err)
	}
}
