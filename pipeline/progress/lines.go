package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// plainPrinter writes a line for what is running every few seconds, and one
// for every stage that ends. It is for logs.
type plainPrinter struct {
	out  io.Writer
	now  func() time.Time
	last time.Time
	told map[int]bool
}

func newPlainPrinter(out io.Writer, now func() time.Time) *plainPrinter {
	return &plainPrinter{out: out, now: now, last: now(), told: make(map[int]bool)}
}

func (p *plainPrinter) print(states []State) {
	due := p.now().Sub(p.last) >= linePeriod
	if due {
		p.last = p.now()
	}
	for i, st := range states {
		switch {
		case p.told[i]:
		case st.Finished:
			p.told[i] = true
			fmt.Fprintf(p.out, "%s: %s in %s%s\n", st.Stage, amount(st.Done, st.Unit), seconds(st.Elapsed), rateSuffix(st))
		case due:
			fmt.Fprintf(p.out, "%s: %s\n", st.Stage, runningText(st))
		}
	}
}

// close tells of the stages that ended since, and where the others stopped.
func (p *plainPrinter) close(states []State) {
	p.print(states)
	for i, st := range states {
		if !p.told[i] {
			fmt.Fprintf(p.out, "%s: stopped after %s\n", st.Stage, ofTotal(st))
		}
	}
}

// jsonPrinter writes one [State] a line, for every stage that has changed.
type jsonPrinter struct {
	enc  *json.Encoder
	last []State
}

func newJSONPrinter(out io.Writer) *jsonPrinter {
	return &jsonPrinter{enc: json.NewEncoder(out)}
}

func (p *jsonPrinter) print(states []State) {
	for i, st := range states {
		if i < len(p.last) && sameCounts(p.last[i], st) {
			continue
		}
		// The output is stderr: where it cannot be written, there is nobody to tell.
		_ = p.enc.Encode(st)
	}
	p.last = states
}

func (p *jsonPrinter) close(states []State) { p.print(states) }

func sameCounts(a, b State) bool {
	return a.Done == b.Done && a.Total == b.Total && a.Finished == b.Finished
}

// runningText is "1.2 GiB of 2.4 GiB (50 %), 120 MiB/s, 10s left".
func runningText(st State) string {
	var b strings.Builder
	b.WriteString(ofTotal(st))
	b.WriteString(rateSuffix(st))
	if st.ETA > 0 {
		fmt.Fprintf(&b, ", %s left", seconds(st.ETA))
	}
	return b.String()
}

func ofTotal(st State) string {
	if st.Total <= 0 {
		return amount(st.Done, st.Unit)
	}
	return fmt.Sprintf("%s of %s (%d %%)", amount(st.Done, st.Unit), amount(st.Total, st.Unit), percent(st))
}

func percent(st State) int64 {
	if st.Total <= 0 {
		return 0
	}
	return int64(float64(min(st.Done, st.Total)) / float64(st.Total) * 100)
}

func rateSuffix(st State) string {
	if st.Rate <= 0 {
		return ""
	}
	if st.Unit == Bytes {
		return ", " + amount(int64(st.Rate), Bytes) + "/s"
	}
	return fmt.Sprintf(", %.0f %s/s", st.Rate, st.Unit)
}

// amount writes a count with its unit; bytes in powers of 1024.
func amount(n int64, unit Unit) string {
	if unit != Bytes {
		return fmt.Sprintf("%d %s", n, unit)
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, prefix := float64(n), -1
	for v >= 1024 && prefix < len("KMGTPE")-1 {
		v /= 1024
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[prefix])
}

// seconds writes a time as a person would: 0.4s, 12s, 3m05s, 2h10m.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}
