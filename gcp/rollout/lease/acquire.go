package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bigdisk/gcp/rollout/state"

	"github.com/google/uuid"
)

// Options are the choices of [Acquire]; zero values are the defaults.
type Options struct {
	// Holder says for people who takes the lease, and Purpose what for.
	Holder, Purpose string
	// TTL is how long after its last heartbeat a controller is taken for dead;
	// 30 seconds by default.
	TTL time.Duration
	// Wait makes Acquire wait for a living holder to go, instead of failing.
	Wait bool
	// Waiting is called when somebody else has the lease and Acquire watches
	// whether they live; nil does nothing.
	Waiting func(state.Lease)
}

const (
	defaultTTL = 30 * time.Second
	// beatsPerTTL is how many heartbeats there are in a TTL.
	beatsPerTTL = 10
	// safeParts is how much of its TTL (in quarters) a holder trusts a lease
	// for: what it sends last has the rest of the time to arrive.
	safeQuarters = 3

	editTries = 20
	editPause = 300 * time.Millisecond
)

func (o *Options) fill() {
	if o.TTL <= 0 {
		o.TTL = defaultTTL
	}
	if o.Waiting == nil {
		o.Waiting = func(state.Lease) {}
	}
}

// Held describes who holds a lease.
func Held(l *state.Lease) string {
	return fmt.Sprintf("%s (%s, since %s, last heartbeat %s)", l.Holder, l.Purpose,
		l.Acquired.UTC().Format(time.RFC3339), l.Renewed.UTC().Format(time.RFC3339))
}

// Acquire takes the lease of a service. If another process has it, Acquire
// watches its heartbeat: it fails with an error that wraps [ErrHeld] as soon as
// there is one, and takes the lease over when there was none for the lease's
// TTL. The Keeper works until it is closed or ctx ends.
func Acquire(ctx context.Context, store Store, service string, o Options) (*Keeper, error) {
	o.fill()
	owner := uuid.NewString()
	var seen watched
	for {
		d, generation, err := Read(ctx, store, service)
		if err != nil {
			return nil, err
		}
		if l := d.Lease; l != nil && l.Owner != owner {
			alive := seen.look(l)
			if alive && !o.Wait {
				return nil, fmt.Errorf("%w: the lease of %s is held by %s", ErrHeld, service, Held(l))
			}
			if !seen.dead() {
				if seen.first {
					o.Waiting(*l)
				}
				if err := Sleep(ctx, min(time.Duration(l.TTL), o.TTL)/beatsPerTTL); err != nil {
					return nil, err
				}
				continue
			}
		}
		k, err := take(ctx, store, service, d, generation, owner, o)
		if err == nil {
			k.start(ctx)
			return k, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, fmt.Errorf("taking the lease of %s: %w", service, err)
		}
		if err := Sleep(ctx, editPause); err != nil {
			return nil, err
		}
	}
}

// take writes the lease into the document as it was read.
func take(ctx context.Context, store Store, service string, d *state.Document, generation int64, owner string, o Options) (*Keeper, error) {
	now := time.Now()
	d.Lease = &state.Lease{
		Owner: owner, Holder: o.Holder, Purpose: o.Purpose, Acquired: now, Renewed: now, Beat: 1, TTL: state.Duration(o.TTL),
	}
	data, err := d.Encode()
	if err != nil {
		return nil, err
	}
	written, err := store.Write(ctx, data, generation)
	if err != nil {
		return nil, err
	}
	return newKeeper(store, service, d, written, now, o.TTL), nil
}

// watched is what was seen of another's lease.
type watched struct {
	owner string
	beat  int64
	since time.Time // when this beat was first seen, by our clock
	ttl   time.Duration
	first bool // this was the first look at this owner
}

// look notes a lease and reports whether it has beaten since the last look.
func (w *watched) look(l *state.Lease) (alive bool) {
	switch {
	case w.owner != l.Owner:
		*w = watched{owner: l.Owner, beat: l.Beat, since: time.Now(), ttl: time.Duration(l.TTL), first: true}
		return false
	case w.beat != l.Beat:
		w.beat, w.since, w.first = l.Beat, time.Now(), false
		return true
	}
	w.first = false
	return false
}

// dead reports whether the lease has stood still for its time to live.
func (w *watched) dead() bool { return time.Since(w.since) >= w.ttl }

// Sleep waits for d, or returns why ctx has ended.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
