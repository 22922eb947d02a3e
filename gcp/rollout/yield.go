package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
)

// What leases are taken for, as people read it.
const (
	purposeRollout   = "rollout"
	purposeRollback  = "rollback"
	purposeReconcile = "reconcile"
)

const (
	// yieldTimeout is how long a reconcile service may take to give its lease
	// away: a host's change ends before its next step, and a step may wait for an
	// operation.
	yieldTimeout = 10 * time.Minute
	// yieldEvery is how often the lease is looked at meanwhile.
	yieldEvery = time.Second
	defaultTTL = 30 * time.Second
)

// claim is one process's wish to carry out a rollout.
type claim struct {
	*Service
	asked *state.Request // what was last asked of a reconcile service
	owner string         // of the lease that it was asked of
	since time.Time
}

// claim takes the lease for a rollout. A reconcile service is asked for it; any
// other controller that is at work is an error that wraps [lease.ErrHeld] and
// says who it is or, with Standby, is waited for.
func (s *Service) claim(ctx context.Context) (*lease.Keeper, error) {
	c := &claim{Service: s, since: time.Now()}
	for {
		k, err := s.acquire(ctx, purposeRollout, false)
		if err == nil {
			k.Update(func(d *state.Document) {
				if q := d.Request; q != nil && q.Action == state.Yield {
					d.Request = nil
				}
			})
		}
		if !errors.Is(err, lease.ErrHeld) {
			return k, err
		}
		if err := c.ask(ctx, err); err != nil {
			return nil, err
		}
		if err := lease.Sleep(ctx, yieldEvery); err != nil {
			return nil, err
		}
	}
}

// ask asks for the lease that somebody holds, once. held is the error to end
// with where that is of no use.
func (c *claim) ask(ctx context.Context, held error) error {
	d, err := c.Document(ctx)
	if err != nil {
		return err
	}
	l := d.Lease
	switch {
	case l == nil:
		return nil
	case l.Purpose != purposeReconcile && c.Standby:
		return nil
	case l.Purpose != purposeReconcile:
		return held
	case l.Owner != c.owner:
		c.asked, c.owner = &state.Request{ID: uuid.NewString(), Action: state.Yield, By: c.Holder, At: time.Now()}, l.Owner
		c.Options.Log.Info("asking the reconcile service for its lease", "holder", lease.Held(l))
	case d.Answered == c.asked.ID && d.Answer != "" && !c.Standby:
		return fmt.Errorf("%w: %s", held, d.Answer)
	case d.Answered == c.asked.ID:
		return nil
	case time.Since(c.since) > yieldTimeout:
		return fmt.Errorf("%w, and has not given it away for %s", held, yieldTimeout)
	}
	return c.write(ctx)
}

// write puts the request into the document, unless there is one of somebody
// else: that is dealt with first.
func (c *claim) write(ctx context.Context) error {
	errTaken := errors.New("there is no place for it")
	_, err := lease.Edit(ctx, c.Store, c.Config.Service, func(d *state.Document) error {
		if d.Lease == nil || d.Lease.Owner != c.owner || d.Request != nil || d.Answered == c.asked.ID {
			return errTaken
		}
		d.Request = c.asked
		return nil
	})
	if errors.Is(err, errTaken) {
		return nil
	}
	return err
}

// acquire takes the lease, unless the document is another fleet's.
func (s *Service) acquire(ctx context.Context, purpose string, wait bool) (*lease.Keeper, error) {
	s.Options.fill()
	d, err := s.Document(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.Foreign(s.Config); err != nil {
		return nil, err
	}
	k, err := lease.Acquire(ctx, s.Store, s.Config.Service, lease.Options{
		Holder: s.Holder, Purpose: purpose, TTL: s.TTL, Wait: wait,
		Waiting: func(l state.Lease) {
			if s.waitingFor != l.Owner {
				s.waitingFor = l.Owner
				s.Options.Log.Info("the lease is held; watching whether its holder lives", "holder", lease.Held(&l))
			}
		},
	})
	if err != nil || !wait {
		return k, err
	}
	k.Look(func(d *state.Document) { err = d.Foreign(s.Config) }) // it may have been another one before the wait
	if err != nil {
		return nil, s.hold(ctx, k, func(*lease.Keeper) error { return err })
	}
	return k, nil
}

// leave waits until who asked for the lease has had the time to take it.
func (s *Service) leave(ctx context.Context) error {
	ttl := s.TTL
	if ttl <= 0 {
		ttl = defaultTTL
	}
	s.Options.Log.Info("the lease is given to who asked for it; it is taken back when the rollout is over, or its controller dies")
	return lease.Sleep(ctx, ttl)
}
