package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// watchEvery is how often a host is asked during a bake, and watchBatch how
// many are in one go.
const (
	watchEvery = 30 * time.Second
	watchBatch = 10
)

// watch is what a host said during a bake.
type watch struct {
	host   world.ID
	report guest.Report
	err    error
}

// watched is what is remembered of it.
type watched struct {
	at  time.Time
	bad int // how often in a row it was bad
}

// watchBake asks some of the wave's hosts whether they still are well.
func (c *Controller) watchBake(ctx context.Context, r *state.Rollout) {
	if c.watching {
		return
	}
	var batch []world.ID
	for id := range r.Done {
		due := time.Since(c.watched[id].at) >= max(watchEvery, c.opt.AskEvery)
		if due && r.WaveOf(id) == r.Wave && c.changing[id] == nil {
			if batch = append(batch, id); len(batch) == watchBatch {
				break
			}
		}
	}
	if len(batch) == 0 {
		return
	}
	c.watching = true
	c.spawn(ctx, func() {
		var said []watch
		for _, id := range batch {
			if c.ask.wait(ctx, id, nil) != nil {
				return
			}
			report, err := c.cloud.Report(ctx, id)
			said = append(said, watch{id, report, err})
		}
		send(ctx, c.watches, said)
	})
}

// asked takes in what hosts said: one that is bad twice in a row has failed.
func (c *Controller) asked(said []watch) {
	c.watching = false
	var r *state.Rollout
	c.keeper.Look(func(d *state.Document) { r = d.Rollout })
	now := time.Now()
	for _, s := range said {
		was := c.watched[s.host]
		was.at = now
		why := c.unwell(r, s)
		if why == "" {
			was.bad = 0
		} else if was.bad++; was.bad >= sickReports && r.Active() && r.Done.Has(s.host) {
			c.opt.Log.Warn("host got worse during the bake", "host", s.host, "why", why)
			c.keeper.Update(func(*state.Document) {
				delete(r.Done, s.host)
				c.failHost(r, s.host, why, c.incarnation(s.host), now)
			})
		}
		c.watched[s.host] = was
	}
}

// unwell says what is wrong with a host; "" if nothing is known to be.
func (c *Controller) unwell(r *state.Rollout, s watch) string {
	switch {
	case s.err != nil:
		return ""
	case !world.SameVersion(c.cfg.Service, r.Version, s.report.Version):
		return fmt.Sprintf("it reports on version %s again", s.report.Version)
	case s.report.Health == guest.Failed:
		return "the host says: " + s.report.Error
	}
	return ""
}

func (c *Controller) incarnation(id world.ID) uint64 {
	if h := c.world.Hosts[id]; h != nil {
		return h.Incarnation
	}
	return 0
}

// final reports whether trying again will not help.
func final(err error) bool { return errors.Is(err, world.ErrFinal) }
