// Command bench measures bigdisk beside the tools that it replaces, on one
// store, in one run, in turn, and prints tables for the README.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

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

--only picks tables: squashfs; front, time against size for the levels of
compression; blocks, block sizes with the time of a cold random read, for which
it mounts images as root; cache, from a binary cache, for which Nix makes a
store as root; ext4.`,
		Example:       "  go run ./cmd/bench --store corpus/root --lock corpus/modules.json --cache file://$PWD/corpus/cache",
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
	f.StringSliceVar(&o.only, "only", []string{"squashfs", "front", "blocks", "cache", "ext4"}, "tables to make")
	if err := c.MarkFlagRequired("store"); err != nil {
		panic(err) // the flag is defined above
	}
	c.AddCommand(madeCommand())
	return c
}

type options struct {
	store, lock, cache, scratch string
	rounds                      int
	only                        []string
}
