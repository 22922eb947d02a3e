package spool

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// Budget is a number of bytes that the parts of a run share. It is safe for
// concurrent use.
type Budget struct {
	sem  *semaphore.Weighted
	size int64
}

// NewBudget returns a budget of size bytes.
func NewBudget(size int64) *Budget {
	return &Budget{sem: semaphore.NewWeighted(size), size: size}
}

// Acquire waits for n bytes, or for the whole budget if n is more than that, so
// that what is too large still passes, alone. Those who wait are served in
// turn. It returns what to give to Release.
func (b *Budget) Acquire(ctx context.Context, n int64) (int64, error) {
	n = min(n, b.size)
	if err := b.sem.Acquire(ctx, n); err != nil {
		return 0, err
	}
	return n, nil
}

// TryAcquire takes n bytes if they are free now, and reports whether it did.
func (b *Budget) TryAcquire(n int64) bool { return b.sem.TryAcquire(n) }

// Release gives n bytes back.
func (b *Budget) Release(n int64) { b.sem.Release(n) }
