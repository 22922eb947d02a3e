package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bigdisk/gcp/rollout/hostchange"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// ErrUnrepaired is wrapped by errors about hosts that a reconciliation could
// not give what they should have.
var ErrUnrepaired = errors.New("hosts are left without what they should have")

// errUnderWay ends a reconciliation when there is a rollout to be carried out.
var errUnderWay = errors.New("a rollout is under way")

// repairPause is how long a host that could not be repaired is left alone, and
// how long all are after too many could not.
const repairPause = 10 * time.Minute

// Reconcile compares every host with the version that it should have, by the
// document, and gives it to those that lack it, within the configuration's
// limits. Once every host has it, or failed, it returns; with watch it goes on
// until ctx ends. When a rollout is under way, and not paused, it returns
// errUnderWay: [Controller.Run] is to carry that out.
func (c *Controller) Reconcile(ctx context.Context, watch bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.work.Wait()
	defer cancel()
	if err := c.settle(ctx); err != nil {
		return err
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	pass := &state.Reconcile{At: time.Now(), Failed: map[world.ID]state.Failure{}}
	c.pass = pass
	for {
		ended, err := c.repair(ctx, watch)
		if ended || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.keeper.Lost():
			return c.keeper.Fresh()
		case <-c.keeper.Changed():
		case r := <-c.results:
			c.finished(r)
		case l := <-c.looks:
			c.saw(l)
		case d := <-c.copies:
			c.copied(d)
		case <-ticker.C:
		}
	}
}

// repair goes on with the pass.
func (c *Controller) repair(ctx context.Context, watch bool) (ended bool, err error) {
	if c.answer(); c.yielded {
		return true, errYielded
	}
	c.lookAgain(ctx)
	var asked, running bool
	c.keeper.Look(func(d *state.Document) {
		asked, running = d.Request != nil, d.Rollout.Active() && d.Rollout.Phase == state.Running
	})
	switch {
	case running && len(c.changing) == 0:
		return true, errUnderWay
	case running || asked:
		return false, nil // hosts in change end first
	}
	if c.world == nil || c.stale() != "" {
		return false, nil
	}
	speed := state.SpeedOf(c.cfg.Rollout)
	todo := c.wrong()
	c.pass.Hosts, c.pass.Right = len(c.world.Hosts), len(c.world.Hosts)-len(todo)-len(c.changing)
	c.waiting = nil
	if allowed := plan.FailuresAllowed(&state.Rollout{Speed: speed}, len(c.world.Hosts)); len(c.pass.Failed) > allowed {
		c.pass.Stopped = fmt.Sprintf("%d hosts could not be repaired, and %d of %d may fail", len(c.pass.Failed), allowed, len(c.world.Hosts))
		todo = nil
	}
	for version, hosts := range todo.byVersion() {
		c.makeCopies(ctx, version, hosts)
		c.admit(ctx, &speed, hosts, func(id world.ID) *change {
			return c.newChange(id, todo[id], time.Duration(speed.HealthTimeout))
		})
	}
	return c.endPass(ctx, watch, len(todo))
}

// goals are what hosts lack.
type goals map[world.ID]hostchange.Goal

func (g goals) byVersion() map[string][]world.ID {
	hosts := map[string][]world.ID{}
	for id, goal := range g {
		hosts[goal.Version] = append(hosts[goal.Version], id)
	}
	for version, ids := range hosts {
		hosts[version] = plan.Order(version, ids)
	}
	return hosts
}

// wrong finds the hosts that have not what they should. Those that failed in
// this pass, or not long ago, are left alone.
func (c *Controller) wrong() goals {
	todo := goals{}
	c.keeper.Look(func(d *state.Document) {
		for id, h := range c.world.Hosts {
			if leftAlone(d.Rollout, id) {
				continue
			}
			version, previous := d.Desired(id)
			if f, bad := c.pass.Failed[id]; version == "" || !c.knows(id) || bad && f.Incarnation == h.Incarnation {
				continue
			}
			if goal := (hostchange.Goal{Service: c.cfg.Service, Version: version, Reattach: true, Beside: c.cfg.Rollout.KeepPrevious}); !h.Has(label(version)) {
				if c.cfg.Rollout.KeepPrevious {
					goal.Keep = previous
				}
				todo[id] = goal
			}
		}
	})
	return todo
}

// leftAlone reports whether a host is a paused rollout's business: one that
// failed, or that a rollback has still to take back and that should not get the
// version that is being taken away.
func leftAlone(r *state.Rollout, id world.ID) bool {
	if !r.Active() {
		return false
	}
	_, bad := r.Failed[id]
	return bad || r.Kind == state.KindRollback && !r.Done.Has(id)
}

// repaired takes in what came of a host's repair.
func (c *Controller) repaired(res result, now time.Time) {
	if res.outcome == failed {
		c.pass.Failed[res.host] = state.Failure{Reason: clip(res.reason), At: now, Incarnation: res.incarnation}
		return
	}
	if res.mutations > 0 {
		c.pass.Repaired++
	}
}

// endPass writes down what the pass has come to, and ends it where it is to
// end.
func (c *Controller) endPass(ctx context.Context, watch bool, todo int) (bool, error) {
	busy := len(c.changing) > 0 || todo > 0 && c.pass.Stopped == ""
	if c.pass.Stopped == "" && len(c.settled) > 0 {
		c.wanted, busy = true, true
	}
	if busy {
		return false, nil
	}
	c.pass.At = c.world.Taken
	done := *c.pass
	done.Failed = map[world.ID]state.Failure{}
	for id, f := range c.pass.Failed {
		done.Failed[id] = f
		if watch && time.Since(f.At) > repairPause {
			delete(c.pass.Failed, id)
		}
	}
	if watch && len(c.pass.Failed) == 0 {
		c.pass.Stopped = ""
	}
	c.keeper.Touch(func(d *state.Document) bool {
		d.Reconcile = &done
		return true
	})
	if watch {
		return false, nil
	}
	if err := c.keeper.Flush(ctx); err != nil {
		return false, err
	}
	return true, c.unrepaired(&done)
}

// unrepaired is the error of a single pass that could not repair everything.
func (c *Controller) unrepaired(done *state.Reconcile) error {
	switch {
	case done.Stopped != "":
		return fmt.Errorf("%w: %s", ErrUnrepaired, done.Stopped)
	case len(done.Failed) > 0:
		return fmt.Errorf("%w: %d of %d failed", ErrUnrepaired, len(done.Failed), done.Hosts)
	case len(c.world.Unknown) > 0:
		return fmt.Errorf("%w: %d zones cannot be read", ErrUnrepaired, len(c.world.Unknown))
	}
	return nil
}
