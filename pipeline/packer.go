package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/bundle/store/tempfile"
	"bigdisk/gcp/bucket"
	"bigdisk/image"
	"bigdisk/image/base"
	"bigdisk/image/packed"
	"bigdisk/image/squashfs"
	"bigdisk/pipeline/cache"
)

// packer takes store paths from a cache of packed ones, and packs those that
// are not there.
type packer struct {
	cache  cache.Cache
	closer io.Closer
	writer squashfs.Options
	slots  *semaphore.Weighted // of workers that compress
	full   atomic.Bool         // there is no room for more
	logger interface {
		Warn(msg string, args ...any)
	}
}

// largePath is the NAR size in bytes from which on all workers compress one
// path.
const largePath = 16 << 20

// openPacker opens the cache that o names; nil if none is named.
func openPacker(ctx context.Context, o BuildOptions, f format) (*packer, error) {
	if o.Cache == "" {
		return nil, nil
	}
	squash, ok := f.(squashfsFormat)
	if !ok {
		return nil, fmt.Errorf("%w: --cache keeps compressed store paths: %s has none", ErrUsage, o.Format)
	}
	p := &packer{writer: squash.opts, closer: io.NopCloser(nil), slots: semaphore.NewWeighted(int64(o.Jobs)), logger: o.Logger}
	if !inBucket(o.Cache) {
		dir, err := cache.OpenDir(o.Cache, o.CacheSize)
		p.cache = dir
		return p, err
	}
	if o.CacheSize != 0 {
		return nil, fmt.Errorf("%w: --cache-size is for a directory: bound %s by lifecycle rules of its bucket", ErrUsage, o.Cache)
	}
	client, err := bucket.New(ctx, bucket.Options{Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("--cache: %w", err)
	}
	p.closer = client
	p.cache, err = cache.OpenBucket(client, o.Cache, o.ScratchDir)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return p, nil
}

// close trims the cache, if the build went well.
func (p *packer) close(ctx context.Context, err error) error {
	if p == nil {
		return err
	}
	if err == nil {
		if trimErr := p.cache.Trim(ctx); trimErr != nil {
			p.logger.Warn("the cache was not trimmed", "error", trimErr)
		}
	}
	p.closer.Close()
	return err
}

func (p *packer) options() image.ManifestOptions { return packed.Options(p.writer) }

func (p *packer) key(info *store.PathInfo) string { return packed.Key(info.NarHash, p.options()) }

// find takes a path from the cache; nil if it is not there, or damaged.
func (p *packer) find(ctx context.Context, info *store.PathInfo) ([]base.Entry, error) {
	key := p.key(info)
	f, err := p.cache.Get(ctx, key)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := packed.Open(ctx, f.Name(), f, info, p.options(), func() { f.Close() })
	if err == nil {
		return entries, nil
	}
	f.Close()
	if !errors.Is(err, packed.ErrDamaged) || ctx.Err() != nil {
		return nil, err
	}
	p.logger.Warn("dropping a damaged file from the cache", "path", info.Path, "error", err)
	return nil, p.cache.Drop(ctx, key)
}

// pack compresses a path into the cache and takes it from there. A cache that
// does not keep it is no reason to fail.
func (p *packer) pack(ctx context.Context, src source.Source, info *store.PathInfo) ([]base.Entry, error) {
	c, err := src.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	opts := p.writer
	if opts.Jobs = 1; info.NarSize >= largePath {
		opts.Jobs = p.writer.Jobs
	}
	if err := p.slots.Acquire(ctx, int64(opts.Jobs)); err != nil {
		return nil, err
	}
	defer p.slots.Release(int64(opts.Jobs))
	f, err := p.cache.New()
	if err != nil {
		p.logger.Warn("the cache takes no new files", "cache", p.cache, "path", info.Path, "error", err)
		if f, err = tempfile.New(p.writer.ScratchDir); err != nil {
			return nil, err
		}
	}
	entries, err := func() ([]base.Entry, error) {
		if _, err := packed.Write(ctx, f, info, c, opts); err != nil {
			return nil, err
		}
		if err := p.cache.Put(ctx, p.key(info), f); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			p.logger.Warn("the cache did not keep a path", "path", info.Path, "error", err)
		}
		return packed.Open(ctx, f.Name(), f, info, p.options(), func() { f.Close() })
	}()
	if err != nil {
		f.Close()
	}
	return entries, err
}
