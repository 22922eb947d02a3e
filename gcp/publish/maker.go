package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"bigdisk/gcp/gce"
)

// Maker makes images, snapshots and disks, or finds them made.
type Maker struct {
	Compute  Compute
	Clock    gce.Clock      // the system's by default
	Random   func() float64 // in [0, 1)
	Patience gce.Retry      // for what may pass by itself; Budget 15 minutes by default
	Making   time.Duration  // for what is being made already; 2 hours by default
	Logger   *slog.Logger   // silent by default
}

func (m *Maker) clock() gce.Clock {
	if m.Clock == nil {
		return gce.SystemClock()
	}
	return m.Clock
}

func (m *Maker) random() float64 {
	if m.Random == nil {
		return rand.Float64()
	}
	return m.Random()
}

func (m *Maker) making() time.Duration {
	if m.Making <= 0 {
		return 2 * time.Hour
	}
	return m.Making
}

func (m *Maker) log() *slog.Logger {
	if m.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Logger
}

// status is what a resource's state means for us.
type status int

const (
	absent status = iota
	making        // it becomes ready
	ready
	broken // it never becomes ready
	going  // it is being deleted
)

// statusOf reads the status of an image, disk or snapshot.
func statusOf(s string) status {
	switch s {
	case "READY":
		return ready
	case "FAILED":
		return broken
	case "DELETING":
		return going
	}
	return making // PENDING, CREATING, RESTORING, UPLOADING, UNAVAILABLE
}

// DiffersError says that what exists under a name of ours is something else.
type DiffersError struct {
	Resource string
	What     []string // as `label sha is "x", and "y" is wanted`
}

// Error names the differences.
func (e *DiffersError) Error() string {
	s := e.Resource + " exists and is another one:"
	for i, w := range e.What {
		if i > 0 {
			s += ";"
		}
		s += " " + w
	}
	return s
}

// resource is something to be made under a fixed name.
type resource struct {
	name string // for people
	// look says what is there; what is there but is not the right one is a
	// [*DiffersError].
	look   func(ctx context.Context) (status, error)
	insert func(ctx context.Context) error
	remove func(ctx context.Context) error
}

// ensure makes a resource unless it is there, whoever made it. Known to be
// absent, it is made without looking first.
func (m *Maker) ensure(ctx context.Context, r resource, knownAbsent bool) (State, error) {
	e := ensuring{Maker: m, resource: r, deadline: m.clock().Now().Add(m.making()), pause: time.Second}
	now := absent
	for first := true; ; first = false {
		var err error
		if !first || !knownAbsent {
			if now, err = r.look(ctx); err != nil {
				return "", err
			}
		}
		state, err := e.step(ctx, now)
		if err != nil || state != "" {
			return state, err
		}
	}
}

// ensuring is a resource on its way.
type ensuring struct {
	*Maker
	resource
	deadline time.Time
	pause    time.Duration
	inserts  int
	removed  bool
	ours     bool // it may well be our own request that made it
}

// maxInserts bounds what is tried when a resource vanishes again and again.
const maxInserts = 5

// step does what the status asks for. It returns no state and no error when the
// resource has to be looked at again.
func (e *ensuring) step(ctx context.Context, now status) (State, error) {
	switch now {
	case ready:
		return stateOf(e.ours, Created, Found), nil
	case broken:
		if e.removed {
			return "", fmt.Errorf("%s has failed twice: its status is FAILED", e.name)
		}
		e.removed = true
		if err := e.remove(ctx); err != nil && !errors.Is(err, gce.ErrNotFound) {
			return "", fmt.Errorf("%s has failed, and cannot be deleted: %w", e.name, err)
		}
		return "", nil
	case making, going:
		return "", e.wait(ctx)
	}
	return e.make(ctx)
}

func (e *ensuring) make(ctx context.Context) (State, error) {
	if e.inserts++; e.inserts > maxInserts {
		return "", fmt.Errorf("%s was made %d times, and is not there", e.name, maxInserts)
	}
	err := e.insert(ctx)
	switch {
	case err == nil:
		return Created, nil
	case errors.Is(err, gce.ErrExists):
		return "", nil
	case errors.Is(err, gce.ErrTimeout):
		e.ours = true
		return "", nil
	}
	// What was refused may have been the repetition of a request that had been
	// granted, and whose answer was lost.
	if now, unread := e.look(ctx); unread == nil && (now == making || now == ready) {
		e.ours = true
		return "", nil
	}
	return "", err
}

// wait lets some time pass for something that is being made or deleted.
func (e *ensuring) wait(ctx context.Context) error {
	if !e.clock().Now().Before(e.deadline) {
		return fmt.Errorf("%s: still being made after %v; run again to go on waiting", e.name, e.making())
	}
	d := e.pause
	e.pause = min(2*e.pause, 10*time.Second)
	return gce.Sleep(ctx, e.clock(), d)
}

// patiently repeats work as long as it fails for a reason that may pass, with
// ever longer waits. Slots are given back while it waits.
func (m *Maker) patiently(ctx context.Context, pace slots, work func() (State, error)) (State, error) {
	bound, longest, left := m.Patience.Initial, m.Patience.Max, m.Patience.Budget
	if bound <= 0 {
		bound = 20 * time.Second
	}
	if longest <= 0 {
		longest = 3 * time.Minute
	}
	if left <= 0 {
		left = 15 * time.Minute
	}
	for {
		if err := pace.take(ctx); err != nil {
			return "", err
		}
		state, err := work()
		pace.give()
		d := bound/2 + time.Duration(m.random()*float64(bound/2))
		if !passes(err) || d > left {
			return state, err
		}
		m.log().Info("trying again later", "in", d.Round(time.Second), "after", err)
		if err := gce.Sleep(ctx, m.clock(), d); err != nil {
			return "", err
		}
		left -= d
		bound = min(2*bound, longest)
	}
}

// passes reports whether an error is of a kind that goes away by itself.
func passes(err error) bool {
	return errors.Is(err, gce.ErrStockout) || errors.Is(err, gce.ErrSourceRate)
}
