package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/narinfo"
	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
)

// maxKnown is how many archives' places are kept between Info and Open. For
// any more the narinfo is asked for again.
const maxKnown = 1 << 16

// maxURL is how long an archive's place in a narinfo may be, in bytes: no
// system takes longer names, and errors tell it.
const maxURL = 4096

// Cache is a binary cache: a set of named objects, in which nix-cache-info
// says what it is, DIGEST.narinfo what is known of a path, and what that
// narinfo names is the path's archive. Make one with [Parse].
type Cache struct {
	spec     string
	opts     Options
	lenient  bool // nix-cache-info may be missing
	down     *downloader
	decoders *decoders
	area     *spool.Area
	readers  sync.Pool // *nar.Reader
	copies   sync.Pool // *[copySize]byte

	ready  chan struct{} // holds a token while nobody asks for nix-cache-info
	mu     sync.Mutex
	info   *CacheInfo
	failed error
	known  map[store.Path]archive
}

// archive is where a path's archive lies in the cache, and what it is.
type archive struct {
	url, compression string
	hash             store.Hash // of the compressed file; zero if not given
	size             int64      // of the compressed file; 0 if not given
}

// newCache makes a source of the objects that f gets.
func newCache(spec string, f fetcher, opts Options, lenient bool) *Cache {
	opts.Logger = opts.Logger.With("source", spec)
	c := &Cache{
		spec: spec, opts: opts, lenient: lenient,
		decoders: newDecoders(),
		area:     spool.NewArea(opts.ScratchDir, opts.Memory, opts.MaxInMemory),
		ready:    make(chan struct{}, 1),
		known:    make(map[store.Path]archive),
	}
	c.down = newDownloader(f, &c.opts)
	c.readers.New = func() any { return nar.NewReader(nil) }
	c.copies.New = func() any { return new([copySize]byte) }
	c.ready <- struct{}{}
	return c
}

// String implements [Source].
func (c *Cache) String() string { return c.spec }

// Close implements [Source].
func (c *Cache) Close() error { return c.down.fetcher.close() }

// CacheInfo returns what the cache says of itself. It is asked once; a cache
// that fails then is given up.
func (c *Cache) CacheInfo(ctx context.Context) (*CacheInfo, error) {
	if info, err := c.asked(); info != nil || err != nil {
		return info, err
	}
	select {
	case <-c.ready:
		defer func() { c.ready <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if info, err := c.asked(); info != nil || err != nil {
		return info, err
	}
	info, err := c.fetchInfo(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	c.info, c.failed = info, err
	c.mu.Unlock()
	return info, err
}

// asked returns what CacheInfo has found out, nothing if it has not been asked.
func (c *Cache) asked() (*CacheInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info, c.failed
}

func (c *Cache) fetchInfo(ctx context.Context) (*CacheInfo, error) {
	text, err := c.down.small(ctx, cacheInfoName, maxCacheInfo)
	if errors.Is(err, ErrNotFound) {
		if c.lenient {
			return &CacheInfo{Priority: DefaultPriority}, nil
		}
		return nil, fmt.Errorf("no binary cache is there: %s: %v", cacheInfoName, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cacheInfoName, err)
	}
	info, err := ParseCacheInfo(text)
	if err != nil {
		return nil, err
	}
	if err := info.check(); err != nil {
		return nil, err
	}
	return info, nil
}

// Info implements [Source].
func (c *Cache) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	n, err := c.narinfo(ctx, path)
	if err != nil {
		return nil, wrap(path, c, err)
	}
	if err := n.Info.CheckCA(); err != nil {
		return nil, wrap(path, c, fmt.Errorf("its narinfo's CA, which no signature covers: %w", err))
	}
	if err := c.opts.trust(&n.Info); err != nil {
		return nil, wrap(path, c, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) < maxKnown {
		c.known[path] = archiveOf(n)
	}
	info := n.Info
	return &info, nil
}

func archiveOf(n *narinfo.NarInfo) archive {
	return archive{n.URL, n.Compression, n.FileHash, n.FileSize}
}

// narinfo gets and reads a narinfo. It is not trusted yet.
func (c *Cache) narinfo(ctx context.Context, path store.Path) (*narinfo.NarInfo, error) {
	if _, err := c.CacheInfo(ctx); err != nil {
		return nil, err
	}
	name := path.Digest() + ".narinfo"
	text, err := c.down.small(ctx, name, narinfo.MaxSize)
	if err != nil {
		return nil, err
	}
	n, err := narinfo.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(n.URL) > maxURL {
		return nil, fmt.Errorf("%s: its URL has %d bytes, over %d", name, len(n.URL), maxURL)
	}
	if n.Info.Path != path {
		return nil, fmt.Errorf("%s is of %s: %w", name, n.Info.Path, ErrNotFound)
	}
	return n, nil
}

// archive says where the path's archive is, which must be of that info.
func (c *Cache) archive(ctx context.Context, info *store.PathInfo) (archive, error) {
	c.mu.Lock()
	a, ok := c.known[info.Path]
	delete(c.known, info.Path)
	c.mu.Unlock()
	if ok {
		return a, nil
	}
	n, err := c.narinfo(ctx, info.Path)
	if err != nil {
		return archive{}, err
	}
	if !sameContents(&n.Info, info) {
		return archive{}, fmt.Errorf("it has other contents or references under that name: %w", ErrMismatch)
	}
	return archiveOf(n), nil
}

// sameContents reports whether two infos are of the same tree.
func sameContents(a, b *store.PathInfo) bool {
	return a.NarHash == b.NarHash && a.NarSize == b.NarSize && slices.Equal(a.References, b.References)
}

// Open implements [Source].
func (c *Cache) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	a, err := c.archive(ctx, info)
	if err != nil {
		return nil, wrap(info.Path, c, err)
	}
	s, err := c.receive(ctx, info, a)
	if err != nil {
		return nil, wrap(info.Path, c, err)
	}
	r := c.readers.Get().(*nar.Reader)
	r.Reset(s)
	return c.opts.hold(info, &spooled{ctx: ctx, cache: c, path: info.Path, reader: r, spool: s}), nil
}

// spooled is the contents of a path whose archive has been checked.
type spooled struct {
	ctx    context.Context
	cache  *Cache
	path   store.Path
	reader *nar.Reader
	spool  *spool.Spool
	err    error
}

// Next implements [store.Contents].
func (s *spooled) Next() (*store.Entry, error) {
	if err := s.state(); err != nil {
		return nil, err
	}
	e, err := s.reader.Next()
	return e, s.fail(err)
}

// Read implements [store.Contents].
func (s *spooled) Read(p []byte) (int, error) {
	if err := s.state(); err != nil {
		return 0, err
	}
	n, err := s.reader.Read(p)
	return n, s.fail(err)
}

// state is why there can be no more.
func (s *spooled) state() error {
	if s.err == nil && s.ctx.Err() != nil {
		s.err = wrap(s.path, s.cache, context.Cause(s.ctx))
	}
	return s.err
}

// fail names path and source; the end is no failure.
func (s *spooled) fail(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return wrap(s.path, s.cache, err)
}

// Close implements [store.Contents].
func (s *spooled) Close() error {
	if s.reader == nil {
		return nil
	}
	s.reader.Reset(nil)
	s.cache.readers.Put(s.reader)
	s.reader = nil
	s.err = errClosed
	return s.spool.Close()
}
