package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bigdisk/gcp/guest"
	"bigdisk/image"
	"bigdisk/pipeline/host"
)

type hostMountOptions struct {
	serviceOptions
	Version   string
	Manifest  string
	Label     string
	RootHash  string
	Sample    int
	Blocks    int
	Full      bool
	Keep      int
	Watch     bool
	Poll      time.Duration
	Heartbeat time.Duration
	NoReport  bool
	JSON      bool
}

func newHostMount() *cobra.Command {
	var opts hostMountOptions
	cmd := &cobra.Command{
		Use:   "mount --service NAME",
		Short: "Check the attached disk, mount it and make it current",
		Long: `Find the disk of the service that was attached last, or that of --version; check
its filesystem, label, length and hash tree, mount it read-only at
MOUNT-ROOT/SERVICE/VERSION, check its database, its modules and the contents of
some store paths, and let the symlink MOUNT-ROOT/SERVICE/current name it. A disk
that does not pass is refused, and what was current before still is. On Compute
Engine the outcome is reported in the instance's guest attributes.

A manifest tells what the disk should be: --manifest names a file, in which
{service} and {version} stand for theirs, or a bucket, as gs://BUCKET, that
bigdisk publish has put it into. Without one, a manifest beside an image file is
taken, and a disk is held against nothing but itself.`,
		Example: `  bigdisk host mount --service nix --watch
  bigdisk host mount --service nix --version v12 --manifest gs://example-disks
  bigdisk host mount --service nix --device-dir . --mount-root /tmp/mnt   # ./google-nix-v1 is an image file`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.check(cmd); err != nil {
				return err
			}
			return runHostMount(cmd.Context(), &opts, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	opts.AddFlags(f)
	opts.addDeviceDir(f)
	f.StringVar(&opts.Version, "version", "", "mount this `VERSION` (default the disk that was attached last)")
	f.StringVar(&opts.Manifest, "manifest", "", "hold the disk against this `FILE`, or that in gs://BUCKET")
	f.StringVar(&opts.Label, "label", "", "refuse a disk with another label than `TEXT` (default the manifest's)")
	f.StringVar(&opts.RootHash, "root-hash", "", "refuse a disk with another dm-verity root hash than `HEX` (default the manifest's)")
	f.IntVar(&opts.Sample, "sample", host.DefaultSample, "hash `N` store paths")
	f.IntVar(&opts.Blocks, "sample-blocks", host.DefaultBlocks, "hold `N` blocks against the hash tree")
	f.BoolVar(&opts.Full, "full", false, "read and check all of the disk")
	f.IntVar(&opts.Keep, "keep", 1, "leave the `N` versions before mounted")
	f.BoolVar(&opts.Watch, "watch", false, "go on, and follow the disks that are attached and detached")
	f.DurationVar(&opts.Poll, "poll", host.DefaultPoll, "with --watch, look for disks so often")
	f.DurationVar(&opts.Heartbeat, "heartbeat", host.DefaultHeartbeat, "with --watch, report so often though nothing has changed")
	f.BoolVar(&opts.NoReport, "no-report", false, "write no guest attributes")
	f.BoolVar(&opts.JSON, "json", false, "print the result as JSON")
	return cmd
}

func runHostMount(ctx context.Context, opts *hostMountOptions, stdout io.Writer) error {
	o := opts.options()
	o.Version, o.Label, o.Sample, o.Blocks, o.Full, o.Keep = opts.Version, opts.Label, opts.Sample, opts.Blocks, opts.Full, opts.Keep
	o.Logger = newLogger(os.Stderr)
	if opts.RootHash != "" {
		o.RootHash = new(image.HexSHA256)
		if err := o.RootHash.UnmarshalText([]byte(opts.RootHash)); err != nil {
			return usageError{fmt.Errorf("--root-hash: %w", err), "bigdisk build --verity writes it into the manifest"}
		}
	}
	o.Manifest = opts.findManifest
	if os.Geteuid() != 0 {
		return hintedError{errors.New("only root may mount"), "run it with sudo, or look into an image with bigdisk ls and cat"}
	}
	if reports := !opts.NoReport && (os.Getenv(guest.HostVariable) != "" || onGoogle()); reports {
		w, err := guest.NewWriter(opts.Service, guest.Options{})
		if err != nil {
			return err
		}
		o.Reporter = w
	}
	if opts.Watch {
		notify := func(status string) { notifySystemd("READY=1\nSTATUS=" + status) }
		return host.Watch(ctx, o, host.WatchOptions{Poll: opts.Poll, Heartbeat: opts.Heartbeat, Ready: notify})
	}
	result, err := host.Mount(ctx, o)
	if result != nil && result.Current != "" {
		if printErr := opts.print(stdout, result); err == nil {
			err = printErr
		}
	}
	return err
}

func (o *hostMountOptions) print(stdout io.Writer, r *host.Result) error {
	if o.JSON {
		return json.NewEncoder(stdout).Encode(r)
	}
	what := "was current before"
	if r.Switched {
		what = "is current now"
	}
	_, err := fmt.Fprintf(stdout, "%s: %s\n", r.Path, what)
	return err
}

// notifySystemd tells the service manager, if it has started us, see
// sd_notify(3). Nobody is there to be told of a failure.
func notifySystemd(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	bytes.NewBufferString(state).WriteTo(conn)
}
