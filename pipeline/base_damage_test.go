package pipeline

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/source/sourcetest"
	"bigdisk/image"
	"bigdisk/image/base"
	"bigdisk/image/imagetest"
	"bigdisk/image/verify"
)

// TestEveryFlip flips bits of small images, in every range of bytes that their
// manifests tell of: verify has to find each.
func TestEveryFlip(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	m := sourcetest.NewMemory()
	short := sourcetest.Reg("short", "a few words\n")
	m.Add(t, "a", []sourcetest.File{
		sourcetest.Dir(""), sourcetest.Link("link", strings.Repeat("to/", 40)), short,
		sourcetest.Reg("sparse", strings.Repeat("\x00", 100_000)+"end"),
	})
	m.Add(t, "b", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("more", strings.Repeat("words ", 3000)), short})
	m.Add(t, "c", []sourcetest.File{sourcetest.Link("", strings.Repeat("x", 60))})
	from := t.TempDir()
	m.WriteStore(t, from)
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true}
	for _, p := range m.Paths() {
		opts.Paths = append(opts.Paths, string(p))
	}
	for _, name := range []string{"a.sqsh", "a.raw"} {
		opts := opts
		opts.Output = filepath.Join(t.TempDir(), name)
		if strings.HasSuffix(name, ".raw") {
			opts.Size = 64 << 20
		}
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		m, err := image.ReadManifest(image.ManifestName(opts.Output))
		if err != nil {
			t.Fatal(err)
		}
		extents := m.Image.Metadata.Extents
		for i := range m.Paths {
			extents = append(extents, m.Paths[i].Data...)
		}
		f, err := os.OpenFile(opts.Output, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i := range 20 * len(extents) {
			x := extents[i%len(extents)]
			at := x.Offset + r.Int64N(x.Length)
			flip(t, f, at)
			report, err := verify.Verify(t.Context(), verify.Options{Image: opts.Output, Manifest: m, NoSecondReader: true})
			if err == nil && report.OK() {
				t.Errorf("%s: byte %d, of %d bytes from %d on: not found", name, at, x.Length, x.Offset)
			}
			flip(t, f, at)
		}
	}
}

// flip changes a bit of a file, or changes it back.
func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	_, err := f.ReadAt(b, at)
	b[0] ^= 4
	if _, writeErr := f.WriteAt(b, at); err != nil || writeErr != nil {
		t.Fatal(err, writeErr)
	}
}

// TestBaseLink wants a damaged target of a symlink that has a block of its own
// not to get into the next image.
func TestBaseLink(t *testing.T) {
	m := sourcetest.NewMemory()
	target := strings.Repeat("a target that is long ", 9)
	path := m.Add(t, "link", []sourcetest.File{sourcetest.Link("", target)})
	from, dir := t.TempDir(), t.TempDir()
	m.WriteStore(t, from)
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: []string{string(path)}, Size: 64 << 20, Output: filepath.Join(dir, "base.raw")}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	b := readFile(t, opts.Output)
	b[bytes.Index(b, []byte(target))+100] ^= 1
	if err := os.WriteFile(opts.Output, b, 0o666); err != nil {
		t.Fatal(err)
	}
	opts.Base, opts.Output = opts.Output, filepath.Join(dir, "new.raw")
	for _, trust := range []bool{false, true} {
		opts.TrustBase = trust
		if _, err := Build(t.Context(), opts); !errors.Is(err, base.ErrDamaged) {
			t.Errorf("with trust %t: error %v, want damage", trust, err)
		}
	}
}

// TestBaseSharedFile damages a file that the base has for a path which the new
// image has not, and for one which it has.
func TestBaseSharedFile(t *testing.T) {
	m := sourcetest.NewMemory()
	shared := sourcetest.Reg("shared", "what two paths have\n"+imagetest.Noise(1, 9000))
	m.Add(t, "first", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("own", "what one has"), shared})
	m.Add(t, "second", []sourcetest.File{sourcetest.Dir(""), shared})
	from := t.TempDir()
	m.WriteStore(t, from)
	paths := m.Paths()
	for _, suffix := range []string{".sqsh", ".raw"} {
		dir := t.TempDir()
		opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: []string{string(paths[0]), string(paths[1])}, Output: filepath.Join(dir, "base"+suffix)}
		if suffix == ".raw" {
			opts.Size = 64 << 20
		}
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		described, err := image.ReadManifest(image.ManifestName(opts.Output))
		if err != nil {
			t.Fatal(err)
		}
		opts.Base = opts.Output
		for i, p := range described.Paths {
			if len(p.Data) > 0 { // the other one has none, and is built
				f, err := os.OpenFile(opts.Base, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				flip(t, f, p.Data[0].Offset+5000)
				f.Close()
				opts.Paths = []string{string(described.Paths[1-i].Path)}
			}
		}
		opts.Output = filepath.Join(dir, "new"+suffix)
		if _, err := Build(t.Context(), opts); !errors.Is(err, base.ErrDamaged) {
			t.Errorf("%s: error %v, want damage", suffix, err)
		}
		opts.BaseOptional = true
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		got := readFile(t, opts.Output)
		opts.Base, opts.BaseOptional = "", false
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, readFile(t, opts.Output)) {
			t.Errorf("%s: the image is another one", suffix)
		}
	}
}

// TestBaseRestOfBlock wants what stands behind a file's end in its last block to
// be noticed: the block is copied as a whole.
func TestBaseRestOfBlock(t *testing.T) {
	m := sourcetest.NewMemory()
	path := m.Add(t, "short", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("file", "a few words that nothing else has\n")})
	from, dir := t.TempDir(), t.TempDir()
	m.WriteStore(t, from)
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: []string{string(path)}, Size: 64 << 20, Output: filepath.Join(dir, "base.raw")}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	b := readFile(t, opts.Output)
	at := bytes.Index(b, []byte("that nothing else has\n"))
	b[at+300] = 'x'
	if err := os.WriteFile(opts.Output, b, 0o666); err != nil {
		t.Fatal(err)
	}
	opts.Base, opts.Output = opts.Output, filepath.Join(dir, "new.raw")
	if _, err := Build(t.Context(), opts); !errors.Is(err, base.ErrDamaged) || strings.Count(err.Error(), string(path)) != 1 {
		t.Errorf("error %v, want damage in %s, named once", err, path)
	}
}

// TestBaseSums wants two sums that changed places in an ext4 image's manifest to
// be noticed.
func TestBaseSums(t *testing.T) {
	m := sourcetest.NewMemory()
	one, two := sourcetest.Reg("one", "the first of two\n"), sourcetest.Reg("two", "the second of two\n")
	m.Add(t, "a", []sourcetest.File{sourcetest.Dir(""), one, two})
	m.Add(t, "b", []sourcetest.File{sourcetest.Dir(""), one, two})
	from, dir := t.TempDir(), t.TempDir()
	m.WriteStore(t, from)
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Size: 64 << 20, Output: filepath.Join(dir, "base.raw")}
	for _, p := range m.Paths() {
		opts.Paths = append(opts.Paths, string(p))
	}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	changed, err := image.ReadManifest(image.ManifestName(opts.Output))
	if err != nil {
		t.Fatal(err)
	}
	first := &changed.Paths[0] // has the data
	first.Sums[0], first.Sums[1] = first.Sums[1], first.Sums[0]
	if err := changed.Encode(io.Discard); err == nil {
		t.Error("a manifest with other sums than its own was written")
	}
	first.DataSum = first.Sums.Sum()
	changed.Image.SHA256 = changed.Digest()
	onto := opts
	onto.Base, onto.Output, onto.BaseManifest = opts.Output, filepath.Join(dir, "new.raw"), filepath.Join(dir, "changed.json")
	f, err := os.Create(onto.BaseManifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(changed.Encode(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), onto); !errors.Is(err, base.ErrDamaged) || strings.Count(err.Error(), string(first.Path)) != 1 {
		t.Errorf("error %v, want damage in %s, named once", err, first.Path)
	}
	onto.BaseOptional = true
	if _, err := Build(t.Context(), onto); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, onto.Output), readFile(t, opts.Output)) {
		t.Error("with an optional base the image is another")
	}
}

// TestBaseCutShort makes a base shorter after its paths have been checked, and
// before they are copied: the error has to name it, and be one for which a
// build does without the base, if it may.
func TestBaseCutShort(t *testing.T) {
	m := sourcetest.NewMemory()
	path := m.Add(t, "path", []sourcetest.File{sourcetest.Reg("", imagetest.Noise(1, 300_000))})
	from := t.TempDir()
	m.WriteStore(t, from)
	for _, suffix := range []string{".sqsh", ".raw"} {
		opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: []string{string(path)}, Output: filepath.Join(t.TempDir(), "base"+suffix)}
		if suffix == ".raw" {
			opts.Size = 64 << 20
		}
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		opts.Base = opts.Output
		opts, err := opts.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		format, err := newFormat(opts)
		if err != nil {
			t.Fatal(err)
		}
		b := &builder{opts: opts, format: format}
		closer, err := b.tryBase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer closer.Close()
		entries, err := b.base.Unit(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(opts.Base, 4096); err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		k := entries[0].Kept
		errs := []error{image.CopyRange(t.Context(), out, 0, k.Unit.Image, k.Unit.Data[0].Offset, k.Unit.Data[0].Length)}
		if k.ReadTail != nil {
			errs = append(errs, k.ReadTail(make([]byte, 300_000%b.manifestOptions().BlockSize)))
		}
		for _, err := range errs {
			if !errors.Is(err, base.ErrDamaged) || !strings.Contains(err.Error(), opts.Base) {
				t.Errorf("%s: error %v, want damage in %s", suffix, err, opts.Base)
			}
		}
	}
}
