package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// begun is what the next run is.
type begun struct {
	entry   *Entry
	fresh   bool // it is not in the journal yet
	nothing bool // the entry is an earlier run that has done it all
}

// next says with which run to go on: the unfinished one, none, or a new one.
// Nothing is changed.
func (j *Journal) next(o *Options) (begun, error) {
	if e := j.current(); e != nil {
		if changed := e.Inputs.Differences(o.Inputs); len(changed) > 0 {
			return begun{}, fmt.Errorf("%w: run %s, begun %s, %s: since then %s changed", ErrUnfinished, e.ID, stamp(e.Started), e.state(), strings.Join(changed, ", "))
		}
		return begun{entry: e}, nil
	}
	if last := j.lastReleased(); last != nil && last.Inputs == o.Inputs && !last.lost(o.Dir) {
		return begun{entry: last, nothing: true}, nil
	}
	return begun{entry: j.fresh(o), fresh: true}, nil
}

// lost tells whether the image of a run that published nothing, and is all that
// the run made, is not in the directory any more.
func (e *Entry) lost(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, e.Image))
	return e.stage(StagePublish) == nil && errors.Is(err, fs.ErrNotExist)
}

// fresh is a new run.
func (j *Journal) fresh(o *Options) *Entry {
	now := o.Now()
	e := &Entry{
		ID: now.UTC().Format("20060102T150405Z") + "-" + o.BuildKey[:12], Inputs: o.Inputs, Image: o.image(), Started: now,
	}
	if last := j.lastReleased(); o.UseBase && last != nil && !last.Removed && last.Image != e.Image {
		e.Base = last.Image
	}
	for _, s := range []struct {
		name   string
		wanted bool
	}{
		{StageCheck, o.Steps.Check != nil}, {StageBuild, true}, {StageVerify, o.Steps.Verify != nil},
		{StagePublish, o.Steps.Publish != nil}, {StageRollout, o.Steps.Rollout != nil},
	} {
		if s.wanted {
			e.Stages = append(e.Stages, Stage{Name: s.name})
		}
	}
	return e
}

// state says how far an unfinished run is.
func (e *Entry) state() string {
	for _, s := range e.Stages {
		switch {
		case !s.Done.IsZero():
			continue
		case s.Error != "":
			return "stopped at stage " + s.Name
		case s.Attempts > 0:
			return "interrupted in stage " + s.Name
		}
		return "interrupted before stage " + s.Name
	}
	return "all but ended"
}

// Planned is what a run would do.
type Planned struct {
	Result
	// Image is the file that will hold the image, Base the image to build on,
	// if any.
	Image string `json:"image"`
	Base  string `json:"base,omitempty"`
	// Remove are images that would go, once it is done.
	Remove []string `json:"remove,omitempty"`
}

// Plan says what [Run] would do, and changes nothing.
func Plan(opts Options) (*Planned, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	j, err := readJournal(opts.Dir, opts.Service)
	if err != nil {
		return nil, err
	}
	if e := j.current(); e != nil && opts.Abandon {
		e.Outcome, e.Ended = Abandoned, opts.Now()
	}
	b, err := j.next(&opts)
	if err != nil {
		return nil, err
	}
	if b.fresh {
		j.Runs = append(j.Runs, b.entry)
	}
	p := &Planned{Result: Result{Run: b.entry, Nothing: b.nothing}, Image: b.entry.Image, Base: b.entry.Base}
	after := *b.entry
	after.Outcome = Released
	for i := range j.Runs {
		if j.Runs[i] == b.entry {
			j.Runs[i] = &after
		}
	}
	for _, e := range j.surplus(opts.Keep) {
		p.Remove = append(p.Remove, e.Image)
	}
	return p, nil
}

// abandon gives the unfinished run up. Its image goes with the next pruning; what
// it published stays, for bigdisk gc.
func (r *run) abandon() error {
	e := r.journal.current()
	if e == nil {
		r.Logger.Info("release: no run is unfinished, so that none is abandoned")
		return nil
	}
	e.Outcome, e.Ended = Abandoned, r.Now()
	r.Logger.Info("release: run " + e.ID + " is abandoned")
	if err := r.save(); err != nil {
		return err
	}
	return r.prune()
}

// prune deletes the images that are not to be kept.
func (r *run) prune() error {
	gone := r.journal.surplus(r.Keep)
	if len(gone) == 0 {
		return nil
	}
	for _, e := range gone {
		if !r.journal.named(e) {
			r.Logger.Info("release: removing the image of run "+e.ID, "image", r.dir.file(e.Image))
			if err := r.dir.remove(e.Image); err != nil {
				return fmt.Errorf("remove the image of run %s: %w", e.ID, err)
			}
		}
		e.Removed = true
	}
	r.journal.trim()
	return r.save()
}

// surplus lists the runs whose images go: those that were given up, and of those
// released all but the last, which is the next one's base, and keep before it.
func (j *Journal) surplus(keep int) []*Entry {
	kept := map[string]bool{}
	var gone []*Entry
	for i := len(j.Runs) - 1; i >= 0; i-- {
		e := j.Runs[i]
		switch {
		case e.Removed:
		case e.Outcome == "":
			continue
		case e.Outcome == Released && (kept[e.Image] || len(kept) <= keep):
			kept[e.Image] = true
		default:
			gone = append(gone, e)
		}
	}
	return gone
}

// named tells whether a run whose image stays has the same image as e.
func (j *Journal) named(e *Entry) bool {
	for _, other := range j.Runs {
		if other == e || other.Removed {
			continue
		}
		if other.Base == e.Image && other.Outcome == "" || other.Image == e.Image && other.Outcome != Abandoned {
			return true
		}
	}
	return false
}
