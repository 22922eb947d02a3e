package publish

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Kind is what an [Item] is.
type Kind string

// The kinds of items.
const (
	KindObject   Kind = "object"
	KindImage    Kind = "image"
	KindSnapshot Kind = "snapshot"
	KindDisk     Kind = "disk"
)

// State is what became of an [Item].
type State string

// The states of items.
const (
	// Found: it was there and is right.
	Found State = "found"
	// Created: it was made by this run.
	Created State = "created"
	// Failed: it could not be made.
	Failed State = "failed"
	// Left: it was not tried, or not waited for, because of something else.
	Left State = "left"
	// Planned: a dry run would make it.
	Planned State = "planned"
)

// Item is one thing that publishing makes.
type Item struct {
	Kind    Kind   `json:"kind"`
	Project string `json:"project,omitempty"`
	// Place is the bucket of an object, the storage location of an image or a
	// snapshot, the zone of a disk.
	Place string `json:"place"`
	Name  string `json:"name"`
	// Type is a disk's type.
	Type  string `json:"type,omitempty"`
	State State  `json:"state"`
	// Bytes is the object's length, or the size that the image, snapshot or
	// disk has for its user; 0 where it is not known.
	Bytes int64 `json:"bytes,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Error says why it failed or was left.
	Error string `json:"error,omitempty"`
}

// Report is what exists where after a run.
type Report struct {
	Service string  `json:"service"`
	Version string  `json:"version"`
	SHA256  string  `json:"sha256"`
	Items   []Item  `json:"items"`
	Seconds float64 `json:"seconds"`
	DryRun  bool    `json:"dryRun,omitempty"`
	// Interrupted is set where the run was stopped from outside.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Count is how many items have the state.
func (r *Report) Count(s State) int {
	n := 0
	for i := range r.Items {
		if r.Items[i].State == s {
			n++
		}
	}
	return n
}

// IncompleteError says that a run ended without having made everything.
type IncompleteError struct {
	Version      string
	Failed, Left int
	First        string // the first failure
	Interrupted  bool
}

// Error counts what is missing and names the first failure.
func (e *IncompleteError) Error() string {
	if e.Interrupted {
		return fmt.Sprintf("interrupted: of version %s %d are left and %d failed", e.Version, e.Left, e.Failed)
	}
	s := fmt.Sprintf("version %s is not complete: %d failed", e.Version, e.Failed)
	if e.Left > 0 {
		s += fmt.Sprintf(" and %d were left because of them", e.Left)
	}
	return s + ": " + e.First
}

// Err is nil where everything is there, or an [*IncompleteError].
func (r *Report) Err() error {
	e := &IncompleteError{Version: r.Version, Failed: r.Count(Failed), Left: r.Count(Left), Interrupted: r.Interrupted}
	if e.Failed == 0 && e.Left == 0 {
		return nil
	}
	for i := range r.Items {
		if it := &r.Items[i]; it.State == Failed {
			e.First = it.Error
			break
		}
	}
	return e
}

// WriteTable writes the report for people: a line an item, then what was wrong,
// then a sum.
func (r *Report) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tPROJECT\tWHERE\tNAME\tSTATE\tSIZE\tTIME")
	for i := range r.Items {
		it := &r.Items[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", it.Kind, dash(it.Project), it.Place, it.Name, it.State, size(it.Bytes), took(it))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i := range r.Items {
		if it := &r.Items[i]; it.Error != "" && it.State == Failed {
			if _, err := fmt.Fprintf(w, "%s %s in %s: %s\n", it.Kind, it.Name, it.Place, it.Error); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(w, r.sum())
	return err
}

// sum is one line about everything.
func (r *Report) sum() string {
	var parts []string
	for _, s := range []State{Created, Found, Planned, Failed, Left} {
		if n := r.Count(s); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return fmt.Sprintf("%s %s: %s in %s", r.Service, r.Version, strings.Join(parts, ", "), seconds(r.Seconds))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func took(it *Item) string {
	if it.State == Left || it.State == Planned {
		return "-"
	}
	return seconds(it.Seconds)
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// size writes bytes in the largest unit that leaves a whole part.
func size(n int64) string {
	if n == 0 {
		return "-"
	}
	f, unit := float64(n), 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for f >= 1024 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	if f == float64(int64(f)) {
		return fmt.Sprintf("%d %s", int64(f), units[unit])
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}
