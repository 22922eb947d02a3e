package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/hostchange"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// label is what disks carry for a version.
func label(version string) string {
	if version == "" {
		return ""
	}
	return fleet.LabelValue(version)
}

// wave goes on with the wave under way.
func (c *Controller) wave(ctx context.Context, r *state.Rollout) error {
	c.waiting = nil
	if r.Wave == len(r.Waves) {
		return c.end(ctx, r)
	}
	if r.Waves[r.Wave].Started.IsZero() {
		if begun, err := c.beginWave(ctx, r); !begun || err != nil {
			return err
		}
	}
	if c.judge(r) {
		return nil
	}
	if why := c.stale(); why != "" {
		c.waiting = append(c.waiting, why)
		return nil
	}
	todo := c.todo(r)
	if len(todo) == 0 && c.barren(r) {
		return nil
	}
	c.makeCopies(ctx, r.Version, todo)
	c.admit(ctx, &r.Speed, todo, func(id world.ID) *change { return c.changeOf(r, id) })
	return c.progress(ctx, r, len(todo))
}

// beginWave fixes the wave's members, and writes them down before any is changed.
// It waits until all zones can be read, or else the members would be of some zones
// only; the last wave is for everyone, and begins with the hosts that there are.
func (c *Controller) beginWave(ctx context.Context, r *state.Rollout) (begun bool, err error) {
	now := time.Now()
	hosts := c.hosts(r)
	if last := r.Wave == len(r.Waves)-1; len(c.world.Unknown) > 0 && (!last || len(hosts) == 0) {
		for _, zone := range slices.Sorted(maps.Keys(c.world.Unknown)) {
			c.waiting = append(c.waiting, fmt.Sprintf("the hosts of wave %s cannot be chosen: %s cannot be read: %s", r.Waves[r.Wave].Name, zone, c.world.Unknown[zone]))
		}
		return false, nil
	}
	if len(hosts) == 0 {
		c.stuck(fmt.Sprintf("no host matches the filter %q: there is nothing to roll out to", c.cfg.Hosts.Filter))
		return false, nil
	}
	sizes := plan.Sizes(r.Speed.Waves, len(hosts))
	c.keeper.Update(func(*state.Document) {
		for i := range r.Waves {
			if r.Waves[i].Started.IsZero() {
				r.Waves[i].Size = sizes[i]
			}
		}
		w := &r.Waves[r.Wave]
		w.Started, w.Members = now, plan.Members(r, r.Wave, hosts)
		if w.Members != nil {
			w.Size = len(w.Members)
		}
		r.Note(now, fmt.Sprintf("wave %s begun with %d hosts", w.Name, w.Size))
	})
	w := &r.Waves[r.Wave]
	c.opt.Log.Info("wave begun", "wave", w.Name, "hosts", w.Size, "version", r.Version)
	return true, c.keeper.Flush(ctx)
}

// barren pauses the rollout when the wave had hosts and all changes have ended,
// and none of them is done: they are gone or failed, and nothing is known of
// the version. The wave chooses other hosts when somebody resumes.
func (c *Controller) barren(r *state.Rollout) bool {
	w := &r.Waves[r.Wave]
	if w.Changed.IsZero() || w.Size == 0 || len(c.changing) > 0 {
		return false
	}
	for id := range r.Done {
		if r.WaveOf(id) == r.Wave {
			return false
		}
	}
	reason := fmt.Sprintf("none of the %d hosts of wave %s is done: they are gone or failed; after resume it takes others", w.Size, w.Name)
	c.opt.Log.Warn("a wave without a healthy host", "wave", w.Name)
	c.keeper.Update(func(*state.Document) {
		*w = state.Wave{WaveConfig: w.WaveConfig}
		r.Stop(reason, time.Now())
	})
	return true
}

// todo lists the hosts that the waves so far have still to change, those that
// have the disk already first: an earlier controller was at them. Those that a
// rollback seems to have nothing to do with come after them, and are asked like
// all others: what they have attached does not say that it works. Sick ones come
// last.
func (c *Controller) todo(r *state.Rollout) []world.ID {
	var begun, fresh, right, sick []world.ID
	for _, id := range c.hosts(r) {
		_, bad := r.Failed[id]
		h, here := c.world.Hosts[id]
		if bad || !here || r.Done.Has(id) || c.changing[id] != nil || c.settled[id].seatless || !plan.InWave(r, r.Wave, id) {
			continue
		}
		has := h.Has(label(r.Version))
		switch {
		case r.Sick.Has(id):
			sick = append(sick, id)
		case has && r.Kind == state.KindRollback && !h.Has(label(r.Previous)) && c.knows(id):
			right = append(right, id)
		case has:
			begun = append(begun, id)
		default:
			fresh = append(fresh, id)
		}
	}
	return slices.Concat(begun, fresh, right, sick)
}

// busy lists the hosts that count as being in change: those that are, and those
// that were told to stop halfway and may still be taking in what was done to them.
func (c *Controller) busy() world.Set {
	busy := world.Set{}
	for id := range c.changing {
		busy.Add(id)
	}
	for id, until := range c.halfway {
		if time.Now().After(until) {
			delete(c.halfway, id)
			continue
		}
		busy.Add(id)
	}
	return busy
}

// admit begins with as many hosts as the limits allow.
func (c *Controller) admit(ctx context.Context, s *state.Speed, todo []world.ID, make func(world.ID) *change) {
	perZone, hosts, busy := map[world.Zone]int{}, map[world.Zone]int{}, c.busy()
	for id := range busy {
		perZone[id.Zone()]++
	}
	for id := range c.world.Hosts {
		hosts[id.Zone()]++
	}
	seatless := map[world.Zone]int{}
	for _, id := range todo {
		zone := id.Zone()
		if !busy.Has(id) && (len(busy) >= s.MaxConcurrent || perZone[zone] >= plan.PerZone(s, hosts[zone])) {
			continue
		}
		ch := make(id)
		if ch.disk == "" {
			seatless[zone]++
			continue
		}
		if !busy.Has(id) {
			busy.Add(id)
			perZone[zone]++
		}
		c.begin(ctx, ch)
	}
	for _, zone := range slices.Sorted(maps.Keys(seatless)) {
		text := fmt.Sprintf("%s: hosts wait for a disk", zone)
		if why := c.trouble[zone]; why != "" {
			text += ": " + why
		}
		c.waiting = append(c.waiting, text)
	}
}

// changeOf makes a host's change in a rollout. Its disk is empty if there is no
// seat for it.
func (c *Controller) changeOf(r *state.Rollout, id world.ID) *change {
	goal := hostchange.Goal{Service: c.cfg.Service, Version: r.Version, Reattach: r.Reattach, Beside: r.Speed.KeepPrevious}
	if r.Kind == state.KindRollback {
		goal.Leave = r.Previous
	}
	if r.Speed.KeepPrevious {
		goal.Keep = r.Previous
	}
	ch := c.newChange(id, goal, time.Duration(r.Speed.HealthTimeout))
	if ch.disk == "" && r.Kind == state.KindRollback && c.barred[id.Zone()] {
		ch.disk, _ = c.seatsOf(goal.Version).Stay(id)
		ch.goal.Beside = false
	}
	ch.rollout = r.ID
	return ch
}

func (c *Controller) newChange(id world.ID, goal hostchange.Goal, timeout time.Duration) *change {
	ch := &change{
		host: id, goal: goal, timeout: timeout, silent: c.silentAfter(timeout), stop: c.stop, cloud: c.cloud, fresh: c.keeper.Fresh, ask: c.ask,
	}
	ch.disk, _ = c.seatsOf(goal.Version).Take(id)
	return ch
}

// begin runs a change beside Run.
func (c *Controller) begin(ctx context.Context, ch *change) {
	ch.began = time.Now()
	ch.setStep("reading it")
	c.changing[ch.host] = ch
	c.spawn(ctx, func() { send(ctx, c.results, ch.run(ctx)) })
}

// finished takes in what came of a change.
func (c *Controller) finished(res result) {
	ch := c.changing[res.host]
	delete(c.changing, res.host)
	now := time.Now()
	c.settled[res.host] = settled{at: now, disk: ch.disk}
	delete(c.halfway, res.host)
	if _, unknown := c.world.Unknown[res.host.Zone()]; res.outcome == failed && (unknown || c.lookErr != nil) {
		res.outcome = stopped // it is not known what became of it: the zone cannot be read
	}
	c.log(res, ch)
	switch res.outcome {
	case gone:
		delete(c.world.Hosts, res.host)
		c.order = nil
		return
	case stopped:
		if res.mutations > 0 {
			c.halfway[res.host] = now.Add(ch.timeout)
		}
		return
	case seatless:
		c.settled[res.host] = settled{at: now, seatless: true}
		c.wanted = true
		return
	}
	if res.rollout == "" {
		c.repaired(res, now)
		return
	}
	c.keeper.Update(func(d *state.Document) {
		r := d.Rollout
		if r == nil || r.ID != res.rollout {
			return
		}
		if res.outcome == changed {
			r.Done.Add(res.host)
			delete(r.Failed, res.host)
			return
		}
		delete(r.Done, res.host)
		c.failHost(r, res.host, res.reason, res.incarnation, now)
	})
}

// failHost remembers that a host failed.
func (c *Controller) failHost(r *state.Rollout, id world.ID, reason string, incarnation uint64, now time.Time) {
	if r.Failed == nil {
		r.Failed = map[world.ID]state.Failure{}
	}
	r.Failed[id] = state.Failure{Reason: clip(reason), At: now, Wave: r.Wave, Incarnation: incarnation}
}

// maxReason bounds what is remembered of one failure, in bytes.
const maxReason = 500

func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return s[:maxReason] + "…"
}

func (c *Controller) log(res result, ch *change) {
	took := time.Since(ch.began).Round(time.Second)
	switch res.outcome {
	case changed:
		c.opt.Log.Info("host done", "host", res.host, "version", ch.goal.Version, "took", took)
	case failed:
		c.opt.Log.Warn("host failed", "host", res.host, "version", ch.goal.Version, "took", took, "why", res.reason)
	case gone:
		c.opt.Log.Info("host is gone", "host", res.host)
	}
}

// judge pauses the rollout or turns it back when too many hosts of the wave
// failed.
func (c *Controller) judge(r *state.Rollout) (over bool) {
	w := &r.Waves[r.Wave]
	count, example := 0, world.ID("")
	for id, f := range r.Failed {
		if f.Wave == r.Wave {
			count++
			if example == "" || id < example {
				example = id
			}
		}
	}
	allowed := plan.FailuresAllowed(r, w.Size)
	reason := fmt.Sprintf("%d hosts of wave %s failed, and %d of %d may; %s: %s", count, w.Name, allowed, w.Size, example, r.Failed[example].Reason)
	switch {
	case count > allowed:
	case count > 0 && count >= w.Size:
		reason = fmt.Sprintf("every host of wave %s failed; %s: %s", w.Name, example, r.Failed[example].Reason)
	default:
		return false
	}
	c.opt.Log.Warn("too many hosts failed", "wave", w.Name, "failed", count, "allowed", allowed, "then", r.Speed.OnFailure)
	c.stumble(r, reason)
	return true
}

// stumble does what the configuration says about failures.
func (c *Controller) stumble(r *state.Rollout, reason string) {
	now := time.Now()
	back := r.Speed.OnFailure == fleet.OnFailureRollback && r.Kind == state.KindRollout
	c.keeper.Update(func(d *state.Document) {
		if !back || r.Previous == "" {
			if back {
				reason += "; there is no version before it to go back to"
			}
			r.Stop(reason, now)
			return
		}
		speed := state.RollbackSpeed(r.Speed)
		d.Request = &state.Request{ID: uuid.NewString(), Action: state.Rollback, At: now, Reason: reason, Plan: &speed}
	})
}
