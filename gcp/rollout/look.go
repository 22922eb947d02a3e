package rollout

import (
	"context"
	"fmt"
	"maps"
	"time"

	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// look is what came of a look at the fleet.
type look struct {
	world *world.World
	err   error
}

// soon is the least time between two looks.
const soon = 5 * time.Second

// staleLooks is how many looks may fail before no further host is begun.
const staleLooks = 6

// lookAgain begins a look at the fleet where one is due.
func (c *Controller) lookAgain(ctx context.Context) {
	since := time.Since(c.tried)
	due := c.world == nil || since >= c.opt.LookEvery || c.wanted
	if c.looking || !due || !c.tried.IsZero() && since < min(soon, c.opt.LookEvery) {
		return
	}
	c.looking, c.wanted, c.tried = true, false, time.Now()
	c.spawn(ctx, func() {
		began := time.Now()
		w, err := c.cloud.Look(ctx)
		if err == nil {
			w.Taken = began
		}
		send(ctx, c.looks, look{w, err})
	})
}

// spawn runs f beside Run, which waits for it in the end.
func (c *Controller) spawn(ctx context.Context, f func()) {
	c.work.Go(f)
}

// send gives v to Run unless that is ending.
func send[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}

// saw takes in a look.
func (c *Controller) saw(l look) {
	c.looking = false
	if c.lookErr = l.err; l.err != nil {
		c.opt.Log.Warn("the fleet cannot be read", "err", l.err)
		c.wanted = true
		return
	}
	c.tellClock()
	c.world, c.order = l.world, nil
	clear(c.seats)
	maps.DeleteFunc(c.settled, func(_ world.ID, s settled) bool { return s.at.Before(c.world.Taken) })
	c.ask.forget()
	for _, d := range c.world.Disks {
		if !d.Ready && !d.Failed {
			c.wanted = true
		}
	}
	c.keeper.Touch(c.takeIn)
}

// tellClock says once that this machine's clock is wrong. No host is judged by it,
// but the times that people read are.
func (c *Controller) tellClock() {
	ahead := time.Until(c.cloud.Now())
	if c.world == nil && (ahead > clockSkew || ahead < -clockSkew) {
		c.opt.Log.Warn("this machine's clock is wrong; the times of the rollout's events are by it", "slow", ahead.Round(time.Second))
	}
}

// takeIn brings the document in line with the world: zones, hosts that are no
// longer there, and hosts that lost their disk, which are to be changed again.
func (c *Controller) takeIn(d *state.Document) bool {
	zones := c.zones()
	edited, before := !maps.Equal(zones, d.Zones), d.Zones
	d.Zones = zones
	r := d.Rollout
	if !r.Active() {
		return edited
	}
	for zone, z := range before {
		if _, there := zones[zone]; !there && z.Hosts > 0 {
			r.Note(time.Now(), fmt.Sprintf("%s is not in the configuration any more: its %d hosts stay as they are", zone, z.Hosts))
			c.opt.Log.Warn("a zone is not in the configuration any more; its hosts stay as they are", "zone", zone, "hosts", z.Hosts)
		}
	}
	done := len(r.Done)
	for id := range r.Done {
		if c.lacks(r, id) {
			delete(r.Done, id)
			edited = true
		}
	}
	if lost := done - len(r.Done); lost > plan.FailuresAllowed(r, done) {
		r.Note(time.Now(), fmt.Sprintf("%d of the %d hosts that were done are gone, or have not their disk any more: is hosts.filter still right?", lost, done))
		c.opt.Log.Warn("hosts that were done are gone, or have not their disk any more", "hosts", lost, "of", done)
	}
	for id, f := range r.Failed {
		h, here := c.world.Hosts[id]
		recreated := here && f.Incarnation != 0 && h.Incarnation != f.Incarnation
		if c.knows(id) && (!here || recreated) {
			delete(r.Failed, id)
			edited = true
		}
	}
	return edited
}

// knows reports whether the last look tells of a host as it is now.
func (c *Controller) knows(id world.ID) bool {
	_, unknown := c.world.Unknown[id.Zone()]
	_, later := c.settled[id]
	return !unknown && !later && c.changing[id] == nil
}

// lacks reports whether a host that was done is gone or has not its disk any
// more, as when its group made it anew.
func (c *Controller) lacks(r *state.Rollout, id world.ID) bool {
	if !c.knows(id) {
		return false
	}
	h, here := c.world.Hosts[id]
	return !here || !h.Has(label(r.Version))
}

func (c *Controller) zones() map[world.Zone]state.Zone {
	zones := map[world.Zone]state.Zone{}
	for _, t := range c.cfg.Targets {
		for _, z := range t.Zones {
			zone := world.ZoneOf(t.Project, z.Name)
			zones[zone] = state.Zone{Unknown: c.world.Unknown[zone]}
		}
	}
	for id := range c.world.Hosts {
		z := zones[id.Zone()]
		z.Hosts++
		zones[id.Zone()] = z
	}
	return zones
}

// hosts lists the hosts in the rollout's order.
func (c *Controller) hosts(r *state.Rollout) []world.ID {
	if c.order == nil {
		c.order = plan.Turn(r, c.world)
	}
	return c.order
}

// seatsOf counts the readers of a version's disks, with the hosts in change and
// those changed since the last look.
func (c *Controller) seatsOf(version string) *plan.Seats {
	if s := c.seats[version]; s != nil {
		return s
	}
	promised := map[world.ID]world.ID{}
	for id, s := range c.settled {
		promised[id] = s.disk
	}
	for id, ch := range c.changing {
		promised[id] = ch.disk
	}
	s := plan.NewSeats(c.cfg, version, c.world, promised, c.beside())
	c.seats[version] = s
	return s
}

// beside reports whether what hosts may use stays attached beside what they are
// given.
func (c *Controller) beside() (keep bool) {
	keep = c.cfg.Rollout.KeepPrevious
	c.keeper.Look(func(d *state.Document) {
		if r := d.Rollout; r.Active() && r.Phase == state.Running {
			keep = r.Speed.KeepPrevious
		}
	})
	return keep
}

// stale says why the world is too old to begin with further hosts; "" if it is
// not.
func (c *Controller) stale() string {
	age := time.Since(c.world.Taken)
	if age < staleLooks*c.opt.LookEvery {
		return ""
	}
	return fmt.Sprintf("the fleet could not be read for %s: %v", age.Round(time.Second), c.lookErr)
}
