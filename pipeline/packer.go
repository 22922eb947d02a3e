package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
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
	// full is set once the cache takes no more, unreadable once it gives nothing.
	full, unreadable atomic.Bool
	logger           interface {
		Warn(msg string, args ...any)
	}
}

// largePath is the NAR size in bytes from which on all workers compress one
// path.
const largePath = 16 << 20

// cacheBudget is how long a call to a cache in a bucket may take with all its
// attempts, besides the time for what it transfers: a build can do without.
const cacheBudget = time.Minute

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
	client, err := bucket.New(ctx, bucket.Options{Budget: cacheBudget, Attempt: cacheBudget / 2, Logger: o.Logger})
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

// cacheError is what went wrong with the cache itself.
type cacheError struct {
	err     error
	writing bool
}

// Error is what went wrong.
func (e *cacheError) Error() string { return e.err.Error() }

// Unwrap is what went wrong.
func (e *cacheError) Unwrap() error { return e.err }

// avoid says what is wrong with the cache, once, and leaves it alone. It still
// gives what it has if it only takes no more.
func (p *packer) avoid(e *cacheError) {
	flag, what := &p.unreadable, "the cache cannot be read: building without it"
	if e.writing {
		flag, what = &p.full, "the cache takes no more: building what it has not without it"
	}
	if !flag.Swap(true) {
		p.logger.Warn(what, "cache", p.cache, "error", e)
	}
}

// take takes a path from the cache, after putting it there if it is not. Nothing
// and no error is for a cache that is avoided.
func (p *packer) take(ctx context.Context, src source.Source, info *store.PathInfo) ([]base.Entry, error) {
	if p.unreadable.Load() {
		return nil, nil
	}
	entries, err := p.find(ctx, info)
	if entries != nil || err != nil || p.full.Load() {
		return entries, err
	}
	return p.pack(ctx, src, info)
}

// find takes a path from the cache; nil if it is not there, or damaged.
func (p *packer) find(ctx context.Context, info *store.PathInfo) ([]base.Entry, error) {
	key := p.key(info)
	f, err := p.cache.Get(ctx, key)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, &cacheError{err: err}
	}
	entries, err := packed.Open(ctx, f.Name(), f, info, p.options(), func() { f.Close() })
	if err == nil {
		return entries, nil
	}
	f.Close()
	if !errors.Is(err, packed.ErrDamaged) || ctx.Err() != nil {
		return nil, &cacheError{err: err}
	}
	if dropErr := p.cache.Drop(ctx, key); dropErr != nil {
		err = fmt.Errorf("%w, and it stays: %w", err, dropErr)
	}
	p.logger.Warn("dropping a damaged file from the cache", "path", info.Path, "error", err)
	return nil, nil
}

// pack compresses a path into the cache and takes it from there. If the cache
// does not keep it, there are entries and an error.
func (p *packer) pack(ctx context.Context, src source.Source, info *store.PathInfo) (entries []base.Entry, err error) {
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
		return nil, &cacheError{err, true}
	}
	defer func() {
		if entries == nil {
			f.Close()
		}
	}()
	err = packed.Write(ctx, f, info, c, opts)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = &cacheError{err, true}
	}
	if err != nil {
		return nil, err
	}
	putErr := p.cache.Put(ctx, p.key(info), f)
	entries, err = packed.Open(ctx, f.Name(), f, info, p.options(), func() { f.Close() })
	if err == nil && putErr != nil {
		err = &cacheError{putErr, true}
	}
	return entries, err
}
