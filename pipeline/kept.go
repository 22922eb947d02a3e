package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/base"
	"bigdisk/pipeline/progress"
)

// keptPath is a store path that an earlier image holds. It stands among
// contents, but has no stream: its entries are known, and its data stays where
// it is until the writer takes it.
type keptPath struct {
	entries []base.Entry
}

// errKept is what reading a keptPath as a stream returns.
var errKept = errors.New("a kept path is not read as a stream")

// Next is never called.
func (*keptPath) Next() (*store.Entry, error) { return nil, errKept }

// Read is never called.
func (*keptPath) Read([]byte) (int, error) { return 0, errKept }

// Close does nothing: the earlier image stays open.
func (*keptPath) Close() error { return nil }

// addTo adds the path's tree to w, with its root at the image path root.
func (k *keptPath) addTo(w image.KeptWriter, root string, stage *progress.Stage) error {
	for i := range k.entries {
		e := &k.entries[i]
		at := e.Entry
		at.Path = root
		if e.Path != "" {
			at.Path = root + "/" + e.Path
		}
		var err error
		if e.Kept != nil {
			err = w.CreateKept(&at, e.Kept)
			stage.Add(at.Size)
		} else {
			err = w.Create(&at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openBase opens the base image, if there is one. With BaseOptional, one that
// does not fit is none, which is said.
func (b *builder) openBase(ctx context.Context) (closer io.Closer, err error) {
	if b.opts.Base == "" {
		return io.NopCloser(nil), nil
	}
	closer, err = b.tryBase(ctx)
	if err == nil || !b.opts.BaseOptional || ctx.Err() != nil {
		return closer, err
	}
	b.opts.Logger.Warn("building in full, without the base", "error", err)
	return io.NopCloser(nil), nil
}

func (b *builder) tryBase(ctx context.Context) (closer io.Closer, err error) {
	if inBucket(b.opts.Base) {
		disk, m, closer, err := b.openRemoteBase(ctx)
		if err != nil {
			return nil, fmt.Errorf("--base: %w", err)
		}
		return b.newBase(ctx, disk, disk.size, m, closer)
	}
	f, err := image.OpenFile(b.opts.Base)
	if err != nil {
		return nil, fmt.Errorf("--base: %w", err)
	}
	m, err := image.ReadManifest(b.opts.baseManifest())
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("--base: %s: %w", b.opts.Base, err)
	}
	return b.newBase(ctx, f, size, m, f)
}

// newBase opens the base in disk, which closer closes.
func (b *builder) newBase(ctx context.Context, disk io.ReaderAt, size int64, m *image.Manifest, closer io.Closer) (_ io.Closer, err error) {
	stage := b.opts.Progress.Stage("base", progress.Steps, 1)
	defer stage.Finish()
	b.base, err = base.New(ctx, b.opts.Base, disk, size, m, base.Options{
		Format: b.opts.Format, Writer: b.manifestOptions(), Trust: b.opts.TrustBase,
	})
	if err != nil {
		closer.Close()
		return nil, fmt.Errorf("--base: %w", err)
	}
	return closer, nil
}

// inBucket tells whether a name is that of an object in Cloud Storage.
func inBucket(name string) bool { return strings.HasPrefix(name, "gs://") }

// kept tells whether the base holds a path, and the path need not be read for
// another reason.
func (b *builder) kept(plan *plan, i int) bool {
	path := plan.order[i]
	return b.base != nil && !watches(plan, path) && b.base.Has(path, plan.info(i).NarHash)
}

// openPath gives a path's contents: from the base, from the cache, or from the
// source.
func (b *builder) openPath(ctx context.Context, plan *plan, i int) (store.Contents, error) {
	if b.kept(plan, i) {
		return b.openKept(ctx, plan, i)
	}
	if b.packer != nil && !watches(plan, plan.order[i]) {
		return b.openPacked(ctx, plan.info(i))
	}
	return b.source.Open(ctx, plan.info(i))
}

// openPacked takes a path from the cache, after putting it there if it is not.
// What is wrong with a cache is said, and no reason to fail: paths that it does
// not give are built without it.
func (b *builder) openPacked(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	entries, err := b.packer.take(ctx, b.source, info)
	if trouble := new(cacheError); errors.As(err, &trouble) && ctx.Err() == nil {
		b.packer.avoid(trouble)
		err = nil
	}
	switch {
	case err != nil:
		return nil, err
	case entries == nil:
		return b.source.Open(ctx, info)
	}
	return &keptPath{entries: entries}, nil
}

func (b *builder) openKept(ctx context.Context, plan *plan, i int) (store.Contents, error) {
	entries, err := b.base.Unit(ctx, plan.order[i])
	switch {
	case err == nil:
		return &keptPath{entries: entries}, nil
	case b.opts.BaseOptional && ctx.Err() == nil:
		b.opts.Logger.Warn("not taking a path from the base", "path", plan.order[i], "error", err)
		return b.source.Open(ctx, plan.info(i))
	}
	return nil, fmt.Errorf("--base: %w", err)
}
