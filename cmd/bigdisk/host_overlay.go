package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bigdisk/pipeline/host"
)

type hostOverlayOptions struct {
	serviceOptions
	Lowers   []string
	Upper    string
	At       string
	DropLost bool
	JSON     bool
}

func newHostOverlay() *cobra.Command {
	var opts hostOverlayOptions
	cmd := &cobra.Command{
		Use:   "overlay (--service NAME|--lower DIR) --upper DIR",
		Short: "Mount a writable Nix store over the disk, and print its URL",
		Long: `Mount the kernel's overlay of the service's current disk and a directory at
/nix/store, and print what Nix (2.26 or newer) calls the store: a local-overlay
store, in which builds go into the directory and refer to what is on the disk. The
directory holds Nix's database, too: all of it outlives the disk.

Called again when another disk is current, and while Nix is not running, it moves
the store there. What was built needs store paths: those that the new disk lacks
are copied from the old one, if that is still mounted, or the store is. Where the
store cannot move, it stays where it was.

--lower names the directory where a disk is mounted; several make one store of
several disks. Nix wants these experimental features: nix-command,
read-only-local-store, local-overlay-store.`,
		Example: `  nix-build --store "$(bigdisk host overlay --service nix --upper /var/lib/upper)" new.nix
  bigdisk host overlay --lower /mnt/nix/current --lower /mnt/extra/current --upper /var/lib/upper`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Upper == "" || (opts.Service == "") == (len(opts.Lowers) == 0) {
				return usageError{errors.New("it takes --upper, and either --service or --lower"), "see bigdisk host overlay --help"}
			}
			return runHostOverlay(cmd.Context(), &opts, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	opts.AddFlags(f)
	f.StringArrayVar(&opts.Lowers, "lower", nil, "stand on the disk that is mounted at this `DIRECTORY` (repeatable; default the service's current one)")
	f.StringVar(&opts.Upper, "upper", "", "what is built, and Nix's database, goes into this `DIRECTORY`")
	f.StringVar(&opts.At, "at", host.DefaultStoreAt, "mount the store at this `DIRECTORY`; builds work at the default only")
	f.BoolVar(&opts.DropLost, "drop-lost", false, "give up what was built on store paths that are on no disk any more")
	f.BoolVar(&opts.JSON, "json", false, "print the URL, and what was done, as JSON")
	return cmd
}

func runHostOverlay(ctx context.Context, opts *hostOverlayOptions, stdout io.Writer) error {
	if os.Geteuid() != 0 {
		return hintedError{errors.New("only root may mount"), "run it with sudo"}
	}
	lowers := opts.Lowers
	if len(lowers) == 0 {
		lowers = []string{filepath.Join(opts.MountRoot, opts.Service, "current")}
	}
	l, err := host.Overlay(ctx, host.OverlayOptions{
		Lowers: lowers, Upper: opts.Upper, At: opts.At, DropLost: opts.DropLost, Logger: newLogger(os.Stderr),
	})
	if errors.Is(err, fs.ErrNotExist) && len(opts.Lowers) == 0 {
		return hintedError{fmt.Errorf("nothing is current: %w", err), "bigdisk host mount --service " + opts.Service + " mounts what is attached"}
	}
	if errors.Is(err, host.ErrLost) {
		return hintedError{err, "attach and mount the disk from before, or give up what was built on them with --drop-lost"}
	}
	if err != nil {
		return err
	}
	if opts.JSON {
		return json.NewEncoder(stdout).Encode(l)
	}
	for _, p := range l.Copied {
		fmt.Fprintf(os.Stderr, "bigdisk: %s: copied, since the new disk lacks it\n", p)
	}
	_, err = fmt.Fprintln(stdout, l.URL)
	return err
}
