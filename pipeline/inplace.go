package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/atomicfile"
	"bigdisk/image/base"
	"bigdisk/image/ext4"
	"bigdisk/pipeline/progress"
)

// inPlaceFormat makes the base's writer the new image's.
type inPlaceFormat struct {
	ext4Format
	disk   ext4.Disk
	update *ext4.Update // once the image has been begun
}

func (f *inPlaceFormat) newWriter(ctx context.Context, _ *disk, label string) (image.Writer, error) {
	opts := f.opts
	opts.Label = label
	u, err := ext4.NewUpdate(ctx, f.disk, opts)
	if err != nil {
		return nil, err
	}
	f.update = u
	return u, nil
}

// buildInPlace turns the base into the image that plan asks for.
func (b *builder) buildInPlace(ctx context.Context, plan *plan, start time.Time) (*BuildResult, error) {
	d, err := ext4.OpenDisk(b.opts.Base)
	if err != nil {
		return nil, fmt.Errorf("--in-place: %w", err)
	}
	defer d.Close()
	return b.change(ctx, plan, d, start)
}

// change turns the image on d into the new one.
func (b *builder) change(ctx context.Context, plan *plan, d ext4.Disk, start time.Time) (*BuildResult, error) {
	old, err := b.openInPlace(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("--in-place: %w", err)
	}
	f := &inPlaceFormat{ext4Format: b.format.(ext4Format), disk: d}
	b.format = f
	layout, err := b.write(ctx, plan, b.opts.baseManifest(), nil)
	if err != nil {
		return nil, err
	}
	if f.update.Unchanged() {
		return b.unchanged(ctx, plan, old, start)
	}
	m, err := b.manifest(ctx, plan, layout, f.update.Image())
	if err == nil {
		err = b.switchTo(f.update, m)
	}
	if err != nil {
		return nil, errors.Join(err, f.update.Abandon())
	}
	result := b.result(plan, m, start)
	result.Manifest, result.Written = b.opts.baseManifest(), f.update.Written()
	return result, b.verifyImage(ctx, b.opts.Base, m)
}

// openInPlace finishes what an interrupted build has begun to switch to, and
// opens the base.
func (b *builder) openInPlace(ctx context.Context, d ext4.Disk) (*image.Manifest, error) {
	name := b.opts.baseManifest()
	finished, err := ext4.Finish(d, func(token [32]byte) error { return restoreManifest(name, token) })
	if err != nil {
		return nil, fmt.Errorf("finishing %s: %w", b.opts.Base, err)
	}
	if finished {
		b.opts.Logger.Info("finished a build in place that was interrupted", "image", b.opts.Base)
	}
	m, err := image.ReadManifest(name)
	if err != nil {
		return nil, err
	}
	if m.Image.Part != nil || m.Verity != nil {
		return nil, fmt.Errorf("%s: %w: it has a partition table or a hash tree around its filesystem", b.opts.Base, base.ErrUnfit)
	}
	before, size, err := ext4.Before(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.opts.Base, err)
	}
	stage := b.opts.Progress.Stage("base", progress.Steps, 1)
	defer stage.Finish()
	b.base, err = base.New(ctx, b.opts.Base, before, size, m, base.Options{
		Format: b.opts.Format, Writer: b.manifestOptions(), Trust: true,
	})
	return m, err
}

// restoreManifest makes sure that the manifest with a SHA-256 has its name: an
// interrupted build may have left it under its temporary one.
func restoreManifest(name string, sum [32]byte) error {
	if fileHas(name, sum) {
		return nil
	}
	temp := atomicfile.TempName(name)
	if !fileHas(temp, sum) {
		return fmt.Errorf("neither %s nor %s is the manifest of the image that was being made", name, temp)
	}
	return atomicfile.Adopt(name)
}

func fileHas(name string, sum [32]byte) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && [32]byte(h.Sum(nil)) == sum
}

// switchTo makes the image the new one, and m its manifest.
func (b *builder) switchTo(u *ext4.Update, m *image.Manifest) error {
	f, sum, err := b.stageManifest(m)
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := u.Switch(sum, f.Commit); err != nil {
		// The manifest may be needed to finish.
		f.Keep()
		return fmt.Errorf("%s: %w", b.opts.Base, err)
	}
	return nil
}

// stageManifest writes a manifest that has not got its name, and hashes it.
func (b *builder) stageManifest(m *image.Manifest) (f *atomicfile.File, sum [32]byte, err error) {
	f, err = atomicfile.Create(b.opts.baseManifest())
	if err != nil {
		return nil, sum, err
	}
	h := sha256.New()
	if err = m.Encode(hashing{f, h}); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Discard()
		return nil, sum, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return f, [32]byte(h.Sum(nil)), nil
}

// hashing writes, and hashes what it writes.
type hashing struct {
	io.Writer
	h hash.Hash
}

func (w hashing) Write(p []byte) (int, error) {
	w.h.Write(p)
	return w.Writer.Write(p)
}

// unchanged is the result if the base already is what it should be. Its
// manifest may still have to say what was asked for this time.
func (b *builder) unchanged(ctx context.Context, plan *plan, m *image.Manifest, start time.Time) (*BuildResult, error) {
	b.opts.Logger.Info("the base already is what it should become: nothing was changed", "image", b.opts.Base)
	plan.describe(m)
	f, sum, err := b.stageManifest(m)
	if err != nil {
		return nil, err
	}
	defer f.Discard()
	if !fileHas(f.Name(), sum) {
		if err := f.Commit(); err != nil {
			return nil, err
		}
	}
	result := b.result(plan, m, start)
	result.Manifest, result.Unchanged = b.opts.baseManifest(), true
	return result, b.verifyImage(ctx, b.opts.Base, m)
}

// addWatched adds a path that the base has, and that is read all the same,
// since there is something to learn from it.
func (b *builder) addWatched(ctx context.Context, plan *plan, i int, w image.KeptWriter, c *countedContents) error {
	path := plan.order[i]
	entries, err := b.base.Unit(ctx, path)
	if err != nil {
		return plan.blame(i, fmt.Errorf("--base: %w", err))
	}
	for {
		e, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if e.Kind == store.Regular {
			if _, err := io.Copy(io.Discard, c); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	k := &keptPath{entries: entries}
	return k.addTo(w, storeDir+"/"+path.Base(), nil)
}
