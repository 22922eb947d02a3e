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
// not give what they should have, or that are not well with it.
var ErrUnrepaired = errors.New("hosts are left without what they should have")

// errUnderWay ends a reconciliation when there is a rollout to be carried out.
var errUnderWay = errors.New("a rollout is under way")

// repairPause is how long a host that could not be repaired is left alone, and
// how long all are after too many could not.
const repairPause = 10 * time.Minute

// Reconcile compares every host with the version that it should have, by the
// document, and gives it to those that lack it, within the configuration's
// limits. It asks those that have it whether they are well, and says which are not.
// Once every host has it and was asked, or failed, it returns; with watch it goes on
// until ctx ends. When a rollout is under way, and not paused, it returns
// errUnderWay: [Controller.Run] is to carry that out.
func (c *Controller) Reconcile(ctx context.Context, watch bool) error {
	c.pass = &state.Reconcile{At: time.Now(), Failed: map[world.ID]state.Failure{}}
	return c.loop(ctx, func(ctx context.Context) (bool, error) { return c.repair(ctx, watch) })
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
	unasked := c.checkHealth(ctx, watch)
	return c.endPass(ctx, watch, len(todo), unasked)
}

// checkEvery is how often hosts are asked that have what they should.
const checkEvery = 5 * time.Minute

// checkHealth asks some of the hosts that have what they should whether they are
// well: each every few minutes with watch, and otherwise once; those that are not,
// once more. It returns how many are still to be asked before a single pass may
// end.
func (c *Controller) checkHealth(ctx context.Context, watch bool) (unasked int) {
	var due []world.ID
	c.keeper.Look(func(d *state.Document) {
		for id, h := range c.world.Hosts {
			version, _ := d.Desired(id)
			if version == "" || !h.Has(label(version)) || !c.knows(id) || leftAlone(d.Rollout, id) {
				continue
			}
			was := c.watched[id]
			every := checkEvery
			switch {
			case was.at.IsZero(), was.bad > 0 && !was.sick():
				unasked, every = unasked+1, 0
			case !watch:
				continue
			}
			if c.due(id, every) {
				due = append(due, id)
			}
		}
	})
	c.askSome(ctx, due)
	return unasked
}

// sick are the hosts that have what they should and are not well.
func (c *Controller) sick() map[world.ID]state.Failure {
	sick := map[world.ID]state.Failure{}
	for id, w := range c.watched {
		h, here := c.world.Hosts[id]
		switch {
		case !here && c.knows(id):
			delete(c.watched, id)
		case here && w.sick():
			sick[id] = state.Failure{Reason: clip(w.why), At: w.ok, Incarnation: h.Incarnation}
		}
	}
	return sick
}

// logSick tells of hosts that became sick, and of those that are well again.
func (c *Controller) logSick(before, now map[world.ID]state.Failure) {
	for id, f := range now {
		if _, was := before[id]; !was {
			c.opt.Log.Warn("host is sick", "host", id, "why", f.Reason)
		}
	}
	for id := range before {
		if _, still := now[id]; !still {
			c.opt.Log.Info("host is not sick any more", "host", id)
		}
	}
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
			if h.Has(label(version)) && !c.astray(h, version) {
				continue
			}
			goal := hostchange.Goal{Service: c.cfg.Service, Version: version, Reattach: true, Beside: c.cfg.Rollout.KeepPrevious}
			if c.cfg.Rollout.KeepPrevious {
				goal.Keep = previous
			}
			todo[id] = goal
		}
	})
	return todo
}

// astray reports whether a host keeps saying that it runs another version, and has
// that attached above the one that it should run: attaching that once more as the
// last one helps.
func (c *Controller) astray(h *world.Host, version string) bool {
	w := c.watched[h.ID]
	_, below := h.Below(label(version))
	return below && w.sick() && w.runs != "" && !world.SameVersion(c.cfg.Service, version, w.runs)
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
	delete(c.watched, res.host)
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
func (c *Controller) endPass(ctx context.Context, watch bool, todo, unasked int) (bool, error) {
	busy := len(c.changing) > 0 || todo > 0 && c.pass.Stopped == "" || unasked > 0 && !watch
	if c.pass.Stopped == "" && len(c.settled) > 0 {
		c.wanted, busy = true, true
	}
	if busy {
		return false, nil
	}
	sick := c.sick()
	c.logSick(c.pass.Sick, sick)
	c.pass.At, c.pass.Sick = c.world.Taken, sick
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
	case len(done.Sick) > 0:
		return fmt.Errorf("%w: %d of %d are not well", ErrUnrepaired, len(done.Sick), done.Hosts)
	}
	return nil
}
