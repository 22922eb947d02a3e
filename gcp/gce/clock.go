package gce

import (
	"context"
	"time"
)

// Clock is the time that waits and budgets go by.
type Clock interface {
	Now() time.Time
	// After gives one value once d has passed.
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the machine's own clock.
func SystemClock() Clock { return systemClock{} }

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Sleep waits for d on the clock, or until the context ends.
func Sleep(ctx context.Context, clock Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-clock.After(d):
		return ctx.Err()
	}
}
