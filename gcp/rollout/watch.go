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
	// watchEvery is how often a host is asked that is watched closely, watchBatch
	// how many are in one go, and watchers how many of them at a time.
	watchEvery = 30 * time.Second
	watchBatch = 50
	watchers   = 10
	// heartbeats is how long the hosts' defaults make three heartbeats.
	heartbeats = 15 * time.Minute
	// clockSkew is how far a host's clock may be off from Compute Engine's.
	clockSkew = 30 * time.Second
)

// watch is what a host said when it was asked whether it is well.
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
	why  string    // why it was not well
	runs string    // the version that it says it runs
}

// sick reports whether the host was bad often enough to be believed.
func (w watched) sick() bool { return w.bad >= sickReports }

// expected is what a host should say.
type expected struct {
	version string
	timeout time.Duration // the time that it has to come to it
}

// due reports whether a host may be asked that is asked every so long.
func (c *Controller) due(id world.ID, every time.Duration) bool {
	return c.changing[id] == nil && time.Since(c.watched[id].at) >= max(every, c.opt.AskEvery)
}

// askSome asks some hosts whether they are well, those first that were not asked
// for longest.
func (c *Controller) askSome(ctx context.Context, hosts []world.ID) {
	if c.watching || len(hosts) == 0 {
		return
	}
	slices.SortFunc(hosts, func(a, b world.ID) int {
		return cmp.Or(c.watched[a].at.Compare(c.watched[b].at), cmp.Compare(a, b))
	})
	batch := hosts[:min(len(hosts), watchBatch)]
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

// asked takes in what hosts said: one that is bad twice in a row is sick.
func (c *Controller) asked(said []watch) {
	c.watching = false
	now := time.Now()
	for _, s := range said {
		if c.changing[s.host] != nil {
			continue
		}
		was := c.watched[s.host]
		if was.at = now; was.ok.IsZero() {
			was.ok = now
		}
		var r *state.Rollout
		should := expected{timeout: c.cfg.Rollout.HealthTimeout}
		c.keeper.Look(func(d *state.Document) {
			r = d.Rollout
			if should.version, _ = d.Desired(s.host); c.pass == nil {
				should = expected{r.Version, time.Duration(r.Speed.HealthTimeout)}
			}
		})
		why, bad := c.unwell(should, s, was.ok)
		switch was.well = why == ""; {
		case was.well:
			was.bad, was.ok = 0, now
		case bad:
			was.bad++
		}
		was.why, was.runs = why, s.report.Current
		c.watched[s.host] = was
		if bad && was.sick() && c.pass == nil {
			c.worse(r, s.host, why, now)
		}
	}
}

// unwell says why a host is not known to be well, "" if it is, and whether that
// is bad rather than something that may pass. ok is when it was last known to
// be well.
func (c *Controller) unwell(should expected, s watch, ok time.Time) (why string, bad bool) {
	bound := c.silentAfter(should.timeout)
	long := time.Since(ok) > bound
	_, unknown := c.world.Unknown[s.host.Zone()]
	var started time.Time
	if h := c.world.Hosts[s.host]; h != nil {
		started = h.Started
	}
	now := c.cloud.Now() // by the clock of what is compared with it
	stamp := s.report.Time.UTC().Format(time.RFC3339)
	switch {
	case errors.Is(s.err, world.ErrGone):
		c.wanted = true // the look finds out whether it is
		return "it is gone", false
	case errors.Is(s.err, guest.ErrNone) && c.pass != nil && !started.IsZero() && now.Sub(started) > bound:
		return "no report since it started at " + started.UTC().Format(time.RFC3339), true
	case s.err != nil:
		return fmt.Sprintf("silent since %s: %v", ok.UTC().Format(time.RFC3339), s.err), long && !unknown && c.lookErr == nil
	case !world.SameVersion(c.cfg.Service, should.version, s.report.Version):
		return fmt.Sprintf("it reports on version %s", s.report.Version), true
	case s.report.Health == guest.Failed:
		return "the host says: " + s.report.Error, true
	case now.Sub(s.report.Time) > bound:
		return "silent since " + stamp, true
	case s.report.Time.Before(started.Add(-clockSkew)):
		return fmt.Sprintf("silent since %s, and started anew at %s", stamp, started.UTC().Format(time.RFC3339)),
			now.Sub(started) > should.timeout
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

// final reports whether trying again will not help.
func final(err error) bool { return errors.Is(err, world.ErrFinal) }
