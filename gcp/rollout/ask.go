package rollout

import (
	"context"
	"sync"
	"time"

	"bigdisk/gcp/rollout/world"
)

// asker spaces the readings of one host's report: the service takes ten a
// minute, and drops what is more.
type asker struct {
	every time.Duration
	mu    sync.Mutex
	next  map[world.ID]time.Time
}

func newAsker(every time.Duration) *asker {
	return &asker{every: every, next: make(map[world.ID]time.Time)}
}

// due is how long until the host may be asked, and books that time if book is set.
func (a *asker) due(id world.ID, book bool) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	at := a.next[id]
	if at.Before(now) {
		at = now
	}
	if book {
		a.next[id] = at.Add(a.every)
	}
	return at.Sub(now)
}

// later leaves a host time to look at what was just done to it, half of what
// there is between two readings.
func (a *asker) later(id world.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := time.Now().Add(a.every / 2); at.After(a.next[id]) {
		a.next[id] = at
	}
}

// wait returns when the host may be asked.
func (a *asker) wait(ctx context.Context, id world.ID, stop <-chan struct{}) error {
	t := time.NewTimer(a.due(id, true))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget drops hosts that have not been asked for a while.
func (a *asker) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, at := range a.next {
		if time.Since(at) > 10*a.every {
			delete(a.next, id)
		}
	}
}
