// Command bigdisk turns a lock file of Nix modules into disks that thousands
// of hosts mount.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bigdisk/pipeline/memory"
)

func main() { os.Exit(run(os.Args[1:])) }

// grace is how long after a first signal another one is taken for the same:
// timeout(1) and terminals send to a process and to its group.
const grace = time.Second

// run is the whole command: it returns the exit status. The first interrupt
// cancels the command, which then cleans up after itself; a later one kills.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, stop) })
	memory.Limit(ctx)

	root := newRoot()
	root.SetArgs(args)
	return report(os.Stderr, ctx, root.ExecuteContext(ctx))
}
