package release

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Options say what to release.
type Options struct {
	// Dir holds images and journal. It is made if it is not there.
	Dir string
	// Service is the fleet's service; images are called after it.
	Service string
	// Suffix is that of the images, as ".raw".
	Suffix string
	// Inputs are what the release is made from, and BuildKey a sum of those that
	// the image's bytes depend on: at least 12 hexadecimal digits.
	Inputs   Inputs
	BuildKey string
	// UseBase builds on the image of the last release.
	UseBase bool
	// Keep is how many images stay besides the last release's.
	Keep int
	// Abandon gives an unfinished run up, and begins anew.
	Abandon bool
	// Steps are what the stages do.
	Steps Steps
	// Logger is told what happens; nil tells nobody.
	Logger *slog.Logger
	// Now is the time; nil is the system's clock.
	Now func() time.Time
}

// Result is what a run came to.
type Result struct {
	// Run is the run, with its stages and their results.
	Run *Entry `json:"run"`
	// Nothing is set where the last release was made from the same inputs, which
	// is then Run.
	Nothing bool `json:"nothingToDo,omitempty"`
}

var (
	// ErrUnfinished is wrapped by the error of a run that finds another one of
	// other inputs unfinished.
	ErrUnfinished = errors.New("a release is unfinished")
	// ErrStage is wrapped by the errors of stages.
	ErrStage = errors.New("the release stops here")
)

func (o *Options) fill() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case o.Steps.Build == nil:
		return errors.New("a release without a build")
	case o.Steps.Rollout != nil && (o.Steps.Publish == nil || o.Steps.Mark == nil):
		return errors.New("a rollout of what is not published, or without a mark")
	case len(o.BuildKey) < 12:
		return fmt.Errorf("build key %q is too short", o.BuildKey)
	case !imageRule.MatchString(o.image()):
		return fmt.Errorf("%q is not a name for an image", o.image())
	case o.Keep < 0:
		return fmt.Errorf("%d images to keep", o.Keep)
	}
	return nil
}

// image is what the run's image is called: a function of what it is made from.
func (o *Options) image() string { return o.Service + "-" + o.BuildKey[:12] + o.Suffix }

// Run releases, or goes on with the release that is under way. The result is nil
// only where nothing was begun.
func Run(ctx context.Context, opts Options) (*Result, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	dir, err := openDirectory(opts.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.close()
	journal, err := readJournal(opts.Dir, opts.Service)
	if err != nil {
		return nil, err
	}
	r := &run{Options: opts, dir: dir, journal: journal}
	if opts.Abandon {
		if err := r.abandon(); err != nil {
			return nil, err
		}
	}
	begun, err := journal.next(&r.Options)
	if err != nil {
		return nil, err
	}
	if begun.nothing {
		r.Logger.Info("release: nothing to do: run " + begun.entry.ID + " released this")
		return &Result{Run: begun.entry, Nothing: true}, r.prune()
	}
	r.entry = begun.entry
	if begun.fresh {
		journal.Runs = append(journal.Runs, r.entry)
	} else {
		r.Logger.Info("release: going on with run " + r.entry.ID)
	}
	return &Result{Run: r.entry}, r.carryOut(ctx)
}

// run is a release under way.
type run struct {
	Options
	dir     *directory
	journal *Journal
	entry   *Entry
}

func (r *run) save() error { return r.dir.save(r.journal) }

// carryOut does what is left of the stages, and ends the run.
func (r *run) carryOut(ctx context.Context) error {
	if err := r.save(); err != nil {
		return err
	}
	r.missingImage()
	for i := range r.entry.Stages {
		if err := r.do(ctx, &r.entry.Stages[i]); err != nil {
			return err
		}
	}
	r.entry.Outcome, r.entry.Ended = Released, r.Now()
	if err := r.save(); err != nil {
		return err
	}
	return r.prune()
}

// missingImage has the image built again if it is needed and not there.
func (r *run) missingImage() {
	e := r.entry
	if !e.done(StageBuild) || e.done(StageVerify) && e.done(StagePublish) || holds(r.Dir, e.Image, e.Results.Build.Size) {
		return
	}
	r.Logger.Warn("release: build: its image is gone, building it again", "image", r.dir.file(e.Image))
	for _, name := range []string{StageBuild, StageVerify} {
		if s := e.stage(name); s != nil {
			s.Done = time.Time{}
		}
	}
}

// do does a stage unless it is done.
func (r *run) do(ctx context.Context, s *Stage) error {
	if !s.Done.IsZero() {
		r.Logger.Info(fmt.Sprintf("release: %s: done at %s: %s", s.Name, stamp(s.Done), r.entry.Results.of(s.Name)))
		return nil
	}
	if s.Attempts > 0 {
		r.Logger.Info(fmt.Sprintf("release: %s: continued, begun at %s", s.Name, stamp(s.Started)))
	} else {
		s.Started = r.Now()
		r.Logger.Info(fmt.Sprintf("release: %s", s.Name))
	}
	s.Attempts++
	if err := r.save(); err != nil {
		return err
	}
	began := r.Now()
	err := r.step(ctx, s)
	if err != nil {
		s.Error = err.Error()
		return errors.Join(fmt.Errorf("%s: %w: %w", s.Name, ErrStage, err), r.save())
	}
	s.Done, s.Error = r.Now(), ""
	s.Seconds = s.Done.Sub(began).Seconds()
	r.Logger.Info(fmt.Sprintf("release: %s: done: %s", s.Name, r.entry.Results.of(s.Name)))
	return r.save()
}

// step calls the stage's function.
func (r *run) step(ctx context.Context, s *Stage) (err error) {
	image, results := r.dir.file(r.entry.Image), &r.entry.Results
	switch s.Name {
	case StageCheck:
		results.Check, err = r.Steps.Check(ctx)
	case StageBuild:
		results.Build, err = r.build(ctx, image)
	case StageVerify:
		results.Verify, err = r.Steps.Verify(ctx, image)
	case StagePublish:
		results.Publish, err = r.Steps.Publish(ctx, image, r.journal.published())
	case StageRollout:
		results.Rollout, err = r.rollout(ctx, s)
	}
	return err
}

// rollout remembers what was decided before, and rolls out.
func (r *run) rollout(ctx context.Context, s *Stage) (*RolledOut, error) {
	if s.Mark == "" {
		mark, err := r.Steps.Mark(ctx)
		if err != nil {
			return nil, err
		}
		if s.Mark = mark; mark == "" {
			s.Mark = noMark
		}
		if err := r.save(); err != nil {
			return nil, err
		}
	}
	return r.Steps.Rollout(ctx, r.entry.Results.Publish.Version, s.Mark)
}

// build makes the image, unless an earlier run's is there that was made from the
// same.
func (r *run) build(ctx context.Context, image string) (*Built, error) {
	for _, e := range r.journal.Runs {
		b := e.Results.Build
		if e.Outcome == Released && !e.Removed && e.Image == r.entry.Image && e.done(StageBuild) && holds(r.Dir, e.Image, b.Size) {
			again := *b
			again.Reused = e.ID
			return &again, nil
		}
	}
	base := r.entry.Base
	if base != "" {
		base = r.dir.file(base)
	}
	return r.Steps.Build(ctx, image, base)
}

// of is the result of a stage, for people; nil if there is none.
func (r *Results) of(stage string) fmt.Stringer {
	switch {
	case stage == StageCheck && r.Check != nil:
		return r.Check
	case stage == StageBuild && r.Build != nil:
		return r.Build
	case stage == StageVerify && r.Verify != nil:
		return r.Verify
	case stage == StagePublish && r.Publish != nil:
		return r.Publish
	case stage == StageRollout && r.Rollout != nil:
		return r.Rollout
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// Summary is a line for each stage.
func (e *Entry) Summary() string {
	var b strings.Builder
	for _, s := range e.Stages {
		switch {
		case !s.Done.IsZero():
			fmt.Fprintf(&b, "%s: done in %.1f s: %s\n", s.Name, s.Seconds, e.Results.of(s.Name))
		case s.Error != "":
			fmt.Fprintf(&b, "%s: failed: %s\n", s.Name, s.Error)
		default:
			fmt.Fprintf(&b, "%s: to do\n", s.Name)
		}
	}
	return b.String()
}
