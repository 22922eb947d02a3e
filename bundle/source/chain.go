package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
)

// chain asks several sources, one after the other.
type chain struct {
	sources []Source
	log     *slog.Logger

	mu sync.Mutex
	// from is the source that an info came from, if it was not the first.
	from map[store.Path]int
	// warned says which sources have been reported to fail.
	warned []bool
}

// Chain returns a source that asks each of the sources until one has what is
// wanted, in the order given. When one fails for another reason than not
// having the path, the next is asked as well, and the reason is part of the
// error if none has it. Contents that one source cannot give are taken from
// another which says the same of the path: hash, size and references. The
// logger, which may be nil, is told of each source that fails. The chain owns
// the sources and closes them.
func Chain(sources []Source, log *slog.Logger) Source {
	if len(sources) == 1 {
		return sources[0]
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &chain{sources: sources, log: log, from: make(map[store.Path]int), warned: make([]bool, len(sources))}
}

// String implements [Source].
func (c *chain) String() string {
	names := make([]string, len(c.sources))
	for i, s := range c.sources {
		names[i] = s.String()
	}
	return strings.Join(names, ", ")
}

// Close implements [Source].
func (c *chain) Close() error {
	var errs []error
	for _, s := range c.sources {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Info implements [Source].
func (c *chain) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	failed := &chainError{path: path}
	for i, s := range c.sources {
		info, err := s.Info(ctx, path)
		if err == nil {
			c.remember(path, i)
			return info, nil
		}
		if failed.add(s, err); ctx.Err() != nil {
			break
		}
		c.warn(i, path, err)
	}
	return nil, failed
}

func (c *chain) remember(path store.Path, i int) {
	if i == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from[path] = i
}

// warn reports a source's first failure.
func (c *chain) warn(i int, path store.Path, err error) {
	c.mu.Lock()
	first := !c.warned[i] && !errors.Is(err, ErrNotFound)
	c.warned[i] = c.warned[i] || first
	c.mu.Unlock()
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "source passed over", "source", c.sources[i].String(), "path", path, "error", err)
}

// Open implements [Source].
func (c *chain) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	c.mu.Lock()
	first := c.from[info.Path]
	c.mu.Unlock()
	failed := &chainError{path: info.Path}
	contents, err := c.sources[first].Open(ctx, info)
	if err == nil {
		return contents, nil
	}
	failed.add(c.sources[first], err)
	for i, s := range c.sources {
		if ctx.Err() != nil || errors.Is(err, spool.ErrScratch) {
			break
		}
		if i == first {
			continue
		}
		c.warn(first, info.Path, failed)
		if contents, err = c.openOther(ctx, s, info); err == nil {
			return contents, nil
		}
		failed.add(s, err)
	}
	return nil, failed
}

// openOther opens a path in a source that its info did not come from.
func (c *chain) openOther(ctx context.Context, s Source, info *store.PathInfo) (store.Contents, error) {
	other, err := s.Info(ctx, info.Path)
	if err != nil {
		return nil, err
	}
	if !sameContents(other, info) {
		return nil, wrap(info.Path, s, fmt.Errorf("it has other contents or references under that name: %w", ErrMismatch))
	}
	return s.Open(ctx, other)
}

// chainError is why none of several sources could give a path.
type chainError struct {
	path store.Path
	errs []*Error
}

func (e *chainError) add(s Source, err error) {
	named := (*Error)(nil)
	if !errors.As(err, &named) {
		named = &Error{Path: e.path, Source: s.String(), Err: err}
	}
	e.errs = append(e.errs, named)
}

// Error gives each source's reason: those that just do not have it first.
func (e *chainError) Error() string {
	var missing, rest []string
	for _, err := range e.errs {
		if err.Err == ErrNotFound {
			missing = append(missing, err.Source)
		} else {
			rest = append(rest, err.reason())
		}
	}
	if len(missing) > 0 {
		rest = append([]string{"not in " + strings.Join(missing, ", ")}, rest...)
	}
	return string(e.path) + ": " + strings.Join(rest, "; ")
}

// Unwrap returns what is worth asking for: ErrNotFound if that is all there is
// to it, otherwise every other reason.
func (e *chainError) Unwrap() []error {
	var rest []error
	for _, err := range e.errs {
		if !errors.Is(err, ErrNotFound) {
			rest = append(rest, err)
		}
	}
	if len(rest) == 0 {
		return []error{ErrNotFound}
	}
	return rest
}
