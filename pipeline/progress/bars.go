package progress

import (
	"io"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barPrinter draws one bar a stage. What a bar says comes from the snapshots,
// so that bars, lines and JSON never disagree.
type barPrinter struct {
	progress *mpb.Progress
	bars     []*bar
}

type bar struct {
	*mpb.Bar
	state atomic.Pointer[State]
}

func newBarPrinter(out io.Writer) *barPrinter {
	return &barPrinter{progress: mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barPeriod))}
}

func (p *barPrinter) print(states []State) {
	for i := range states {
		if i == len(p.bars) {
			p.bars = append(p.bars, p.add(&states[i]))
		}
		b := p.bars[i]
		b.state.Store(&states[i])
		b.SetCurrent(states[i].Done)
		b.SetTotal(states[i].Total, states[i].Finished)
	}
}

// add draws a bar that is complete when its stage says so: mpb takes a total
// of 0 for one that counting does not end.
func (p *barPrinter) add(st *State) *bar {
	b := new(bar)
	b.state.Store(st)
	text := func(decor.Statistics) string {
		if st := b.state.Load(); !st.Finished {
			return " " + runningText(*st)
		} else {
			return " " + amount(st.Done, st.Unit) + " in " + seconds(st.Elapsed)
		}
	}
	b.Bar = p.progress.AddBar(0,
		mpb.BarWidth(30),
		mpb.PrependDecorators(decor.Name(st.Stage, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(text)))
	return b
}

// close leaves the bars as they stand.
func (p *barPrinter) close(states []State) {
	p.print(states)
	for _, b := range p.bars {
		b.Abort(false)
	}
	p.progress.Wait()
}

// Write puts lines above the bars.
func (p *barPrinter) Write(b []byte) (int, error) { return p.progress.Write(b) }
