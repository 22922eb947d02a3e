package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
)

// Schema is the version of the journal's form that this package writes.
const Schema = 1

// MaxRuns is how many runs a journal remembers besides those whose images are
// still there.
const MaxRuns = 50

// Journal is what is known of all runs in a directory.
type Journal struct {
	// Schema is [Schema].
	Schema int `json:"schema"`
	// Service is whose images the directory holds.
	Service string `json:"service"`
	// Runs are the runs, oldest first. All but the last have ended.
	Runs []*Entry `json:"runs"`
}

// The outcomes of a run; "" stands for one that has not ended.
const (
	Released  = "released"
	Abandoned = "abandoned"
)

// Entry is one run.
type Entry struct {
	// ID is when the run began, and the start of its build's key.
	ID string `json:"id"`
	// Inputs are what it is made from.
	Inputs Inputs `json:"inputs"`
	// Image is the image's file name in the directory, Base that of the image
	// that it is built on; "" for none.
	Image string `json:"image"`
	Base  string `json:"base,omitempty"`
	// Outcome is one of those above.
	Outcome string    `json:"outcome,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Removed is set when the image has been deleted to make room.
	Removed bool `json:"removed,omitempty"`
	// Stages are what the run consists of, in order.
	Stages []Stage `json:"stages"`
	// Results are what the stages that are done came to.
	Results Results `json:"results"`
}

// The names of stages, in order.
const (
	StageCheck   = "check"
	StageBuild   = "build"
	StageVerify  = "verify"
	StagePublish = "publish"
	StageRollout = "rollout"
)

// Stage is how far a part of a run is.
type Stage struct {
	Name string `json:"name"` // one of those above
	// Started is when it was begun for the first time, Attempts how often.
	Started  time.Time `json:"started,omitzero"`
	Attempts int       `json:"attempts,omitempty"`
	// Done is when it was done; zero if it is not.
	Done time.Time `json:"done,omitzero"`
	// Seconds is how long the attempt took that succeeded.
	Seconds float64 `json:"seconds,omitempty"`
	// Error is why the last attempt failed, if it did.
	Error string `json:"error,omitempty"`
	// Mark is what [Steps.Mark] said before the first attempt.
	Mark string `json:"mark,omitempty"`
}

// noMark is the mark where nothing was decided before.
const noMark = "none"

// Inputs say what a run is made from; runs with equal ones make the same
// release. Sums are SHA-256, in hexadecimal.
type Inputs struct {
	// Lock is the sum of the lock file; "" without one.
	Lock string `json:"lock,omitempty"`
	// Build is the sum of the build's flags and the files that they name.
	Build string `json:"build"`
	// Fleet is the sum of the fleet's configuration; "" without one.
	Fleet string `json:"fleet,omitempty"`
	// Stages is the sum of what decides on the stages.
	Stages string `json:"stages"`
	// Version is the version that was asked for; "" leaves it to the image.
	Version string `json:"version,omitempty"`
	// Program is the program's version.
	Program string `json:"program"`
}

// Differences names, for people, what of the inputs is not the same in b.
func (a Inputs) Differences(b Inputs) []string {
	var names []string
	for _, d := range []struct {
		what string
		same bool
	}{
		{"the lock file", a.Lock == b.Lock},
		{"the build's flags or the files that they name", a.Build == b.Build},
		{"the fleet's configuration", a.Fleet == b.Fleet},
		{"the release's stages", a.Stages == b.Stages},
		{"--version", a.Version == b.Version},
		{"bigdisk itself", a.Program == b.Program},
	} {
		if !d.same {
			names = append(names, d.what)
		}
	}
	return names
}

// current is the run that has not ended; nil if there is none.
func (j *Journal) current() *Entry {
	if n := len(j.Runs); n > 0 && j.Runs[n-1].Outcome == "" {
		return j.Runs[n-1]
	}
	return nil
}

// lastReleased is the last run that was released; nil before the first.
func (j *Journal) lastReleased() *Entry {
	for _, e := range slices.Backward(j.Runs) {
		if e.Outcome == Released {
			return e
		}
	}
	return nil
}

// published is the version of the last release that was published; "" for none.
func (j *Journal) published() string {
	for _, e := range slices.Backward(j.Runs) {
		if e.Outcome == Released && e.Results.Publish != nil {
			return e.Results.Publish.Version
		}
	}
	return ""
}

// trim forgets the oldest runs whose images are gone.
func (j *Journal) trim() {
	extra, last := len(j.Runs)-MaxRuns, j.lastReleased()
	j.Runs = slices.DeleteFunc(j.Runs, func(e *Entry) bool {
		if extra <= 0 || !e.Removed || e == last {
			return false
		}
		extra--
		return true
	})
}

// stage finds a stage by its name; nil if the run has none of that name.
func (e *Entry) stage(name string) *Stage {
	for i := range e.Stages {
		if e.Stages[i].Name == name {
			return &e.Stages[i]
		}
	}
	return nil
}

// done tells whether the stage is done, or not a part of the run.
func (e *Entry) done(name string) bool {
	s := e.stage(name)
	return s == nil || !s.Done.IsZero()
}

// imageRule is what images are called. A journal names files that are deleted
// in the end, so that it is not believed anything else.
var imageRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*\.[a-z0-9]+$`)

// ErrJournal is wrapped by errors about files that are not a journal, or not a
// whole one.
var ErrJournal = errors.New("not a journal")

// Decode reads a journal, and refuses what it does not know. What is damaged wraps
// [ErrJournal].
func Decode(data []byte) (*Journal, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	j := new(Journal)
	if err := dec.Decode(j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows it", ErrJournal)
	}
	if j.Schema != Schema {
		return nil, fmt.Errorf("a journal of form %d: this program reads form %d; use the one that wrote it", j.Schema, Schema)
	}
	for i, e := range j.Runs {
		if err := e.check(i == len(j.Runs)-1); err != nil {
			return nil, fmt.Errorf("%w: run %d: %w", ErrJournal, i+1, err)
		}
	}
	return j, nil
}

// stageNames are the names of all stages, in order.
var stageNames = []string{StageCheck, StageBuild, StageVerify, StagePublish, StageRollout}

func (e *Entry) check(last bool) error {
	switch {
	case e == nil:
		return fmt.Errorf("nothing")
	case !imageRule.MatchString(e.Image):
		return fmt.Errorf("%q is not an image's name", e.Image)
	case e.Base != "" && !imageRule.MatchString(e.Base):
		return fmt.Errorf("%q is not an image's name", e.Base)
	case e.Outcome != "" && e.Outcome != Released && e.Outcome != Abandoned:
		return fmt.Errorf("outcome %q", e.Outcome)
	case e.Outcome == "" && !last:
		return fmt.Errorf("it has not ended, and another one follows it")
	}
	at := -1
	for _, s := range e.Stages {
		i := slices.Index(stageNames, s.Name)
		if i <= at {
			return fmt.Errorf("stage %q", s.Name)
		}
		at = i
	}
	return e.checkResults()
}

// checkResults wants the results of all stages that are done, and the stages
// that others need.
func (e *Entry) checkResults() error {
	for _, s := range e.Stages {
		if !s.Done.IsZero() && e.Results.of(s.Name) == nil {
			return fmt.Errorf("stage %s is done, and its result is not there", s.Name)
		}
	}
	switch {
	case e.stage(StageBuild) == nil:
		return fmt.Errorf("no stage build")
	case e.stage(StageRollout) != nil && e.stage(StagePublish) == nil:
		return fmt.Errorf("stage rollout without publish")
	}
	return nil
}

// Encode writes a journal, for people to read too.
func (j *Journal) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write journal: %w", err)
	}
	return append(data, '\n'), nil
}
