package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Mode is how progress is shown.
type Mode string

// The modes, as --progress names them.
const (
	Auto  Mode = "auto"  // Bars on a terminal, Plain elsewhere
	Bars  Mode = "bars"  // bars that redraw themselves
	Plain Mode = "plain" // a line every few seconds and at the end of each stage
	JSON  Mode = "json"  // one JSON object a line, see [State]
	None  Mode = "none"  // nothing
)

// How often the printers look at the counters. Lines that stay are rarer than
// bars, which do not.
const (
	barPeriod  = 200 * time.Millisecond
	jsonPeriod = time.Second
	linePeriod = 5 * time.Second
	endPeriod  = 250 * time.Millisecond // how soon a line tells that a stage has ended
)

// ParseMode reads a --progress value: auto, plain, json or none.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Auto, Plain, JSON, None:
		return m, nil
	}
	return "", fmt.Errorf("%q is no way to show progress: it is auto, plain, json or none", s)
}

// printer shows snapshots. Calls do not overlap.
type printer interface {
	// print shows the states at a moment of the run.
	print(states []State)
	// close shows them a last time.
	close(states []State)
}

// Display shows a [Tracker] until it is closed. What others want to say on the
// same output meanwhile goes through Write, so that it does not tear a bar.
type Display struct {
	tracker *Tracker
	printer printer
	out     io.Writer
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once
}

// Show starts to show t on out, in the way that mode says. The caller closes
// the Display when the run is over.
func Show(t *Tracker, mode Mode, out *os.File) *Display {
	if mode == Auto {
		mode = Plain
		if term.IsTerminal(int(out.Fd())) {
			mode = Bars
		}
	}
	d := &Display{tracker: t, out: &lockedWriter{w: out}, stop: make(chan struct{}), done: make(chan struct{})}
	period := endPeriod
	switch {
	case t == nil || mode == None:
		close(d.done)
		return d
	case mode == Bars:
		bars := newBarPrinter(out)
		d.printer, d.out, period = bars, bars, barPeriod
	case mode == JSON:
		d.printer, period = newJSONPrinter(d.out), jsonPeriod
	default:
		d.printer = newPlainPrinter(d.out, t.now)
	}
	go d.run(period)
	return d
}

// run owns the printer until the Display is closed.
func (d *Display) run(period time.Duration) {
	defer close(d.done)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.printer.print(d.tracker.Snapshot())
		case <-d.stop:
			d.printer.close(d.tracker.Snapshot())
			return
		}
	}
}

// Write puts whole lines between what the Display shows.
func (d *Display) Write(b []byte) (int, error) { return d.out.Write(b) }

// Close shows the last state and returns when nothing more will be written. It
// may be called again.
func (d *Display) Close() {
	d.once.Do(func() { close(d.stop) })
	<-d.done
}

// lockedWriter lets several goroutines write lines to one output.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
