package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

const (
	// watchEvery is how often a host is asked during a bake, watchBatch how
	// many are in one go, and watchers how many of them at a time.
	watchEvery = 30 * time.Second
	watchBatch = 50
	watchers   = 10
	// heartbeats is how long the hosts' defaults make three heartbeats.
	heartbeats = 15 * time.Minute
	// clockSkew is how far a host's clock may be off.
	clockSkew = 30 * time.Second
	// unwatched is how long a bake may be looked away from before the time does
	// not count.
	unwatched = time.Minute
	// maxRebakes is how often a bake starts over because hosts were changed
	// again: where hosts come and go all the time it would never end.
	maxRebakes = 3
)

// baking is what a controller has seen of a bake.
type baking struct {
	rollout string
	wave    int
	seen    time.Time // when it was last looked at
	again   bool      // it starts over: hosts of the wave are being changed again
	times   int       // how often it has
}

// baked reports whether the wave's bake is over: controllers have watched it for
// as long, and every host has said that it is well.
func (c *Controller) baked(ctx context.Context, r *state.Rollout, now time.Time) bool {
	w := &r.Waves[r.Wave]
	c.countBake(r, now)
	c.watchBake(ctx, r)
	if w.Watched < w.Bake {
		c.waiting = append(c.waiting, fmt.Sprintf("wave %s bakes until %s", w.Name, w.BakeUntil.UTC().Format(time.RFC3339)))
		return false
	}
	unheard := 0
	for id := range r.Done {
		if !c.watched[id].well && r.WaveOf(id) == r.Wave {
			unheard++
		}
	}
	if unheard > 0 {
		c.waiting = append(c.waiting, fmt.Sprintf("%d hosts of wave %s have not said that they are well at the end of the bake", unheard, w.Name))
	}
	return unheard == 0
}

// countBake counts the time that the bake is watched, and starts it over when
// hosts of the wave are changed again. What was counted goes into the document
// with every heartbeat, so that the next controller goes on from there: time that
// nobody watches counts for nothing, and what was watched is not watched again.
func (c *Controller) countBake(r *state.Rollout, now time.Time) {
	w, b := &r.Waves[r.Wave], &c.bake
	why := ""
	if b.rollout != r.ID || b.wave != r.Wave {
		*b = baking{rollout: r.ID, wave: r.Wave, seen: now}
		why = "a new controller watches it"
	}
	gap := now.Sub(b.seen)
	b.seen = now
	if gap > unwatched {
		gap, why = 0, fmt.Sprintf("nobody watched for %s", gap.Round(time.Second))
	}
	watched := w.Watched + state.Duration(gap)
	if c.rebaking(w) {
		watched = 0
		if !b.again {
			b.times++
			why = "hosts are changed again, and it starts over"
		}
		b.again = true
	} else {
		b.again = false
	}
	until := now.Add(time.Duration(w.Bake - min(w.Bake, watched)))
	c.keeper.Touch(func(*state.Document) bool {
		w.Watched = watched
		if later := until.Sub(w.BakeUntil); watched < w.Bake && (later > time.Second || later < -time.Second) {
			w.BakeUntil = until
		}
		if why != "" {
			r.Note(now, fmt.Sprintf("wave %s: %s; baking until %s", w.Name, why, until.UTC().Format(time.RFC3339)))
		}
		return false // it is in every heartbeat
	})
}

// rebaking reports whether hosts of the wave are being changed again. Where that
// was so too often, the bake goes on all the same.
func (c *Controller) rebaking(w *state.Wave) bool {
	changing := false
	for id := range c.changing {
		if w.Members.Has(id) {
			changing = true
			delete(c.watched, id)
		}
	}
	return changing && (c.bake.again || c.bake.times < maxRebakes)
}

// watch is what a host said during a bake.
type watch struct {
	host   world.ID
	report guest.Report
	err    error
}

// watched is what is remembered of it.
type watched struct {
	at   time.Time // when it was asked
	well bool      // whether it then was well
	ok   time.Time // when it was last known to be well, or first asked
	bad  int       // how often in a row it was bad
}

// watchBake asks some of the wave's hosts whether they still are well, those
// first that were not asked for longest.
func (c *Controller) watchBake(ctx context.Context, r *state.Rollout) {
	if c.watching {
		return
	}
	var batch []world.ID
	for id := range r.Done {
		due := time.Since(c.watched[id].at) >= max(watchEvery, c.opt.AskEvery)
		if due && r.WaveOf(id) == r.Wave && c.changing[id] == nil {
			batch = append(batch, id)
		}
	}
	if len(batch) == 0 {
		return
	}
	slices.SortFunc(batch, func(a, b world.ID) int {
		return cmp.Or(c.watched[a].at.Compare(c.watched[b].at), cmp.Compare(a, b))
	})
	batch = batch[:min(len(batch), watchBatch)]
	c.watching = true
	c.spawn(ctx, func() { c.askAll(ctx, batch) })
}

// askAll asks hosts for their reports and sends them to Run.
func (c *Controller) askAll(ctx context.Context, batch []world.ID) {
	said := make([]watch, len(batch))
	var g errgroup.Group
	g.SetLimit(watchers)
	for i, id := range batch {
		g.Go(func() error {
			if err := c.ask.wait(ctx, id, nil); err != nil {
				return err
			}
			report, err := c.cloud.Report(ctx, id)
			said[i] = watch{id, report, err}
			return nil
		})
	}
	if g.Wait() == nil {
		send(ctx, c.watches, said)
	}
}

// asked takes in what hosts said: one that is bad twice in a row has failed.
func (c *Controller) asked(said []watch) {
	c.watching = false
	var r *state.Rollout
	c.keeper.Look(func(d *state.Document) { r = d.Rollout })
	now := time.Now()
	for _, s := range said {
		if c.changing[s.host] != nil {
			continue
		}
		was := c.watched[s.host]
		if was.at = now; was.ok.IsZero() {
			was.ok = now
		}
		why, bad := c.unwell(r, s, was.ok)
		switch was.well = why == ""; {
		case was.well:
			was.bad, was.ok = 0, now
		case bad:
			was.bad++
		}
		c.watched[s.host] = was
		if bad && was.bad >= sickReports && r.Active() && r.Done.Has(s.host) {
			c.opt.Log.Warn("host got worse during the bake", "host", s.host, "why", why)
			c.keeper.Update(func(*state.Document) {
				delete(r.Done, s.host)
				c.failHost(r, s.host, why, c.incarnation(s.host), now)
			})
			delete(c.watched, s.host)
		}
	}
}

// unwell says why a host is not known to be well, "" if it is, and whether that
// is bad rather than something that may pass. ok is when it was last known to
// be well.
func (c *Controller) unwell(r *state.Rollout, s watch, ok time.Time) (why string, bad bool) {
	bound := c.silentAfter(time.Duration(r.Speed.HealthTimeout))
	long := time.Since(ok) > bound
	_, unknown := c.world.Unknown[s.host.Zone()]
	var started time.Time
	if h := c.world.Hosts[s.host]; h != nil {
		started = h.Started
	}
	stamp := s.report.Time.UTC().Format(time.RFC3339)
	switch {
	case errors.Is(s.err, world.ErrGone):
		c.wanted = true // the look finds out whether it is
		return "it is gone", false
	case s.err != nil:
		return fmt.Sprintf("silent since %s: %v", ok.UTC().Format(time.RFC3339), s.err), long && !unknown && c.lookErr == nil
	case !world.SameVersion(c.cfg.Service, r.Version, s.report.Version):
		return fmt.Sprintf("it reports on version %s again", s.report.Version), true
	case s.report.Health == guest.Failed:
		return "the host says: " + s.report.Error, true
	case time.Since(s.report.Time) > bound:
		return "silent since " + stamp, true
	case s.report.Time.Before(started.Add(-clockSkew)):
		return fmt.Sprintf("silent since %s, and started anew at %s", stamp, started.UTC().Format(time.RFC3339)),
			time.Since(started) > time.Duration(r.Speed.HealthTimeout)
	case s.report.Health != guest.OK:
		return fmt.Sprintf("it says %s since %s", s.report.Health, ok.UTC().Format(time.RFC3339)), long
	}
	return "", false
}

// silentAfter is how old a report may be where hosts have so long to report.
func (c *Controller) silentAfter(healthTimeout time.Duration) time.Duration {
	if c.opt.SilentAfter > 0 {
		return c.opt.SilentAfter
	}
	return max(heartbeats, healthTimeout)
}

func (c *Controller) incarnation(id world.ID) uint64 {
	if h := c.world.Hosts[id]; h != nil {
		return h.Incarnation
	}
	return 0
}

// final reports whether trying again will not help.
func final(err error) bool { return errors.Is(err, world.ErrFinal) }
