package web

import (
	"context"
	"errors"
	"sync"
	"time"
)

// cached is something that is read when it is asked for, at most once in a while.
// Callers that come during a read wait for it, as long as they may.
type cached[T any] struct {
	every   time.Duration // the least time from the end of a read to the next
	timeout time.Duration // of a read
	now     func() time.Time
	read    func(context.Context) (T, error)

	mu    sync.Mutex
	busy  chan struct{} // closed when the read under way ends; nil if none is
	last  reading[T]
	tried time.Time // when the last read ended
}

// reading is what was read.
type reading[T any] struct {
	value T
	at    time.Time // when it was read; zero if it never was
	err   error     // why it could not be read since; nil if it could
}

// errReading is why there is nothing yet.
var errReading = errors.New("it is being read for the first time, and that takes long")

// get returns what was read last. Where a read fails it is what the one before
// gave, with the error; and where a read takes longer than ctx, what there is.
func (c *cached[T]) get(ctx context.Context) reading[T] {
	c.mu.Lock()
	if c.busy == nil && !c.tried.IsZero() && c.now().Sub(c.tried) < c.every {
		defer c.mu.Unlock()
		return c.last
	}
	if c.busy == nil {
		c.busy = make(chan struct{})
		// For all who wait, so that it goes on when those have gone, to its own
		// time limit.
		go c.refresh(context.WithoutCancel(ctx), c.busy)
	}
	busy := c.busy
	c.mu.Unlock()
	select {
	case <-busy:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tried.IsZero() {
		return reading[T]{err: errReading}
	}
	return c.last
}

// refresh reads, and closes done.
func (c *cached[T]) refresh(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	value, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried = c.now()
	if c.last.err = err; err == nil {
		c.last.value, c.last.at = value, c.tried
	}
	c.busy = nil
	close(done)
}
