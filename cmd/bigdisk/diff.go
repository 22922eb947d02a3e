package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bigdisk/image/inspect"
)

type diffOptions struct {
	JSON bool
	All  bool
}

func newDiff() *cobra.Command {
	var opts diffOptions
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say which modules and store paths two images do not share",
		Long: `Say what image B has that A has not, and the other way round: modules and store
paths that were added, removed, or changed their size. A store path that went and
one that came with the same name count as changed. Sizes are of NARs.`,
		Example: `  bigdisk diff old.sqsh new.sqsh
  bigdisk diff --json old.raw new.sqsh`,
		Args: func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 2, 2) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDiff(cmd.Context(), &opts, args[0], args[1], cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&opts.All, "all", false, "list all store paths, not only the 20 largest of each kind")
	f.BoolVar(&opts.JSON, "json", false, "print the result as JSON")
	return cmd
}

func runDiff(ctx context.Context, opts *diffOptions, from, to string, stdout io.Writer) error {
	var stores [2]*inspect.Store
	for i, name := range []string{from, to} {
		s, err := openStore(ctx, new(manifestOptions), name)
		if err != nil {
			return err
		}
		stores[i] = s
	}
	d := inspect.Diff(stores[0], stores[1])
	if opts.JSON {
		return json.NewEncoder(stdout).Encode(d)
	}
	return printDiff(stdout, d, opts.All)
}

// diffLines is how many store paths of each kind diff lists without --all.
const diffLines = 20

// printDiff writes a difference for people.
func printDiff(w io.Writer, d *inspect.Difference, all bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range d.Modules.Added {
		fmt.Fprintf(t, "+ module %s\t%s\n", harmless(m.ID, ""), humanBytes(m.Closure))
	}
	for _, m := range d.Modules.Removed {
		fmt.Fprintf(t, "- module %s\t%s\n", harmless(m.ID, ""), humanBytes(m.Closure))
	}
	for _, m := range d.Modules.Changed {
		fmt.Fprintf(t, "~ module %s\t%s -> %s\n", harmless(m.ID, ""), humanBytes(m.Before), humanBytes(m.After))
	}
	list(t, all, "+", d.Paths.Added, func(p inspect.Path) (string, string) { return string(p.Path), humanBytes(p.NarSize) })
	list(t, all, "-", d.Paths.Removed, func(p inspect.Path) (string, string) { return string(p.Path), humanBytes(p.NarSize) })
	list(t, all, "~", d.Paths.Changed, func(c inspect.PathChange) (string, string) {
		return c.Name, humanBytes(c.Before) + " -> " + humanBytes(c.After)
	})
	fmt.Fprintf(t, "%d store paths of %s -> %d of %s; %d of %s in both\n",
		d.Before.Paths, humanBytes(d.Before.Size), d.After.Paths, humanBytes(d.After.Size), d.Kept.Paths, humanBytes(d.Kept.Size))
	return t.Flush()
}

// list writes one kind of change to store paths.
func list[T any](w io.Writer, all bool, sign string, changes []T, line func(T) (what, size string)) {
	for i, c := range changes {
		if i == diffLines && !all {
			fmt.Fprintf(w, "%s … and %d more\n", sign, len(changes)-i)
			return
		}
		what, size := line(c)
		fmt.Fprintf(w, "%s %s\t%s\n", sign, what, size)
	}
}
