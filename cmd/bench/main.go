// Command bench measures bigdisk beside the tools that it replaces, on one
// store, in one run, in turn, and prints tables for the README.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "bench --store DIR --lock FILE",
		Short: "measure bigdisk beside the tools that it replaces",
		Long: `bench makes images of one store with bigdisk and with the tools that it
replaces, in turn, several times, and prints for each the best wall time, its CPU
time and peak memory, and the size of what came out. A tool that is missing is
named and left out.

--only picks tables:

` + describeTables(),
		Example: `  go run ./cmd/bench --store corpus/root --lock corpus/modules.json --cache file://$PWD/corpus/cache
  go run ./cmd/bench --only scale --scale 10000,100000,1000000`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return run(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.store, "store", "", "the store: a directory as Nix's local?root=DIR")
	f.StringVar(&o.lock, "lock", "modules.json", "the lock file")
	f.StringVar(&o.cache, "cache", "", "the same store as a binary cache, file:///DIR, for the cache table")
	f.StringVar(&o.scratch, "scratch", os.TempDir(), "a directory on a disk with room for several images")
	f.IntVar(&o.rounds, "rounds", 3, "how often each is run; the best time counts")
	f.DurationVar(&o.limit, "limit", 2*time.Minute, "how long a contender may take that is not known to finish")
	f.IntSliceVar(&o.scale, "scale", []int{10_000, 100_000, 1_000_000}, "store paths of the synthetic stores")
	f.StringSliceVar(&o.only, "only", nil, "tables to make (default all)")
	c.AddCommand(madeCommand(), databaseCommand(), diskfsCommand(), rebuildCommand(), targzCommand())
	return c
}

func describeTables() string {
	var b strings.Builder
	for _, t := range tables() {
		fmt.Fprintf(&b, "  %-9s %s\n", t.name, t.what)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
