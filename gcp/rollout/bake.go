package rollout

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

const (
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
	unheard, example := 0, world.ID("")
	for id := range r.Done {
		if !c.watched[id].well && r.WaveOf(id) == r.Wave {
			if unheard++; example == "" || id < example {
				example = id
			}
		}
	}
	if unheard > 0 {
		c.waiting = append(c.waiting, fmt.Sprintf("%d hosts of wave %s have not said that they are well at the end of the bake; %s: %s",
			unheard, w.Name, example, cmp.Or(clip(c.watched[example].why), "not asked yet")))
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

// watchBake asks some of the wave's hosts whether they still are well.
func (c *Controller) watchBake(ctx context.Context, r *state.Rollout) {
	var due []world.ID
	for id := range r.Done {
		if r.WaveOf(id) == r.Wave && c.due(id, watchEvery) {
			due = append(due, id)
		}
	}
	c.askSome(ctx, due)
}

// worse takes in a host of the rollout that is not well any more.
func (c *Controller) worse(r *state.Rollout, id world.ID, why string, now time.Time) {
	if !r.Active() || !r.Done.Has(id) {
		return
	}
	c.opt.Log.Warn("host got worse during the bake", "host", id, "why", why)
	c.keeper.Update(func(*state.Document) {
		delete(r.Done, id)
		c.failHost(r, id, why, c.incarnation(id), now)
	})
	delete(c.watched, id)
}

func (c *Controller) incarnation(id world.ID) uint64 {
	if h := c.world.Hosts[id]; h != nil {
		return h.Incarnation
	}
	return 0
}
