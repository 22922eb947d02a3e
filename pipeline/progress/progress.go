// Package progress is the one model of how far a run has come: stages with
// counters go in, snapshots with rates and times come out, and printers show
// them as bars, lines or JSON.
//
// Workers only ever add to a [Stage]; that costs one atomic addition. A nil
// [Tracker] or Stage takes everything and shows nothing.
package progress

import (
	"sync"
	"sync/atomic"
	"time"
)

// Unit is what a stage counts.
type Unit string

// The units.
const (
	Bytes Unit = "bytes"
	Paths Unit = "paths"
	Steps Unit = "steps" // of a size that means nothing to anybody else
)

// Tracker holds the stages of one run. It is safe for concurrent use.
type Tracker struct {
	now    func() time.Time
	mu     sync.Mutex
	stages []*Stage
}

// Stage is one counted part of a run. Its methods are safe for concurrent use.
type Stage struct {
	name  string
	unit  Unit
	now   func() time.Time
	start time.Time
	total atomic.Int64
	done  atomic.Int64
	end   atomic.Int64 // nanoseconds after start, 0 while it runs
}

// New returns a Tracker that reads the time from now; nil is [time.Now].
func New(now func() time.Time) *Tracker {
	if now == nil {
		now = time.Now
	}
	return &Tracker{now: now}
}

// Stage starts a stage. A total of 0 means that it is not known yet.
func (t *Tracker) Stage(name string, unit Unit, total int64) *Stage {
	if t == nil {
		return nil
	}
	s := &Stage{name: name, unit: unit, now: t.now, start: t.now()}
	s.total.Store(total)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stages = append(t.stages, s)
	return s
}

// Add counts n more units as done.
func (s *Stage) Add(n int64) {
	if s != nil {
		s.done.Add(n)
	}
}

// Set says how much is done and of how much, for stages that count themselves.
func (s *Stage) Set(done, total int64) {
	if s != nil {
		s.done.Store(done)
		s.total.Store(total)
	}
}

// Finish ends the stage; later calls change nothing. Without a total, what is
// done becomes it.
func (s *Stage) Finish() {
	if s == nil {
		return
	}
	s.total.CompareAndSwap(0, s.done.Load())
	s.end.CompareAndSwap(0, max(1, int64(s.now().Sub(s.start))))
}

// State is one stage at one moment.
type State struct {
	// Stage is the stage's name and Unit what it counts.
	Stage string `json:"stage"`
	Unit  Unit   `json:"unit"`
	// Done and Total are in units; a Total of 0 is not known.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Rate is units a second, over the whole stage.
	Rate float64 `json:"rate"`
	// ETA is how many seconds are left at that rate; 0 when that cannot be said.
	ETA float64 `json:"eta"`
	// Elapsed is how many seconds the stage has taken.
	Elapsed float64 `json:"elapsed"`
	// Finished says that the stage has ended.
	Finished bool `json:"finished"`
}

// Snapshot tells the state of all stages, in the order they were started.
func (t *Tracker) Snapshot() []State {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	stages := t.stages[:len(t.stages):len(t.stages)]
	t.mu.Unlock()
	now := t.now()
	states := make([]State, len(stages))
	for i, s := range stages {
		states[i] = s.state(now)
	}
	return states
}

func (s *Stage) state(now time.Time) State {
	st := State{Stage: s.name, Unit: s.unit, Done: s.done.Load(), Total: s.total.Load()}
	elapsed := now.Sub(s.start)
	if end := s.end.Load(); end != 0 {
		elapsed, st.Finished = time.Duration(end), true
	}
	st.Elapsed = elapsed.Seconds()
	if st.Elapsed > 0 {
		st.Rate = float64(st.Done) / st.Elapsed
	}
	if left := st.Total - st.Done; left > 0 && st.Rate > 0 && !st.Finished {
		st.ETA = float64(left) / st.Rate
	}
	return st
}
