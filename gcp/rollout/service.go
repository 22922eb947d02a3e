package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/status"
	"bigdisk/gcp/rollout/world"
)

// Service is a service's rollouts: what the commands do.
type Service struct {
	Config *fleet.Config
	Store  lease.Store
	// Cloud may be nil for [Service.Status], [Service.Document] and
	// [Service.Ask].
	Cloud Cloud
	// Holder says for people who this process is, USER@HOST.
	Holder string
	// TTL is how long after its last heartbeat a controller is taken for dead; 0 is
	// 30 seconds.
	TTL time.Duration
	// Standby makes Start and Reconcile wait for a living holder to go.
	Standby bool
	Options Options

	waitingFor string // the owner of the lease that was last said to be waited for
}

var (
	// ErrNotDone is wrapped by errors about a rollout that ended otherwise than
	// with its version on the hosts.
	ErrNotDone = errors.New("the version was not rolled out")
	// ErrUnpublished is wrapped by errors about versions that no disk is of.
	ErrUnpublished = errors.New("not published")
	// ErrNoHosts is wrapped by errors about a fleet without hosts.
	ErrNoHosts = errors.New("there is nothing to roll out to")
	// ErrUnanswered is wrapped by errors about requests that no controller
	// answered in time.
	ErrUnanswered = errors.New("the controller has not answered")
)

// closeTimeout is how long giving back the lease may take.
const closeTimeout = 20 * time.Second

// hold runs f with a lease that was taken. The lease is given back however f
// ends.
func (s *Service) hold(ctx context.Context, keeper *lease.Keeper, f func(*lease.Keeper) error) (err error) {
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if failed := keeper.Close(closing); failed != nil {
			err = errors.Join(err, fmt.Errorf("giving back the lease: %w", failed))
		}
	}()
	return f(keeper)
}

// Start carries out the rollout of a version until it ends: a new one, or the
// one of that version that is under way. With version "" it goes on with whatever
// is under way. A reconcile service gives its lease away for that. A lease that is
// lost because the bucket could not be reached is taken again. It returns
// nil only if the rollout, or the rollback that it goes on with, is done.
func (s *Service) Start(ctx context.Context, version string) error {
	keeper, err := s.claim(ctx)
	if err != nil {
		return err
	}
	begun := ""
	err = s.hold(ctx, keeper, func(k *lease.Keeper) error {
		if err := s.begin(ctx, k, version); err != nil {
			return err
		}
		begun = idOf(k)
		return s.carryOut(ctx, k)
	})
	if begun == "" {
		return err
	}
	return s.again(ctx, err, s.claim, ours(begun, func(k *lease.Keeper) error { return s.carryOut(ctx, k) }))
}

// begin makes sure that there is a rollout of the version under way.
func (s *Service) begin(ctx context.Context, k *lease.Keeper, version string) error {
	var r *state.Rollout
	var waiting bool
	k.Look(func(d *state.Document) { r, waiting = d.Rollout, d.Request != nil })
	if r.Active() && (version == "" || version == r.Version) || version == "" && waiting && r != nil {
		s.Options.Log.Info("going on with the "+r.Kind, "version", r.Version, "phase", r.Phase, "done", len(r.Done))
		if r.Phase == state.Paused {
			s.Options.Log.Warn("it is paused: bigdisk rollout resume, rollback or abort", "why", r.Reason)
		}
		return nil
	}
	w, err := s.published(ctx, version)
	if err != nil {
		return err
	}
	if len(w.Hosts) == 0 && len(w.Unknown) == 0 {
		return fmt.Errorf("%w: no host matches the filter %q", ErrNoHosts, s.Config.Hosts.Filter)
	}
	k.Update(func(d *state.Document) {
		var next *state.Document
		if next, err = s.begun(d, mostCommon(w, label(version)), version); err == nil {
			*d = *next
		}
	})
	if err != nil {
		return err
	}
	return k.Flush(ctx)
}

// begun is a document with a rollout of a version begun; d stays as it is. An abort
// that was asked for and that nobody did comes first. common is what most hosts have:
// where nothing is known to be deployed, they come from that.
func (s *Service) begun(d *state.Document, common, version string) (*state.Document, error) {
	next, err := d.Clone()
	if err != nil {
		return nil, err
	}
	q, now := next.Request, time.Now()
	if q != nil && q.Action == state.Abort && next.Rollout.Active() {
		if err := next.Apply(q, now); err != nil {
			return nil, err
		}
	}
	next.Deployed = cmp.Or(next.Deployed, common)
	err = next.Begin(version, state.SpeedOf(s.Config.Rollout), s.Holder, now)
	if err != nil && q != nil {
		err = fmt.Errorf("%w (bigdisk rollout start without a version does the %s that was asked for and is not done yet)", err, q.Action)
	}
	next.Request = nil // it was about what was before
	return next, err
}

// published looks at the fleet, and fails unless some zone has a disk of the
// version.
func (s *Service) published(ctx context.Context, version string) (*world.World, error) {
	w, err := s.Cloud.Look(ctx)
	if err != nil {
		return nil, err
	}
	versions := map[string]bool{}
	for _, d := range w.Disks {
		versions[d.Version] = true
	}
	if version != "" && versions[label(version)] {
		return w, nil
	}
	have := cmp.Or(strings.Join(slices.Sorted(maps.Keys(versions)), ", "), "none")
	if version == "" {
		return nil, fmt.Errorf("%w: there is no rollout to go on with: give a version; there are %s", ErrNothing, have)
	}
	return nil, fmt.Errorf("%w: no zone has a disk of version %s; there are %s", ErrUnpublished, version, have)
}

// mostCommon is the version, other than one, that most hosts had attached last, and
// so run; "" if none has any. It is where a service's first rollout comes from when
// its disks were attached by other means before, or its state was lost.
func mostCommon(w *world.World, other string) string {
	counts := map[string]int{}
	for _, h := range w.Hosts {
		for _, a := range slices.Backward(h.Ours()) {
			if a.Version != other {
				counts[a.Version]++
				break
			}
		}
	}
	most := ""
	for _, version := range slices.Sorted(maps.Keys(counts)) {
		if most == "" || counts[version] > counts[most] {
			most = version
		}
	}
	return most
}

// carryOut runs the controller, and says how the rollout ended.
func (s *Service) carryOut(ctx context.Context, k *lease.Keeper) error {
	if err := New(s.Config, s.Cloud, k, s.Options).Run(ctx); err != nil {
		return err
	}
	var err error
	k.Look(func(d *state.Document) {
		if r := d.Rollout; r.Phase != state.Done {
			err = fmt.Errorf("%w: the %s to %s is %s: %s", ErrNotDone, r.Kind, r.Version, r.Phase, r.Reason)
		} else if past := d.History; r.Kind == state.KindRollback && len(past) > 1 && past[len(past)-2].Phase == state.RolledBack {
			err = fmt.Errorf("%w: all hosts are back on %s; %s", ErrNotDone, r.Version, past[len(past)-2].Reason)
		}
	})
	return err
}

// Rollback takes every host back to the version before. Where a controller is at
// work it is asked to, and byController is set; otherwise this process carries
// it out.
func (s *Service) Rollback(ctx context.Context, reason string, speed *state.Speed) (byController bool, err error) {
	keeper, err := s.acquire(ctx, purposeRollback, false)
	if errors.Is(err, lease.ErrHeld) {
		return true, s.Ask(ctx, state.Rollback, reason, speed)
	}
	if err != nil {
		return false, err
	}
	begun := ""
	err = s.hold(ctx, keeper, func(k *lease.Keeper) error {
		if err := s.beginBack(ctx, k, reason, speed); err != nil {
			return err
		}
		begun = idOf(k)
		return s.carryBack(ctx, k)
	})
	if begun == "" {
		return false, err
	}
	return false, s.again(ctx, err, s.claim, ours(begun, func(k *lease.Keeper) error { return s.carryBack(ctx, k) }))
}

// beginBack turns the rollout into a rollback, and writes that down: from then on
// every controller goes back.
func (s *Service) beginBack(ctx context.Context, k *lease.Keeper, reason string, speed *state.Speed) error {
	q := state.Request{ID: uuid.NewString(), Action: state.Rollback, By: s.Holder, At: time.Now(), Reason: reason, Plan: speed}
	var refused error
	k.Update(func(d *state.Document) {
		if q.Plan == nil {
			q.Plan = s.rollbackSpeed(d)
		}
		if refused = d.Apply(&q, time.Now()); refused == nil {
			d.Request = nil // nobody did what was asked before, and now it is this that is wanted
		}
	})
	if refused != nil {
		return refused
	}
	return k.Flush(ctx)
}

// carryBack carries the rollback out, and says how it ended.
func (s *Service) carryBack(ctx context.Context, k *lease.Keeper) error {
	err := s.carryOut(ctx, k)
	var done bool
	k.Look(func(d *state.Document) { done = d.Rollout.Kind == state.KindRollback && d.Rollout.Phase == state.Done })
	if done {
		return s.failedBack(k)
	}
	return err
}

// failedBack is the error of a rollback that ended with more failed hosts than
// a wave of all hosts may have.
func (s *Service) failedBack(k *lease.Keeper) (err error) {
	k.Look(func(d *state.Document) {
		r := d.Rollout
		all := len(r.Done) + len(r.Failed)
		if allowed := max(1, s.Config.Rollout.MaxFailures.Of(all)); len(r.Failed) > allowed {
			err = fmt.Errorf("%w: %d of %d hosts failed to go back to %s: bigdisk rollout reconcile tries them again", ErrNotDone, len(r.Failed), all, r.Version)
		}
	})
	return err
}

// rollbackSpeed is that of the last rollout or, without one, the configuration's.
func (s *Service) rollbackSpeed(d *state.Document) *state.Speed {
	speed := state.SpeedOf(s.Config.Rollout)
	if d.Rollout != nil {
		speed = d.Rollout.Speed
	}
	speed = state.RollbackSpeed(speed)
	return &speed
}

// How long Ask waits for an answer, and how often it looks.
const (
	answerTimeout = 20 * time.Second
	answerEvery   = 500 * time.Millisecond
)

// Ask pauses, resumes, aborts or rolls back: by asking the controller that is
// at work and waiting for its answer or, where there is none, by changing the
// document.
func (s *Service) Ask(ctx context.Context, action, reason string, speed *state.Speed) error {
	q := &state.Request{ID: uuid.NewString(), Action: action, By: s.Holder, At: time.Now(), Reason: reason, Plan: speed}
	asked := q
	d, err := lease.Edit(ctx, s.Store, s.Config.Service, func(d *state.Document) error {
		if err := d.Foreign(s.Config); err != nil {
			return err
		}
		if action == state.Rollback && q.Plan == nil {
			q.Plan = s.rollbackSpeed(d)
		}
		trial, err := d.Clone()
		if err != nil {
			return err
		}
		if err := trial.Apply(q, time.Now()); err != nil {
			return err
		}
		if d.Lease != nil {
			asked, err = queue(d, q, speed != nil)
			return err
		}
		d.Request = nil
		return d.Apply(q, time.Now())
	})
	if err != nil || d.Lease == nil {
		return err
	}
	return s.answer(ctx, asked)
}

// queue has the controller asked for q, and returns what to wait for: that, or the
// same that somebody else has asked for. What keeps hosts from a bad version is not
// given up for what does not, or has its own plan.
func queue(d *state.Document, q *state.Request, planned bool) (*state.Request, error) {
	before := map[string][]string{
		state.Resume: {state.Pause, state.Abort, state.Rollback}, state.Pause: {state.Abort, state.Rollback}, state.Rollback: {state.Rollback},
	}
	switch other := d.Request; {
	case other == nil:
	case other.Action == q.Action && !planned:
		return other, nil
	case slices.Contains(before[q.Action], other.Action):
		return nil, fmt.Errorf("%w: the %s that %s asked for is not done yet: wait for it (where no controller lives, bigdisk rollout start does it)",
			state.ErrRefused, other.Action, cmp.Or(other.By, "the controller"))
	}
	d.Request = q
	return q, nil
}

// answer waits for what the controller says to a request.
func (s *Service) answer(ctx context.Context, q *state.Request) error {
	deadline := time.Now().Add(answerTimeout)
	for {
		d, err := s.Document(ctx)
		if err != nil {
			return err
		}
		switch {
		case d.Answered == q.ID && d.Answer != "":
			return errors.New(d.Answer)
		case d.Answered == q.ID:
			return nil
		case d.Request == nil || d.Request.ID != q.ID:
			return fmt.Errorf("%w: another request took the place of this one", ErrUnanswered)
		case d.Lease == nil:
			return fmt.Errorf("%w: it has ended; the next one does what was asked", ErrUnanswered)
		case time.Now().After(deadline) && len(d.Rollout.Changing) > 0:
			s.Options.Log.Info("the controller has it; hosts in change end first", "hosts", len(d.Rollout.Changing))
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w within %s: it is %s; it, or the next one, does what was asked", ErrUnanswered, answerTimeout, lease.Held(d.Lease))
		}
		if err := lease.Sleep(ctx, answerEvery); err != nil {
			return err
		}
	}
}

// Reconcile gives every host what it should have: once, or until ctx ends. A
// rollout or rollback that is under way, or that somebody asks for meanwhile, it
// carries out first, since nobody else can while it holds the lease. While a
// rollout is paused, it repairs. With watch, it waits for others to end, gives its
// lease to a process that wants to carry out a rollout, and takes it again when that
// has ended or died.
func (s *Service) Reconcile(ctx context.Context, watch bool) error {
	for {
		keeper, err := s.acquire(ctx, purposeReconcile, s.Standby || watch)
		if err != nil {
			return err
		}
		repair := func(k *lease.Keeper) error { return s.reconcile(ctx, k, watch) }
		if err = s.hold(ctx, keeper, repair); watch {
			take := func(ctx context.Context) (*lease.Keeper, error) { return s.acquire(ctx, purposeReconcile, true) }
			err = s.again(ctx, err, take, repair)
		}
		if !errors.Is(err, errYielded) {
			return err
		}
		if err := s.leave(ctx); err != nil {
			return err
		}
	}
}

// reconcile repairs, and carries out what is under way, in turn.
func (s *Service) reconcile(ctx context.Context, k *lease.Keeper, watch bool) error {
	repair := s.Options
	repair.Yields = watch
	run := repair
	run.StopWhenPaused = true
	k.Look(func(d *state.Document) {
		if d.Rollout == nil && d.Deployed == "" {
			s.Options.Log.Warn("no version was rolled out yet, as the state in the bucket tells: nothing can be repaired")
		}
	})
	for {
		err := New(s.Config, s.Cloud, k, repair).Reconcile(ctx, watch)
		if !errors.Is(err, errUnderWay) {
			return err
		}
		s.Options.Log.Info("there is a rollout under way; carrying it out")
		err = New(s.Config, s.Cloud, k, run).Run(ctx)
		if err != nil && (!watch || !errors.Is(err, ErrPaused)) {
			return err
		}
	}
}

// Document reads the document.
func (s *Service) Document(ctx context.Context) (*state.Document, error) {
	d, _, err := lease.Read(ctx, s.Store, s.Config.Service)
	return d, err
}

// Status reads the document and says what it comes to.
func (s *Service) Status(ctx context.Context) (*status.Status, error) {
	d, err := s.Document(ctx)
	if err != nil {
		return nil, err
	}
	return status.Of(d, time.Now()), nil
}

// Plan works out what a rollout of a version would do. Nothing is changed.
func (s *Service) Plan(ctx context.Context, version string) (*plan.Plan, error) {
	d, err := s.Document(ctx)
	if err != nil {
		return nil, err
	}
	if version == "" && d.Rollout.Active() {
		version = d.Rollout.Version
	}
	if version == "" {
		return nil, fmt.Errorf("%w: give the version to plan for", ErrNothing)
	}
	w, err := s.Cloud.Look(ctx)
	if err != nil {
		return nil, err
	}
	if w.Taken.IsZero() {
		w.Taken = time.Now()
	}
	p, err := plan.Make(s.Config, d, w, version)
	if err == nil && !s.anyDisk(w, version) {
		p.Blockers = append(p.Blockers, fmt.Sprintf("no zone has a disk of version %s: publish it first", version))
	}
	return p, err
}

func (s *Service) anyDisk(w *world.World, version string) bool {
	for _, d := range w.Disks {
		if d.Version == label(version) {
			return true
		}
	}
	return len(w.Unknown) > 0
}
