package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is one line of a table: a contender, what it cost at best, and the size
// of what it made.
type row struct {
	name   string
	cost   cost
	size   int64
	extra  []string
	failed string // why there is nothing to tell
}

// printTable writes rows as a Markdown table. The first is what the others
// are measured by.
func printTable(w io.Writer, title string, rows []row, extra ...string) {
	head := append([]string{title, "wall", "ratio", "CPU", "peak memory", "size", "ratio"}, extra...)
	fmt.Fprintf(w, "\n| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		if r.failed != "" {
			fmt.Fprintf(w, "| %s | %s |%s\n", r.name, r.failed, strings.Repeat(" |", len(head)-2))
			continue
		}
		cells := []string{
			r.name,
			seconds(r.cost.wall), ratio(float64(r.cost.wall), float64(rows[0].cost.wall)),
			seconds(r.cost.cpu), peak(r.cost.peak),
			megabytes(r.size), ratio(float64(r.size), float64(rows[0].size)),
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(append(cells, r.extra...), " | "))
	}
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// cells are wall time, CPU time and peak memory.
func (c cost) cells() []string { return []string{seconds(c.wall), seconds(c.cpu), peak(c.peak)} }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// peak shows memory. What the kernel says of a process is never less than what
// the one that started it took at that moment.
func peak(bytes int64) string {
	var own unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &own) == nil && bytes <= own.Maxrss<<10 {
		return fmt.Sprintf("≤ %.0f MB", float64(bytes)/1e6)
	}
	return fmt.Sprintf("%.0f MB", float64(bytes)/1e6)
}

func megabytes(bytes int64) string {
	if bytes == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
