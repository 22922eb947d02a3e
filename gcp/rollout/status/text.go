package status

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"bigdisk/gcp/rollout/state"
)

// maxLines is how many hosts are listed for people.
const maxLines = 20

// Text writes the status for people.
func (s *Status) Text(w io.Writer) error {
	var b strings.Builder
	s.head(&b)
	if s.Rollout != nil {
		s.Rollout.text(&b, s.Read)
	}
	if c := s.Reconcile; c != nil {
		fmt.Fprintf(&b, "last reconciliation: %s, %d hosts, %d right, %d repaired, %d failed, %d sick\n",
			stamp(c.At), c.Hosts, c.Right, c.Repaired, len(c.Failed), len(c.Sick))
		if c.Stopped != "" {
			fmt.Fprintf(&b, "it has stopped: %s\n", c.Stopped)
		}
		hosts(&b, "could not be repaired", listed(c.Failed))
		hosts(&b, "sick", listed(c.Sick))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Status) head(b *strings.Builder) {
	deployed := s.Deployed
	if deployed == "" {
		deployed = "nothing"
	}
	if s.Mixed != "" {
		deployed = "mixed: " + s.Mixed
	}
	fmt.Fprintf(b, "service %s, deployed: %s\n", s.Service, deployed)
	switch {
	case s.Controller == "":
		fmt.Fprintln(b, "controller: none at work")
	case s.Silent:
		fmt.Fprintf(b, "controller: %s: silent for %s, it may be dead, or its machine and this one disagree about the time\n", s.Controller, span(time.Duration(s.Heartbeat*float64(time.Second))))
	default:
		fmt.Fprintf(b, "controller: %s\n", s.Controller)
	}
	if q := s.Request; q != nil {
		fmt.Fprintf(b, "asked for by %s, not done yet: %s\n", q.By, q.Action)
	}
}

func (r *Rollout) text(b *strings.Builder, now time.Time) {
	from := r.Previous
	if from == "" {
		from = "nothing"
	}
	fmt.Fprintf(b, "\n%s from %s to %s: %s\n", r.Kind, from, r.Version, strings.ToUpper(r.Phase))
	if r.Reason != "" {
		fmt.Fprintf(b, "why: %s\n", r.Reason)
	}
	fmt.Fprintf(b, "%d of %d hosts done, %d in change, %d failed", r.Done, r.Hosts, r.Changing, r.Failed)
	if r.ETASeconds != nil {
		fmt.Fprintf(b, "; about %s left", span(time.Duration(*r.ETASeconds*float64(time.Second))))
	}
	fmt.Fprintln(b)
	for _, w := range r.Waiting {
		fmt.Fprintf(b, "waiting: %s\n", w)
	}
	r.tables(b)
	hosts(b, "failed", r.Failing)
	hosts(b, "in change", r.InChange)
	if r.Phase == state.Paused {
		fmt.Fprintf(b, "\nnext: bigdisk rollout resume, rollback or abort\n")
	}
}

func (r *Rollout) tables(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nWAVE\tSTATE\tHOSTS\tDONE\tIN CHANGE\tFAILED\tMAY FAIL\tBAKE")
	for _, w := range r.Waves {
		bake := span(time.Duration(w.Bake * float64(time.Second)))
		if w.State == Baking {
			bake += " until " + stamp(w.BakeUntil)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", w.Name, w.State, w.Hosts, w.Done, w.Changing, w.Failed, w.Allowed, bake)
	}
	fmt.Fprintln(t, "\nZONE\tHOSTS\tDONE\tIN CHANGE\tFAILED")
	for _, z := range r.Zones {
		note := ""
		if z.Unknown != "" {
			note = "\tunknown: " + z.Unknown
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d%s\n", z.Zone, z.Hosts, z.Done, z.Changing, z.Failed, note)
	}
	// A strings.Builder takes everything.
	_ = t.Flush()
}

func hosts(b *strings.Builder, title string, all []Host) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for i, h := range all {
		if i == maxLines {
			fmt.Fprintf(b, "  and %d more\n", len(all)-maxLines)
			break
		}
		fmt.Fprintf(b, "  %s  %s  %s\n", h.Host, stamp(h.At), h.Why)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func span(d time.Duration) string { return d.Round(time.Second).String() }
