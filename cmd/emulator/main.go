// Command emulator is a small Google Cloud on this machine, to try bigdisk on: a
// Cloud Storage, a Compute Engine with the projects and zones of a fleet.yaml, and
// simulated hosts in each zone, which report on the disks that they are given.
// Nothing of it is left when it ends.
//
//	go run ./cmd/emulator COMMAND…        # runs the command, with STORAGE_EMULATOR_HOST set
//	go run ./cmd/emulator                 # runs until it is interrupted
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// The exit statuses, as bigdisk has them.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var opts options
	flag.StringVar(&opts.config, "config", "configs/example/fleet.yaml", "the fleet's configuration `FILE`; its computeEndpoint is where Compute Engine listens")
	flag.StringVar(&opts.storage, "storage", "127.0.0.1:4443", "Cloud Storage listens on this `ADDRESS`")
	flag.IntVar(&opts.hosts, "hosts", 6, "`N` simulated hosts in each zone")
	flag.StringVar(&opts.labels, "labels", "role=repl-host", "the hosts have these `LABELS`, KEY=VALUE,…")
	flag.IntVar(&opts.sick, "sick", 0, "`N` hosts of each zone report that new disks are damaged")
	flag.DurationVar(&opts.mount, "mount", time.Second, "hosts take up to so `LONG` to mount a disk")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: emulator [flags] [COMMAND…]\n\nA small Google Cloud for COMMAND, or until it is interrupted.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	c, err := start(opts)
	if err != nil {
		fmt.Fprintf(os.Stderr, "emulator: %v\n", err)
		return exitUsage
	}
	defer c.close()
	if flag.NArg() == 0 {
		fmt.Printf("export STORAGE_EMULATOR_HOST=http://%s\n", opts.storage)
		fmt.Fprintf(os.Stderr, "emulator: Compute Engine is at %s, with %d hosts; interrupt it to end it\n", c.compute.URL(), len(c.current()))
		<-ctx.Done()
	} else if err := command(ctx, opts, flag.Args()); err != nil {
		c.report()
		return status(err)
	}
	return c.report()
}

// command runs a command in the emulator's environment.
func command(ctx context.Context, opts options, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST=http://"+opts.storage)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	return cmd.Run()
}

// status is the command's exit status, if it had one.
func status(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	fmt.Fprintf(os.Stderr, "emulator: %v\n", err)
	return exitFailure
}
