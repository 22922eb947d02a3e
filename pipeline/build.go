package pipeline

import (
	"context"
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
	"bigdisk/pipeline/progress"
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
	out, err := atomicfile.Create(b.opts.Output)
	if err != nil {
		return nil, err
	}
	defer out.Discard()

	d := newDisk(out.File, b.opts)
	layout, err := b.write(ctx, plan, out.Name(), d)
	if err != nil {
		return nil, err
	}
	done, err := b.enclose(ctx, d, layout.Size, plan.label)
	if err != nil {
		return nil, err
	}
	if err := b.settle(ctx, out.File, done, d.base, layout); err != nil {
		return nil, err
	}
	if done.metadata, err = hashMetadata(d, d.base, layout.Metadata); err != nil {
		return nil, fmt.Errorf("read %s again: %w", b.opts.Output, err)
	}
	manifest, err := b.manifest(plan, layout, done)
	if err != nil {
		return nil, err
	}
	if err := b.verifyImage(ctx, atomicfile.TempName(b.opts.Output), manifest); err != nil {
		return nil, err
	}
	if err := publish(out, manifest); err != nil {
		return nil, err
	}
	return b.result(plan, manifest, start), nil
}

// result sums the build up that began at start.
func (b *builder) result(plan *plan, m *image.Manifest, start time.Time) *BuildResult {
	return &BuildResult{
		Image: b.opts.Output, Manifest: ManifestName(b.opts.Output), Format: b.opts.Format,
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

// settle hashes the image while the disk takes it in. An image's first bytes
// are written last, so it has to be read again; mostly it is still in the page
// cache. What the base has in the same place was held against its sums when it
// was taken, and has them still.
func (b *builder) settle(ctx context.Context, f *os.File, done *finished, offset int64, layout *image.Layout) error {
	known := func(i int64) *image.HexSHA256 {
		if b.base == nil {
			return nil
		}
		return b.base.KnownChunk(i, b.format.hashChunk(), done.size, offset, layout.Stayed)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", b.opts.Output, err)
		}
		return nil
	})
	group.Go(func() error { return b.hash(ctx, f, done, known) })
	return group.Wait()
}

// hash fills in the hash of the image in r. Chunks that are known are not read.
func (b *builder) hash(ctx context.Context, r io.ReaderAt, done *finished, known func(i int64) *image.HexSHA256) (err error) {
	stage := b.opts.Progress.Stage("finish", progress.Bytes, done.size)
	defer stage.Finish()
	done.chunks, err = image.SumChunks(ctx, r, done.size, b.format.hashChunk(), b.opts.Jobs, known, stage.Add)
	done.sum = done.chunks.Digest()
	if err != nil {
		return fmt.Errorf("read %s again: %w", b.opts.Output, err)
	}
	return nil
}

// manifest describes the image.
func (b *builder) manifest(plan *plan, layout *image.Layout, done *finished) (*image.Manifest, error) {
	m := &image.Manifest{
		Version: image.ManifestVersion,
		Image:   image.ManifestImage{Format: b.opts.Format, Size: done.size, SHA256: done.sum, Chunk: b.format.hashChunk(), Label: plan.label, Part: done.part, Metadata: done.metadata},
		Options: b.manifestOptions(),
		Verity:  done.verity,
		Chunks:  done.chunks.Parts(),
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
		m.Paths[at].Files, m.Paths[at].Data = unit.Files, unit.Extents
		m.Paths[at].DataSum, m.Paths[at].Sums = unit.Data, unit.Sums
		for j := range m.Paths[at].Data {
			if done.part != nil {
				m.Paths[at].Data[j].Offset += done.part.Offset
			}
		}
	}
	return m, nil
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
	f, err := atomicfile.Create(ManifestName(out.Name()))
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := m.Encode(f); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	if err := out.Commit(); err != nil {
		return err
	}
	return f.Commit()
}
