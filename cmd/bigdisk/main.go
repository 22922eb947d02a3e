// Command bigdisk turns a lock file of Nix modules into disks that thousands
// of hosts mount.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the whole command: it returns the exit status. The first interrupt
// cancels the command, which then cleans up after itself; a second one kills.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	return report(os.Stderr, ctx, root.ExecuteContext(ctx))
}
