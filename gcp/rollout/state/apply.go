package state

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/world"
)

// ErrRefused is wrapped by errors about what cannot be done in the state that
// a rollout is in.
var ErrRefused = errors.New("refused")

// ErrNoPrevious is wrapped by errors about rollbacks that have nowhere to go back to.
var ErrNoPrevious = errors.New("there is no version to go back to")

// Begin starts a rollout of a version. An unfinished one has to be ended
// first.
func (d *Document) Begin(version string, speed Speed, by string, now time.Time) error {
	if err := fleet.CheckVersion(version); err != nil {
		return err
	}
	if r := d.Rollout; r.Active() {
		return fmt.Errorf("%w: the %s to %s is %s: let it end, abort it or roll it back first", ErrRefused, r.Kind, r.Version, r.Phase)
	}
	if version == d.Deployed && !d.Mixed() {
		return fmt.Errorf("%w: %s is what is deployed: bigdisk rollout reconcile repairs hosts that do not have it", ErrRefused, version)
	}
	known := d.Versions()
	d.Rollout = newRollout(KindRollout, version, d.from(version), speed, by, now)
	d.Rollout.Reattach = slices.Contains(known, version)
	return nil
}

// Mixed reports whether the last rollout or rollback ended before all hosts had
// its version: some have it and the others the one before, so that no version
// is deployed.
func (d *Document) Mixed() bool { return d.Rollout != nil && d.Rollout.Phase == Aborted }

// from is the version that a rollout of another one comes from.
func (d *Document) from(version string) string {
	if version != d.Deployed {
		return d.Deployed
	}
	if d.Rollout.Version != version {
		return d.Rollout.Version
	}
	return d.Rollout.Previous
}

func newRollout(kind, version, previous string, speed Speed, by string, now time.Time) *Rollout {
	r := &Rollout{
		ID: now.UTC().Format("20060102T150405.000Z") + "-" + version, Kind: kind, Version: version, Previous: previous,
		Phase: Running, By: by, Started: now, Speed: speed, Done: world.Set{}, Failed: map[world.ID]Failure{},
	}
	for _, w := range speed.Waves {
		r.Waves = append(r.Waves, Wave{WaveConfig: w})
	}
	from := previous
	if from == "" {
		from = "nothing"
	}
	r.Note(now, fmt.Sprintf("%s from %s to %s begun", kind, from, version))
	return r
}

// Apply does what a request asks for.
func (d *Document) Apply(q *Request, now time.Time) error {
	switch q.Action {
	case Pause:
		return d.pause(q, now)
	case Resume:
		return d.resume(q, now)
	case Abort:
		return d.abort(q, now)
	case Rollback:
		return d.rollback(q, now)
	case Yield:
		return fmt.Errorf("%w: only a reconcile service that runs always gives its lease away", ErrRefused)
	}
	return fmt.Errorf("%w: %q is not something to ask for", ErrRefused, q.Action)
}

// text is the request for people.
func (q *Request) text(done string) string {
	text := done
	if q.By != "" {
		text += " by " + q.By
	}
	if q.Reason != "" {
		text += ": " + q.Reason
	}
	return text
}

func (d *Document) pause(q *Request, now time.Time) error {
	r := d.Rollout
	if !r.Active() {
		return fmt.Errorf("%w: there is no rollout under way", ErrRefused)
	}
	if r.Phase == Paused {
		return nil
	}
	r.Stop(q.text("paused"), now)
	return nil
}

// Stop pauses the rollout.
func (r *Rollout) Stop(reason string, now time.Time) {
	r.Phase, r.Reason = Paused, reason
	r.Note(now, reason)
}

// resume goes on, and gives the failed hosts of the wave another chance.
func (d *Document) resume(q *Request, now time.Time) error {
	r := d.Rollout
	if !r.Active() {
		return fmt.Errorf("%w: there is no rollout under way", ErrRefused)
	}
	if r.Phase == Running {
		return nil
	}
	r.Phase, r.Reason = Running, ""
	clear(r.Failed)
	r.Note(now, q.text("resumed"))
	return nil
}

func (d *Document) abort(q *Request, now time.Time) error {
	if !d.Rollout.Active() {
		return fmt.Errorf("%w: there is no rollout under way", ErrRefused)
	}
	reason := q.text("aborted")
	d.Rollout.Note(now, reason)
	d.End(Aborted, reason, now)
	return nil
}

// rollback ends the rollout and begins another one, back to the version before.
func (d *Document) rollback(q *Request, now time.Time) error {
	r := d.Rollout
	switch {
	case r == nil:
		return fmt.Errorf("%w: there was no rollout", ErrRefused)
	case r.Kind == KindRollback && r.Active():
		return fmt.Errorf("%w: a rollback to %s is under way already, and %s", ErrRefused, r.Version, r.Phase)
	case r.Kind == KindRollback:
		return fmt.Errorf("%w: the last one was a rollback itself (%s): start a rollout of the version you want", ErrRefused, r.Phase)
	case r.Previous == "":
		return fmt.Errorf("%w: %w: nothing was deployed before %s", ErrRefused, ErrNoPrevious, r.Version)
	}
	if err := q.Plan.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	reason := q.text("rolled back")
	if r.Active() {
		r.Note(now, reason)
		d.End(RolledBack, reason, now)
	}
	sick := d.sick()
	d.Rollout = newRollout(KindRollback, r.Previous, r.Version, *q.Plan, q.By, now)
	d.Rollout.Sick = sick
	d.Rollout.Note(now, reason)
	return nil
}

// RollbackSpeed is a rollback's waves and speed where nobody chose others: all
// hosts in one wave, as many at a time as in the rollout. However many fail, it
// goes on until all others are back, since they wait for it; only if all fail it
// pauses. The new disk is taken away, so that going back needs nothing that may
// be missing: no attachment, no further copy.
func RollbackSpeed(s Speed) Speed {
	s.Waves = []WaveConfig{{Name: "all", Hosts: fleet.Percent(100), Min: 1}}
	s.OnFailure = fleet.OnFailurePause
	s.MaxFailures = fleet.Percent(100)
	s.KeepPrevious = false
	return s
}
