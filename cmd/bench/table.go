package main

import (
	"fmt"
	"io"
	"strings"
)

// row is one line of a table: a contender, what it cost at best, and the size
// of what it made.
type row struct {
	name  string
	cost  cost
	size  int64
	extra []string
}

// printTable writes rows as a Markdown table. The first is what the others
// are measured by.
func printTable(w io.Writer, title string, rows []row, extra ...string) {
	head := append([]string{title, "wall", "ratio", "CPU", "peak memory", "size", "ratio"}, extra...)
	fmt.Fprintf(w, "\n| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		cells := []string{
			r.name,
			fmt.Sprintf("%.2f s", r.cost.wall.Seconds()), ratio(float64(r.cost.wall), float64(rows[0].cost.wall)),
			fmt.Sprintf("%.2f s", r.cost.cpu.Seconds()), fmt.Sprintf("%.0f MB", float64(r.cost.peak)/1e6),
			fmt.Sprintf("%.1f MB", float64(r.size)/1e6), ratio(float64(r.size), float64(rows[0].size)),
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(append(cells, r.extra...), " | "))
	}
}

func ratio(a, b float64) string {
	if b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}
