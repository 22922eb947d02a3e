package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/atomicfile"
	"bigdisk/image/base"
)

// Build makes the image and the manifest that opts ask for. Neither appears
// under its name before it is whole, the manifest last: after a crash between
// the two there is an image without a manifest, or with one that names another
// SHA-256. What a killed build leaves is thrown away by the next one of the
// same output.
//
// Errors name the module and the store path they are about; those about opts
// alone wrap [ErrUsage]. A cancelled ctx ends the build soon, with its error.
func Build(ctx context.Context, opts BuildOptions) (*BuildResult, error) {
	b, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	result, err := b.build(ctx)
	return result, b.close(ctx, err)
}

// open checks the options and opens what is needed to resolve and to read.
func open(ctx context.Context, opts BuildOptions) (*builder, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	format, err := newFormat(opts)
	if err != nil {
		return nil, err
	}
	packer, err := openPacker(ctx, opts, format)
	if err != nil {
		return nil, err
	}
	src, nix, err := openSources(ctx, opts)
	if err != nil {
		return nil, packer.close(ctx, err)
	}
	return &builder{opts: opts, format: format, source: src, nix: nix, packer: packer}, nil
}

// close releases what open opened, after what ended with err.
func (b *builder) close(ctx context.Context, err error) error {
	err = b.packer.close(ctx, err)
	b.source.Close()
	return err
}

// builder is one build.
type builder struct {
	opts   BuildOptions
	format format
	source source.Source
	nix    *nixSource // of source; nil without
	given  givenFiles
	base   *base.Image // nil without
	packer *packer     // nil without
}

// build is the way from a lock file to an image.
func (b *builder) build(ctx context.Context) (*BuildResult, error) {
	start := time.Now()
	if err := b.given.read(b.opts); err != nil {
		return nil, err
	}
	plan, err := b.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if b.opts.InPlace {
		return b.buildInPlace(ctx, plan, start)
	}
	earlier, err := b.openBase(ctx)
	if err != nil {
		return nil, err
	}
	defer earlier.Close()
	result, err := b.buildAnew(ctx, plan, start)
	if b.base != nil && b.opts.BaseOptional && errors.Is(err, base.ErrDamaged) && ctx.Err() == nil {
		// Files that lie with paths which the new image has not are looked at
		// only when they are needed.
		b.opts.Logger.Warn("building again, without the base", "error", err)
		b.base = nil
		return b.buildAnew(ctx, plan, start)
	}
	return result, err
}

// buildAnew makes a new image.
func (b *builder) buildAnew(ctx context.Context, plan *plan, start time.Time) (*BuildResult, error) {
	out, err := atomicfile.Create(b.opts.Output)
	if err != nil {
		return nil, err
	}
	defer out.Discard()

	d := newDisk(out.File, b.opts)
	defer d.Close()
	layout, err := b.write(ctx, plan, out.Name(), d)
	if err != nil {
		return nil, err
	}
	m, err := b.manifest(ctx, plan, layout, d)
	if err != nil {
		return nil, err
	}
	if err := b.enclose(ctx, d, m); err != nil {
		return nil, err
	}
	if err := out.File.Sync(); err != nil {
		return nil, err
	}
	if err := b.verifyImage(ctx, atomicfile.TempName(b.opts.Output), m); err != nil {
		return nil, err
	}
	if err := publish(out, m); err != nil {
		return nil, err
	}
	return b.result(plan, m, start), nil
}

// result sums the build up that began at start.
func (b *builder) result(plan *plan, m *image.Manifest, start time.Time) *BuildResult {
	return &BuildResult{
		Image: b.opts.Output, Manifest: image.ManifestName(b.opts.Output), Format: b.opts.Format,
		Label: plan.label, Size: m.Image.Size, SHA256: m.Image.SHA256, Modules: len(plan.entries), Missing: len(plan.missing),
		Totals: m.Totals, Seconds: time.Since(start).Seconds(),
	}
}

// write makes the filesystem in d: the database beside the contents, since it
// needs nothing of them but their infos.
func (b *builder) write(ctx context.Context, plan *plan, output string, d *disk) (*image.Layout, error) {
	var layout *image.Layout
	found := newFindings()
	group, ctx := errgroup.WithContext(ctx)
	database := make(chan *os.File, 1)
	group.Go(func() error {
		f, err := b.writeDatabase(ctx, plan, output, found)
		if err == nil {
			database <- f
		}
		return err
	})
	group.Go(func() (err error) {
		layout, err = b.writeImage(ctx, plan, d, found, database)
		return err
	})
	err := group.Wait()
	select {
	case f := <-database: // not needed any more
		f.Close()
	default:
	}
	return layout, err
}

// manifest describes the filesystem in r.
func (b *builder) manifest(ctx context.Context, plan *plan, layout *image.Layout, r io.ReaderAt) (*image.Manifest, error) {
	m := &image.Manifest{
		Version: image.ManifestVersion,
		Image: image.ManifestImage{
			Format: b.opts.Format, Size: layout.Size, Label: plan.label,
			Metadata: image.ManifestMetadata{Extents: layout.Metadata},
		},
		Options: b.manifestOptions(),
		Totals: image.ManifestTotals{
			StorePaths: int64(plan.closure.Len()), Files: layout.Files, Directories: layout.Dirs,
			Symlinks: layout.Symlinks, Bytes: layout.DataBytes, UniqueBytes: layout.UniqueBytes,
		},
	}
	plan.describe(m)
	for info := range plan.closure.All() {
		m.Paths = append(m.Paths, image.ManifestPath{Path: info.Path, NarHash: info.NarHash, NarSize: info.NarSize})
	}
	for i, unit := range layout.Units {
		if i >= len(plan.order) || plan.order[i].Base() != unit.Name {
			return nil, fmt.Errorf("%s: unit %d of the image is %s, which was not to be there", b.opts.Output, i, unit.Name)
		}
		at, _ := slices.BinarySearchFunc(m.Paths, plan.order[i], func(p image.ManifestPath, path store.Path) int {
			return strings.Compare(string(p.Path), string(path))
		})
		p := &m.Paths[at]
		p.Files, p.Data, p.DataSum, p.Sums = unit.Files, unit.Extents, unit.Data, unit.Sums
	}
	return m, b.digest(ctx, r, m)
}

// describe says in a manifest what was asked for.
func (p *plan) describe(m *image.Manifest) {
	m.Roots, m.Missing, m.Modules, m.Lock = p.extra, p.missing, nil, nil
	if p.lock != nil {
		m.Lock = &image.ManifestLock{SHA256: p.lock.SHA256}
	}
	for _, e := range p.entries {
		m.Modules = append(m.Modules, image.ManifestModule{ID: e.Key(), Commit: e.Commit.String(), Path: e.Path})
	}
}

// manifestOptions are those that the filesystem's bytes depend on.
func (b *builder) manifestOptions() image.ManifestOptions {
	return image.ManifestOptions{
		Compression: b.format.compression(), BlockSize: b.format.blockSize(),
		Owner:     fmt.Sprintf("%d:%d", b.opts.UID, b.opts.GID),
		Partition: b.opts.Partition, Writable: b.opts.Writable, Layout: b.format.layoutVersion(),
	}
}

// publish gives image and manifest their names.
func publish(out *atomicfile.File, m *image.Manifest) error {
	f, err := atomicfile.Create(image.ManifestName(out.Name()))
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := m.Encode(f); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return err
	}
	return f.Commit()
}
