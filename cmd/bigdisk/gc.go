package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bigdisk/gcp/gc"
)

// gcWait is the time between two looks where nobody says.
const gcWait = 5 * time.Minute

func newGC() *cobra.Command {
	var opts fleetOptions
	var remove bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "List the versions that nothing uses, and with --delete delete them",
		Long: `Find versions that no instance has attached, boots from or names in a template,
that no rollout refers to, that are not among the newest (retention.keepVersions),
are old enough (retention.minAge) and not protected. With --delete, look twice, and
delete the disks, snapshots, images and objects that both looks found. Only what
has the service's label is touched; nothing is deleted that may be used where
something cannot be read, and then the exit status is 1. Without --delete nothing
is changed.`,
		Example: "  bigdisk gc\n  bigdisk gc --delete --wait 10m --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return usageError{fmt.Errorf("--wait: %v is less than no time", wait), "see bigdisk gc --help"}
			}
			return runGC(cmd.Context(), &opts, remove, wait, cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&remove, "delete", false, "delete what may go")
	cmd.Flags().DurationVar(&wait, "wait", gcWait, "with --delete: so `LONG` between the two looks")
	return cmd
}

func runGC(ctx context.Context, opts *fleetOptions, remove bool, wait time.Duration, stdout io.Writer) error {
	s, c, err := connect(ctx, opts, false, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.compute, err = newCompute(ctx, s.Config, os.Stderr); err != nil {
		return err
	}
	report, err := gc.Run(ctx, gc.Options{
		Config: s.Config, Compute: c.compute, Objects: c.storage, State: s.Store, Delete: remove, Wait: wait, Log: s.Options.Log,
	})
	if opts.JSON {
		return errors.Join(hinted(err), printJSON(stdout, report))
	}
	return errors.Join(hinted(err), printGC(stdout, report, remove))
}

func printGC(w io.Writer, r *gc.Report, remove bool) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tMADE\tTHINGS\tWHAT BECOMES OF IT")
	for _, v := range r.Versions {
		fate := v.Keep
		if fate == "" {
			fate = "may go"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", v.Version, v.Created.UTC().Format("2006-01-02 15:04Z"), len(v.Resources), fate)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, group := range []struct {
		what string
		of   map[string]string
	}{{"cannot be read", r.Unknown}, {"stays", r.Spared}, {"could not be deleted", r.Failed}} {
		for _, name := range slices.Sorted(maps.Keys(group.of)) {
			fmt.Fprintf(w, "%s: %s: %s\n", group.what, name, group.of[name])
		}
	}
	done, list := "may go", r.Delete
	if remove {
		done, list = "deleted", r.Deleted
	}
	for i := range list {
		fmt.Fprintf(w, "%s: %s\n", done, list[i].Path())
	}
	hint := ""
	if !remove && len(list) > 0 {
		hint = "; nothing was changed: --delete deletes"
	}
	_, err := fmt.Fprintf(w, "%d things of %d versions, %d %s%s\n", things(r), len(r.Versions), len(list), done, hint)
	return err
}

func things(r *gc.Report) int {
	n := 0
	for _, v := range r.Versions {
		n += len(v.Resources)
	}
	return n
}
