package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// Options are the choices of a [Controller]; zero values are the defaults.
type Options struct {
	// AskEvery is the least time between two readings of one host's report; 10
	// seconds by default, which is what the service takes.
	AskEvery time.Duration
	// LookEvery is the time between two looks at the whole fleet; 30 seconds by
	// default.
	LookEvery time.Duration
	// SilentAfter is how old a host's last report may be to count for its health;
	// by default three of the hosts' heartbeats, 15 minutes,
	// or the rollout's health timeout if that is longer.
	SilentAfter time.Duration
	// StopWhenPaused ends Run with [ErrPaused] instead of waiting for somebody
	// to resume.
	StopWhenPaused bool
	// Yields makes Run and Reconcile end when a process that wants to carry out a
	// rollout asks for the lease, as a service that runs always does.
	Yields bool
	// Log gets what happens, for people; nil logs nothing.
	Log *slog.Logger

	ask *asker // what controllers that follow each other in a process share
}

func (o *Options) fill() {
	if o.AskEvery <= 0 {
		o.AskEvery = 10 * time.Second
	}
	if o.LookEvery <= 0 {
		o.LookEvery = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ask == nil {
		o.ask = newAsker(o.AskEvery)
	}
}

var (
	// ErrPaused is wrapped by errors about a rollout that waits for people.
	ErrPaused = errors.New("the rollout is paused")
	// ErrNothing is wrapped by errors about a rollout that is not there.
	ErrNothing = errors.New("there is no rollout under way")
	// errYielded ends a controller that was asked for the lease.
	errYielded = errors.New("the lease was asked for")
)

// Controller carries out the rollout in its keeper's document.
type Controller struct {
	cfg    *fleet.Config
	cloud  Cloud
	keeper *lease.Keeper
	opt    Options
	ask    *asker

	work    sync.WaitGroup // every goroutine but Run's
	results chan result
	looks   chan look
	copies  chan made
	watches chan []watch

	// What follows is Run's alone.
	world    *world.World // the last look; nil before the first
	looking  bool
	tried    time.Time              // when the last look was begun
	lookErr  error                  // why the last look failed; nil if it did not
	wanted   bool                   // a look is needed soon
	order    []world.ID             // the world's hosts in the rollout's order; nil if not known
	seats    map[string]*plan.Seats // by version; emptied at every look
	changing map[world.ID]*change   // hosts in change
	stop     chan struct{}          // closed when hosts in change have to stop
	settled  map[world.ID]settled   // hosts whose change ended since the last look
	halfway  map[world.ID]time.Time // hosts that were told to stop in the middle of a change, and until when that counts
	making   map[string]bool        // disks being made, by zone and name
	retry    map[world.Zone]time.Time
	trouble  map[world.Zone]string // why a zone's disks could not be made
	barred   map[world.Zone]bool   // where no more disks can be made, however often it is tried
	waiting  []string              // what the wave waits for
	watching bool                  // hosts are being asked during a bake
	watched  map[world.ID]watched  // what they said
	bake     baking                // what was seen of the bake under way
	pass     *state.Reconcile      // of a reconciliation
	yielded  bool                  // the lease was asked for, and is to be given back
}

// settled is a host whose change ended after the last look was begun, which does not show what it has now.
type settled struct {
	at       time.Time
	disk     world.ID
	seatless bool // it waits for the next look to be promised another disk
}

// New makes a controller. Run has to be called once.
func New(cfg *fleet.Config, cloud Cloud, keeper *lease.Keeper, opt Options) *Controller {
	opt.fill()
	return &Controller{
		cfg: cfg, cloud: cloud, keeper: keeper, opt: opt, ask: opt.ask,
		results: make(chan result), looks: make(chan look), copies: make(chan made), watches: make(chan []watch),
		seats: map[string]*plan.Seats{}, changing: map[world.ID]*change{}, stop: make(chan struct{}),
		settled: map[world.ID]settled{}, halfway: map[world.ID]time.Time{}, making: map[string]bool{}, retry: map[world.Zone]time.Time{},
		trouble: map[world.Zone]string{}, barred: map[world.Zone]bool{}, watched: map[world.ID]watched{},
	}
}

// tick is how often the controller thinks where nothing happens.
const tick = time.Second

// Run carries out the rollout until it ends. It returns nil when it is done or
// was aborted, an error that wraps [lease.ErrLost] when another controller took
// over, and otherwise when ctx ends, leaving everything for the next controller.
func (c *Controller) Run(ctx context.Context) error {
	return c.loop(ctx, c.advance)
}

// loop calls step whenever something has happened, until it says that all has
// ended.
func (c *Controller) loop(ctx context.Context, step func(context.Context) (ended bool, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.work.Wait()
	defer cancel()
	if err := c.settle(ctx); err != nil {
		return err
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		ended, err := step(ctx)
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
		case w := <-c.watches:
			c.asked(w)
		case <-ticker.C:
		}
		c.finishAll()
	}
}

// finishAll takes in what has come of changes by now, whatever else has happened: a
// step looks at the whole fleet, and one a host would be what limits a large one.
func (c *Controller) finishAll() {
	for {
		select {
		case r := <-c.results:
			c.finished(r)
		default:
			return
		}
	}
}

// settleTimeout is how long a controller waits for operations that others began:
// one that takes longer may never end.
const settleTimeout = 10 * time.Minute

// settle waits until no operation of an earlier process is changing a host, so
// that what is read next is all there is.
func (c *Controller) settle(ctx context.Context) error {
	began := time.Now()
	for try := 0; ; try++ {
		hosts, err := c.cloud.InFlight(ctx)
		if err == nil && len(hosts) == 0 {
			return nil
		}
		if time.Since(began) > settleTimeout {
			c.opt.Log.Warn("going on, although operations of an earlier run have not ended", "hosts", len(hosts), "err", err)
			return nil
		}
		if err != nil {
			c.opt.Log.Warn("operations under way cannot be read", "err", err)
		} else {
			c.opt.Log.Info("waiting for what an earlier run has begun", "hosts", len(hosts))
		}
		t := time.NewTimer(min(maxPause, tick<<min(try, 5)))
		select {
		case <-t.C:
		case <-c.keeper.Changed():
			t.Stop()
			if c.answer(); c.yielded {
				return errYielded
			}
		case <-c.keeper.Lost():
			t.Stop()
			return c.keeper.Fresh()
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// advance does everything that can be done now.
func (c *Controller) advance(ctx context.Context) (ended bool, err error) {
	if c.answer(); c.yielded {
		return true, errYielded
	}
	c.lookAgain(ctx)
	var r *state.Rollout
	var request *state.Request
	c.keeper.Look(func(d *state.Document) { r, request = d.Rollout, d.Request })
	if r == nil {
		return true, ErrNothing
	}
	defer c.report()
	switch {
	case !r.Active():
		return c.finish(ctx, r)
	case request != nil && request.Action != state.Resume:
		return false, nil // hosts in change end before it is answered
	case r.Phase == state.Paused:
		return c.paused(ctx, r)
	case c.world == nil:
		c.waiting = nil
		if c.lookErr != nil {
			c.waiting = []string{"the fleet cannot be read: " + clip(c.lookErr.Error())}
		}
		return false, nil
	}
	return false, c.wave(ctx, r)
}

// finish waits for what is under way once the rollout has ended.
func (c *Controller) finish(ctx context.Context, r *state.Rollout) (bool, error) {
	if len(c.changing) > 0 {
		return false, nil
	}
	return true, c.keeper.Flush(ctx)
}

func (c *Controller) paused(ctx context.Context, r *state.Rollout) (bool, error) {
	if !c.opt.StopWhenPaused || len(c.changing) > 0 {
		return false, nil
	}
	if err := c.keeper.Flush(ctx); err != nil {
		return false, err
	}
	return true, fmt.Errorf("%w: %s", ErrPaused, r.Reason)
}

// answer does what another process asked for, as soon as it can.
func (c *Controller) answer() {
	var q *state.Request
	c.keeper.Look(func(d *state.Document) { q = d.Request })
	switch {
	case q == nil:
		return
	case (q.Action == state.Rollback || q.Action == state.Abort || c.yields(q)) && len(c.changing) > 0:
		c.halt()
		return
	}
	now := time.Now()
	var err error
	c.keeper.Update(func(d *state.Document) {
		if c.yields(q) {
			c.yielded, d.Answer = true, ""
		} else if err = d.Apply(q, now); err != nil {
			d.Answer = err.Error()
		} else {
			d.Answer = ""
		}
		d.Request, d.Answered = nil, q.ID
	})
	if err != nil {
		c.opt.Log.Warn("asked for "+q.Action, "by", q.By, "err", err)
		return
	}
	c.opt.Log.Info(q.Action+" as asked", "by", q.By, "reason", q.Reason)
	c.afresh()
}

// yields reports whether the lease is asked for, and to be given.
func (c *Controller) yields(q *state.Request) bool { return q.Action == state.Yield && c.opt.Yields }

// halt tells all hosts in change to stop before their next step.
func (c *Controller) halt() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
}

// afresh forgets what was only of the wave.
func (c *Controller) afresh() {
	select {
	case <-c.stop:
		c.stop = make(chan struct{})
	default:
	}
	clear(c.watched)
	clear(c.trouble)
	clear(c.barred)
	clear(c.retry)
	clear(c.seats)
	c.order, c.wanted = nil, true
}

// report writes down who is in change and what is waited for.
func (c *Controller) report() {
	changing := make(map[world.ID]state.Change, len(c.changing))
	for id, ch := range c.changing {
		changing[id] = state.Change{Step: *ch.step.Load(), Since: ch.began}
	}
	waiting := c.waiting
	c.keeper.Touch(func(d *state.Document) bool {
		if !d.Rollout.Active() || sameReport(d.Rollout, changing, waiting) {
			return false
		}
		d.Rollout.Changing, d.Rollout.Waiting = changing, waiting
		return true
	})
}
