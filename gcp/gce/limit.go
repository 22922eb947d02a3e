package gce

import (
	"context"
	"sync"
	"time"
)

// limiter spaces the calls of one kind to each project. It lets no calls
// gather: in any t seconds there are at most 1+rate·t.
type limiter struct {
	clock    Clock
	interval time.Duration // between two calls; 0 for no limit

	mu   sync.Mutex
	next map[string]time.Time // by project: when the next call may go out
}

func newLimiter(clock Clock, perSecond float64) *limiter {
	l := &limiter{clock: clock, next: make(map[string]time.Time)}
	if perSecond > 0 {
		l.interval = time.Duration(float64(time.Second) / perSecond)
	}
	return l
}

// wait returns when a call to the project may go out.
func (l *limiter) wait(ctx context.Context, project string) error {
	return Sleep(ctx, l.clock, l.reserve(project))
}

// reserve takes the project's next turn and says how far away it is.
func (l *limiter) reserve(project string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	at := l.next[project]
	if at.Before(now) {
		at = now
	}
	if l.interval > 0 || at.After(now) {
		l.next[project] = at.Add(l.interval)
	}
	return at.Sub(now)
}

// pause keeps all calls to the project back for d.
func (l *limiter) pause(project string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := l.clock.Now().Add(d); l.next[project].Before(until) {
		l.next[project] = until
	}
}
