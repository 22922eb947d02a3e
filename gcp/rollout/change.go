package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"bigdisk/gcp/rollout/hostchange"
	"bigdisk/gcp/rollout/world"
)

// outcome is what came of a host's change.
type outcome int

const (
	stopped  outcome = iota // it was told to stop, or the controller does
	changed                 // the host has what it should
	failed                  // it has not, and result.reason says why
	gone                    // there is no such host any more
	seatless                // it needs another disk than it was promised
)

// result is what a change sends to the controller.
type result struct {
	host        world.ID
	rollout     string // the rollout's ID, "" when reconciling
	outcome     outcome
	reason      string
	incarnation uint64
	mutations   int // changes made on the host
}

// change is one host on its way to a goal. Its goroutine runs it; the
// controller reads only what is set before and what is atomic.
type change struct {
	host    world.ID
	rollout string
	goal    hostchange.Goal
	disk    world.ID // the copy that was promised to the host; "" if it needs none
	began   time.Time
	timeout time.Duration
	silent  time.Duration // how old a report may be
	// stop is closed when the change has to end before its next step.
	stop <-chan struct{}
	step atomic.Pointer[string]

	cloud Cloud
	fresh func() error // whether the lease still is ours
	ask   *asker

	seen     *world.Host
	reading  *hostchange.Reading
	first    time.Time // when the instance was first read
	since    time.Time // of the last thing done to the host
	deadline time.Time
	last     time.Time // what deadline is never put off beyond
	settled  bool      // the host had its time without anything being done to it
	sick     int       // how many times in a row it said so
	tries    int       // mutations that failed
	polls    int
	result   result
}

const (
	// sickReports is how many reports in a row have to say that a version is
	// bad.
	sickReports = 2
	// rereadPolls is how many reports are read before the instance is again.
	rereadPolls = 3
	retryPause  = 2 * time.Second
	maxPause    = time.Minute
	// maxTimeouts is how many times its health timeout a change may take,
	// whatever is done to the host meanwhile.
	maxTimeouts = 3
)

var (
	// errStopped ends a change that was told to stop.
	errStopped = errors.New("stopped")
	// errSeatless ends a change that was begun by what an old look at the fleet
	// told of the host.
	errSeatless = errors.New("no disk was planned for it")
)

// run changes the host until it is done, fails or is told to stop.
func (c *change) run(ctx context.Context) result {
	c.result = result{host: c.host, rollout: c.rollout}
	c.deadline, c.last = time.Now().Add(c.timeout), time.Now().Add(maxTimeouts*c.timeout)
	for {
		ended, err := c.next(ctx)
		switch {
		case err == nil && ended:
			return c.result
		case err == nil:
		case errors.Is(err, world.ErrGone):
			return c.end(gone, "")
		case errors.Is(err, errSeatless):
			return c.end(seatless, "")
		case errors.Is(err, errStopped) || ctx.Err() != nil:
			return c.end(stopped, "")
		case errors.Is(err, world.ErrFinal) || time.Now().After(c.deadline):
			return c.end(failed, err.Error())
		}
	}
}

func (c *change) end(o outcome, reason string) result {
	c.result.outcome, c.result.reason = o, reason
	return c.result
}

// next reads what it has to and takes one step.
func (c *change) next(ctx context.Context) (ended bool, err error) {
	if err := c.look(ctx); err != nil {
		return false, err
	}
	action := hostchange.Next(c.goal, c.seen, c.reading)
	if action.Kind != hostchange.Sick {
		c.sick = 0
	}
	if c.late(action) {
		c.end(failed, fmt.Sprintf("given up after %s with %d changes", time.Since(c.began).Round(time.Second), c.result.mutations))
		return true, nil
	}
	defer func() {
		if action.Once && err == nil {
			c.goal.Reattach, c.goal.Tried = false, true
		}
	}()
	switch action.Kind {
	case hostchange.Attach:
		return false, c.attach(ctx, action.Device)
	case hostchange.Detach:
		keep := c.reading
		err = c.mutate(ctx, "detaching "+action.Device, func() error { return c.cloud.Detach(ctx, c.host, action.Device) })
		if err == nil && (action.Idle || c.goal.Healthy(keep)) {
			c.reading = keep
		}
		return false, err
	case hostchange.Ask:
		return false, c.read(ctx, "waiting for its report")
	case hostchange.Sick:
		if c.sick++; c.sick >= sickReports {
			c.end(failed, action.Why)
			return true, nil
		}
		return false, c.read(ctx, action.Why)
	case hostchange.Wait:
		if time.Now().After(c.deadline) {
			if c.reading != nil && c.since.IsZero() && !c.settled {
				c.settled, c.reading.Settled = true, true
				return false, nil
			}
			c.end(failed, fmt.Sprintf("not healthy after %s: %s", time.Since(c.began).Round(time.Second), action.Why))
			return true, nil
		}
		return false, c.read(ctx, action.Why)
	case hostchange.Blocked:
		c.end(failed, action.Why)
		return true, nil
	}
	c.end(changed, "")
	return true, nil
}

// attach attaches the disk that was planned for the host.
func (c *change) attach(ctx context.Context, device string) error {
	has := slices.ContainsFunc(c.seen.Attachments, func(a world.Attachment) bool { return a.Disk == c.disk })
	if c.disk == "" || has {
		return errSeatless
	}
	return c.mutate(ctx, "attaching", func() error { return c.cloud.Attach(ctx, c.host, c.disk, device) })
}

// late reports whether the change has taken too long to do anything more to a
// host that is not well.
func (c *change) late(a hostchange.Action) bool {
	mutates := a.Kind == hostchange.Attach || a.Kind == hostchange.Detach
	return mutates && time.Now().After(c.last) && (c.reading == nil || !c.goal.Healthy(c.reading))
}

// look reads the instance unless it was read since the last change.
func (c *change) look(ctx context.Context) error {
	if c.seen != nil {
		return nil
	}
	h, err := c.cloud.Host(ctx, c.host)
	if err != nil {
		if errors.Is(err, world.ErrGone) {
			return err
		}
		return errors.Join(err, c.sleep(ctx, c.pause()))
	}
	if c.result.incarnation != 0 && h.Incarnation != c.result.incarnation {
		return world.ErrGone
	}
	c.seen, c.result.incarnation = h, h.Incarnation
	if c.first.IsZero() {
		c.first = time.Now()
	}
	return nil
}

// mutate does one thing to the host, if the lease allows it, and forgets what
// was read.
func (c *change) mutate(ctx context.Context, step string, do func() error) error {
	if err := c.sleep(ctx, 0); err != nil {
		return err
	}
	if err := c.fresh(); err != nil {
		return fmt.Errorf("%w: %w", errStopped, err)
	}
	c.setStep(step)
	began := time.Now()
	err := do()
	c.seen, c.reading = nil, nil
	if err == nil {
		c.ask.later(c.host)
		c.result.mutations++
		c.tries, c.since, c.deadline = 0, began, time.Now().Add(c.timeout)
		if c.deadline.After(c.last) {
			c.deadline = c.last
		}
		return nil
	}
	c.tries++
	if errors.Is(err, world.ErrFinal) || errors.Is(err, errStopped) {
		return err
	}
	return errors.Join(err, c.sleep(ctx, c.pause()))
}

// read asks the host for its report, and looks at the instance again now and
// then.
func (c *change) read(ctx context.Context, step string) error {
	c.setStep(step)
	if err := c.ask.wait(ctx, c.host, c.stop); err != nil {
		return err
	}
	if c.polls++; c.polls%rereadPolls == 0 {
		c.seen = nil
		if err := c.look(ctx); err != nil {
			return err
		}
	}
	report, err := c.cloud.Report(ctx, c.host)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, world.ErrGone) {
		return err
	}
	now := c.cloud.Now()
	c.reading = &hostchange.Reading{
		Report: report, Err: err, Started: c.seen.Started, Touched: ago(now, c.since), Seen: ago(now, c.first), Settled: c.settled,
		Oldest: now.Add(-c.silent),
	}
	return nil
}

// ago is a moment of this machine's by another clock, on which it now is now.
// Only how long ago it was goes into it, so that it does not matter what time
// this machine has, nor that somebody sets its clock meanwhile.
func ago(now, t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(-time.Since(t))
}

// pause grows with every try.
func (c *change) pause() time.Duration { return min(maxPause, retryPause<<min(c.tries, 10)) }

// sleep waits; it returns errStopped when the change has to stop.
func (c *change) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.stop:
		return errStopped
	default:
	}
	select {
	case <-t.C:
		return ctx.Err()
	case <-c.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *change) setStep(step string) { c.step.Store(&step) }
