// Package verify reads an image again and believes nothing: it computes every
// NAR hash and size anew, and holds disk, database and manifest against each
// other in every direction.
//
// In flows an image, of ours or made by mksquashfs or mke2fs -d, as a file or
// a block device, and its manifest if there is one; out flows a [Report] of
// typed findings that name store paths. The image is read through package
// image/read, which shares no code with what writes images, and NARs are made
// by a serialiser of this package.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"golang.org/x/sync/errgroup"

	"bigdisk/image"
	"bigdisk/image/read"
)

// DefaultMaxBytes bounds how many bytes of file contents are hashed: an image
// of a few kilobytes can claim to hold any number of them.
const DefaultMaxBytes = 64 << 40

// Counter is told how far a stage has come. Its methods are called from many
// goroutines.
type Counter interface {
	Add(n int64)
	Finish()
}

// Options are the choices of [Verify]. The zero value of each is sensible.
type Options struct {
	// Image is the image file or block device.
	Image string
	// Manifest is held against the image; nil leaves that out.
	Manifest *image.Manifest
	// Jobs is the number of workers; 0 is the number of CPUs.
	Jobs int
	// ScratchDir is where the database is copied to; "" is the system's
	// directory for temporary files.
	ScratchDir string
	// MaxBytes is how many bytes of contents to hash before giving up; 0 is
	// [DefaultMaxBytes].
	MaxBytes int64
	// NoScan leaves out the search for store paths in the contents that the
	// database has no reference for.
	NoScan bool
	// NoSecondReader leaves out the comparison with what go-diskfs reads.
	NoSecondReader bool
	// Stage starts a stage of total bytes and returns its counter; nil shows
	// no progress.
	Stage func(name string, total int64) Counter
}

// LoadManifest reads the manifest beside an image. It returns nil without an
// error when there is none.
func LoadManifest(imageName string) (*image.Manifest, error) {
	m, err := image.ReadManifest(image.ManifestName(imageName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return m, err
}

// noCounter shows nothing.
type noCounter struct{}

func (noCounter) Add(int64) {}
func (noCounter) Finish()   {}

func (o *Options) stage(name string, total int64) Counter {
	if o.Stage == nil {
		return noCounter{}
	}
	return o.Stage(name, total)
}

// Verify checks the image. Everything that is wrong with it is in the report;
// an error means that it could not be checked: it could not be opened, ctx was
// cancelled, a disk failed.
func Verify(ctx context.Context, o Options) (*Report, error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	im, err := read.Open(o.Image)
	if errors.Is(err, read.ErrDamaged) {
		return unopened(err, &o), nil
	}
	if err != nil {
		return nil, err
	}
	defer im.Close()
	v := &verifier{Options: o, im: im, info: im.Info()}
	v.limit.Store(o.MaxBytes)
	return v.run(ctx)
}

// unopened is the report on an image whose superblock or tables are broken.
func unopened(err error, o *Options) *Report {
	var c collector
	c.errorf(Unreadable, "", "%v", err)
	r := &Report{Manifest: o.Manifest != nil}
	c.fill(r)
	return r
}

// verifier is one run of Verify.
type verifier struct {
	Options
	collector
	im   *read.Image
	info read.Info

	db    *database // nil if it could not be read
	names []storeName
	owner *owner // nil until known
	counts
}

// run goes through the stages. What is wrong with the image is collected; an
// error ends it.
func (v *verifier) run(ctx context.Context) (*Report, error) {
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return v.checkWhole(running) })
	g.Go(func() error { return v.checkContents(running) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if v.errors == 0 && !v.NoSecondReader {
		v.secondReader(ctx)
	}
	r := &Report{
		Info: v.info, Manifest: v.Manifest != nil, StorePaths: int64(len(v.names)),
		Files: v.files.Load(), Directories: v.dirs.Load(), Symlinks: v.symlinks.Load(), Bytes: v.bytes.Load(),
	}
	v.fill(r)
	return r, nil
}

// checkContents checks everything inside the filesystem.
func (v *verifier) checkContents(ctx context.Context) error {
	if err := v.setOwner(); err != nil {
		return err
	}
	if err := v.loadDatabase(ctx); err != nil {
		return err
	}
	if err := v.listStore(); err != nil {
		return v.soften("/nix/store", err)
	}
	v.compareLists()
	steps := []func(context.Context) error{
		v.checkPaths, v.checkRest, v.checkLowerStore, v.checkModules, v.checkReferences, v.sweep,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	v.checkLinks()
	v.compareTotals()
	return nil
}

// soften turns an error about the image's bytes into a finding, and returns
// what is no fault of the image.
func (v *verifier) soften(path string, err error) error {
	if errors.Is(err, errNoNar) {
		return nil
	}
	if errors.Is(err, read.ErrDamaged) || errors.Is(err, read.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		v.errorf(Unreadable, path, "%v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// sweep checks structures that no file leads to.
func (v *verifier) sweep(ctx context.Context) error {
	return v.soften("", v.im.Sweep(ctx, func(err error) { v.errorf(Unreadable, "", "%v", err) }))
}

// secondReader lets go-diskfs read a part of the image too. What it cannot
// read is a warning, since its limits are known; what it reads otherwise is an error.
func (v *verifier) secondReader(ctx context.Context) {
	names := make([]string, len(v.names))
	for i := range v.names {
		names[i] = v.names[i].entry.Name
	}
	err := v.im.SecondReader(ctx, names)
	switch {
	case err == nil:
	case errors.Is(err, read.ErrReadersDisagree):
		v.errorf(ReadersDisagree, "", "%v", err)
	default:
		v.warnf(ReadersDisagree, "", "go-diskfs cannot read the image: %v", err)
	}
}
