package packed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/squashfs"
)

// TestKey keeps names of files from changing, or staying, by accident: another
// version of what is in them needs other names.
func TestKey(t *testing.T) {
	opts := image.ManifestOptions{Compression: "zstd:default", BlockSize: 262144, Owner: "0:0", Layout: 1}
	seen := make(map[string]bool)
	for _, change := range []func(*image.ManifestOptions){
		func(*image.ManifestOptions) {},
		func(o *image.ManifestOptions) { o.Compression = "zstd:best" },
		func(o *image.ManifestOptions) { o.BlockSize *= 2 },
		func(o *image.ManifestOptions) { o.Layout++ },
	} {
		o := opts
		change(&o)
		seen[Key(store.Hash{1}, o)] = true
	}
	seen[Key(store.Hash{2}, opts)] = true
	if len(seen) != 5 {
		t.Errorf("5 files have %d names", len(seen))
	}
	opts.Owner = "1:1" // a file's owner is the image's
	if got, want := Key(store.Hash{1}, opts), "2faea4ec50071529cc336888353a3eac3c053ea5db23522af145b549339584b0"; image.ManifestVersion != 2 || got != want {
		t.Errorf("in version %d the name is %s", image.ManifestVersion, got)
	}
}

// TestDamaged wants a file that is not what was written to be refused, whatever
// part of it is another, and by its name.
func TestDamaged(t *testing.T) {
	m := sourcetest.NewMemory()
	path := m.Add(t, "a", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("file", imagetest.Noise(1, 9000))})
	info, err := m.Info(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := m.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	defer contents.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "a.packed"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	opts := squashfs.Options{BlockSize: 4096, Compression: squashfs.DefaultCompression}
	if err := Write(t.Context(), f, info, contents, opts); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	open := func(b []byte) error {
		if err := os.WriteFile(f.Name(), b, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), f.Name(), f, info, Options(opts), func() {})
		return err
	}
	if err := open(whole); err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int, b []byte) {
		if err := open(b); !errors.Is(err, ErrDamaged) || strings.Count(err.Error(), "a.packed") != 1 {
			t.Errorf("%s at byte %d of %d: %v", what, at, len(whole), err)
		}
	}
	tail := len(whole) - 32 - 8 - len(magic)
	for at := tail - 3; at < len(whole); at++ {
		b := bytes.Clone(whole)
		b[at] ^= 0x55
		check("changed", at, b)
		check("cut", at, whole[:at])
	}
	check("cut", 0, nil)
	check("one byte more", tail-1000, append(append(bytes.Clone(whole[:4096]), 0), whole[4096:]...))
}
