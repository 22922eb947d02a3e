package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// progress ends the wave once nothing is left to do, and its bake when it is
// over.
func (c *Controller) progress(ctx context.Context, r *state.Rollout, todo int) error {
	w := &r.Waves[r.Wave]
	busy := todo > 0 || len(c.changing) > 0
	now := time.Now()
	switch {
	case w.Changed.IsZero() && (busy || !c.certain(r)):
		return nil
	case w.Changed.IsZero():
		c.keeper.Update(func(*state.Document) {
			w.Changed, w.Watched, w.BakeUntil = now, 0, now.Add(time.Duration(w.Bake))
			c.bake = baking{rollout: r.ID, wave: r.Wave, seen: now}
			if w.Bake > 0 {
				r.Note(now, fmt.Sprintf("wave %s: all hosts changed; baking for %s", w.Name, time.Duration(w.Bake)))
			}
		})
		return c.keeper.Flush(ctx)
	case w.Bake > 0 && !c.baked(ctx, r, now):
		return nil
	case busy || !c.certain(r):
		return nil
	}
	c.opt.Log.Info("wave over", "wave", w.Name)
	c.keeper.Update(func(*state.Document) {
		w.Ended = now
		r.Wave++
		r.Note(now, fmt.Sprintf("wave %s over", w.Name))
	})
	clear(c.watched)
	c.wanted = true
	if r.Wave == len(r.Waves) {
		return c.end(ctx, r)
	}
	return nil
}

// certain reports whether nothing can be left to do that is not known of: the
// fleet was read after the last change ended, and no zone that hosts of the
// wave may be in is unknown.
func (c *Controller) certain(r *state.Rollout) bool {
	for _, zone := range slices.Sorted(maps.Keys(c.world.Unknown)) {
		if c.concerns(r, zone) {
			c.waiting = append(c.waiting, fmt.Sprintf("%s cannot be read: %s", zone, c.world.Unknown[zone]))
		}
	}
	if len(c.waiting) > 0 {
		return false
	}
	if len(c.settled) > 0 {
		c.wanted = true
		return false
	}
	return true
}

// concerns reports whether hosts of the waves so far may be in a zone.
func (c *Controller) concerns(r *state.Rollout, zone world.Zone) bool {
	if r.Wave >= len(r.Waves)-1 {
		return true
	}
	for i := range r.Wave + 1 {
		for id := range r.Waves[i].Members {
			if id.Zone() == zone && !r.Done.Has(id) {
				return true
			}
		}
	}
	return false
}

// end ends the rollout well.
func (c *Controller) end(ctx context.Context, r *state.Rollout) error {
	now := time.Now()
	c.keeper.Update(func(d *state.Document) {
		r.Note(now, fmt.Sprintf("%s to %s done: %d hosts, %d failed", r.Kind, r.Version, len(r.Done), len(r.Failed)))
		d.End(state.Done, "", now)
	})
	c.opt.Log.Info(r.Kind+" done", "version", r.Version, "hosts", len(r.Done), "failed", len(r.Failed))
	return c.keeper.Flush(ctx)
}

// made is what came of making a disk.
type made struct {
	copy    plan.Copy
	version string
	err     error
}

// copyPause is the time before a zone's disks are tried again.
const copyPause = time.Minute

// maxMaking is how many disks are made at a time.
const maxMaking = 20

// makeCopies makes the disks that the hosts to change need and no one has yet.
func (c *Controller) makeCopies(ctx context.Context, version string, todo []world.ID) {
	zones := map[world.Zone][]world.ID{}
	for _, id := range todo {
		if _, has := c.world.Hosts[id].Below(label(version)); has && c.barred[id.Zone()] {
			continue
		}
		zones[id.Zone()] = append(zones[id.Zone()], id)
	}
	seats := c.seatsOf(version)
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		if time.Now().Before(c.retry[zone]) {
			continue
		}
		for _, cp := range seats.Missing(zone, version, zones[zone]) {
			key := string(cp.Zone) + "/" + cp.Name
			if c.making[key] || len(c.making) >= maxMaking {
				continue
			}
			c.making[key] = true
			c.opt.Log.Info("making a disk", "zone", cp.Zone, "disk", cp.Name)
			c.spawn(ctx, func() {
				if err := c.keeper.Fresh(); err != nil {
					return
				}
				send(ctx, c.copies, made{cp, version, c.cloud.CreateDisk(ctx, cp, version)})
			})
		}
	}
}

// copied takes in a disk that was made, or why it was not.
func (c *Controller) copied(m made) {
	zone := m.copy.Zone
	delete(c.making, string(zone)+"/"+m.copy.Name)
	clear(c.seats)
	if m.err == nil {
		id := world.IDOf(zone.Project(), zone.Name(), m.copy.Name)
		c.world.Disks[id] = &world.Disk{ID: id, Version: label(m.version), Copy: m.copy.Copy, Ready: true}
		delete(c.trouble, zone)
		return
	}
	c.opt.Log.Warn("a disk could not be made", "zone", zone, "disk", m.copy.Name, "err", m.err)
	c.trouble[zone] = clip(m.err.Error())
	c.retry[zone] = time.Now().Add(copyPause)
	if final(m.err) && !c.doWithout(zone) {
		c.stuck(fmt.Sprintf("%s: disk %s cannot be made: %v", zone, m.copy.Name, m.err))
	}
}

// doWithout has a rollback go on in a zone where no more disks can be made: there
// the new disk is taken away from hosts that have the old one, although programs
// may have files open on it.
func (c *Controller) doWithout(zone world.Zone) (can bool) {
	if c.barred[zone] {
		return false
	}
	c.keeper.Update(func(d *state.Document) {
		if r := d.Rollout; r.Active() && r.Kind == state.KindRollback && r.Speed.KeepPrevious {
			can = true
			r.Note(time.Now(), fmt.Sprintf("%s: no further disks of %s can be made; hosts that have one lose that of %s", zone, r.Version, r.Previous))
		}
	})
	c.barred[zone] = can
	return can
}

// stuck pauses the rollout for what only people can help with.
func (c *Controller) stuck(reason string) {
	c.keeper.Update(func(d *state.Document) {
		if d.Rollout.Active() && d.Rollout.Phase == state.Running {
			d.Rollout.Stop(clip(reason), time.Now())
		}
	})
}

// sameReport reports whether people would read the same again.
func sameReport(r *state.Rollout, changing map[world.ID]state.Change, waiting []string) bool {
	return maps.Equal(r.Changing, changing) && slices.Equal(r.Waiting, waiting)
}
