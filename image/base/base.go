// Package base takes store paths from an earlier image as they lie in it, so
// that a build need not read, check and compress them again.
//
// The earlier image is trusted no more than a download. Its manifest is what
// is believed: its filesystem's structures must have the manifest's hash
// before anything is read from them, and the data of a path the manifest's sum
// before it is used. (The images that a build of ours makes are the only ones
// that have such manifests.)
package base

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/read"
)

// ErrUnfit is wrapped by the errors about an image that may be sound but does
// not hold store paths as the new image is to hold them.
var ErrUnfit = errors.New("the base does not fit")

// ErrDamaged is wrapped by the errors about an image that is not what its
// manifest says.
var ErrDamaged = errors.New("the image is damaged")

// Image is an image opened to be built upon. It may be used by many goroutines
// at once.
type Image struct {
	name     string
	im       *read.Image
	fs       filesystem
	manifest *image.Manifest
	trust    bool
	release  func()
	paths    []read.DirEntry // of the store, by name
	hashes   sync.Pool       // of *filesum.Hash, at the start of a file
}

// Options say what is asked of a base.
type Options struct {
	// Format is "squashfs" or "ext4", Writer are the new image's options.
	Format string
	Writer image.ManifestOptions
	// Trust leaves the data's sums unchecked.
	Trust bool
	// Release is called by a writer that has taken a unit, see
	// [image.KeptUnit].
	Release func()
}

// filesystem is the image without a partition table around it.
type filesystem struct {
	disk   io.ReaderAt
	offset int64
}

func (f filesystem) ReadAt(p []byte, at int64) (int, error) { return f.disk.ReadAt(p, f.offset+at) }

// InFile lets data be copied out of the file by the kernel.
func (f filesystem) InFile() (*os.File, int64) {
	file, _ := f.disk.(*os.File)
	return file, f.offset
}

// data is the filesystem as writers copy from it. A writer knows neither the
// image's name nor that it is a base, so the errors say both.
type data struct {
	filesystem
	name string
}

func (d data) ReadAt(p []byte, at int64) (int, error) {
	n, err := d.filesystem.ReadAt(p, at)
	if n == len(p) {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("%s: %w: %w", d.name, ErrDamaged, err)
}

// New opens the image of size bytes in disk, called name, that m describes. It
// reads the filesystem's structures once, to check them.
func New(ctx context.Context, name string, disk io.ReaderAt, size int64, m *image.Manifest, opts Options) (*Image, error) {
	if err := fits(m, opts); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b := &Image{name: name, manifest: m, trust: opts.Trust, release: opts.Release, fs: filesystem{disk: disk}}
	if m.Image.Part != nil {
		b.fs.offset = m.Image.Part.Offset
	}
	if size < m.Image.Size {
		return nil, fmt.Errorf("%s: %w: it has %d bytes, its manifest says %d", name, ErrDamaged, size, m.Image.Size)
	}
	if err := b.checkMetadata(ctx); err != nil {
		// There is a better word for what is only half changed.
		if _, openErr := read.New(disk, size); errors.Is(openErr, read.ErrUnfinished) {
			err = openErr
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := b.openStore(m.Image.Size); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	return b, nil
}

// fits tells whether the image's writer did what the new one will do.
func fits(m *image.Manifest, opts Options) error {
	have, want := m.Options, opts.Writer
	switch {
	case m.Image.Format != opts.Format:
		return fmt.Errorf("%w: it is %s, the new image is %s", ErrUnfit, m.Image.Format, opts.Format)
	case have.Layout != want.Layout:
		return fmt.Errorf("%w: it has layout version %d, this bigdisk writes version %d", ErrUnfit, have.Layout, want.Layout)
	case have.Compression != want.Compression:
		return fmt.Errorf("%w: its compression is %s, not %s", ErrUnfit, have.Compression, want.Compression)
	case have.BlockSize != want.BlockSize:
		return fmt.Errorf("%w: its block size is %d, not %d", ErrUnfit, have.BlockSize, want.BlockSize)
	}
	return nil
}

func (b *Image) checkMetadata(ctx context.Context) error {
	want := b.manifest.Image.Metadata
	sum, err := image.HashExtents(ctx, b.fs.disk, want.Extents, func(int64) {})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sum != want.SHA256:
		return fmt.Errorf("%w: its structures hash to %s, not to %s as its manifest says", ErrDamaged, sum, want.SHA256)
	}
	return nil
}

func (b *Image) openStore(size int64) (err error) {
	if b.im, err = read.New(b.fs.disk, size); err != nil {
		return err
	}
	dir, err := b.im.Lookup(store.Dir)
	if err != nil {
		return err
	}
	b.paths, err = b.im.ReadDir(dir)
	return err
}

// Has tells whether the image holds a store path with this NAR hash.
func (b *Image) Has(path store.Path, hash store.Hash) bool {
	p := b.find(path)
	return p != nil && p.NarHash == hash
}

func (b *Image) find(path store.Path) *image.ManifestPath {
	at, ok := slices.BinarySearchFunc(b.manifest.Paths, path, func(p image.ManifestPath, path store.Path) int {
		return strings.Compare(string(p.Path), string(path))
	})
	if !ok {
		return nil
	}
	return &b.manifest.Paths[at]
}

// node finds a store path's root in the image.
func (b *Image) node(path store.Path) (*read.Node, error) {
	name := path.Base()
	i := sort.Search(len(b.paths), func(i int) bool { return b.paths[i].Name >= name })
	if i == len(b.paths) || b.paths[i].Name != name {
		return nil, fmt.Errorf("%s is not in it", path)
	}
	return b.im.Node(&b.paths[i])
}
