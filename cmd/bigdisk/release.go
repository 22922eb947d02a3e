package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/gcp/publish"
	"bigdisk/gcp/rollout"
	"bigdisk/pipeline/progress"
	"bigdisk/pipeline/release"
)

// defaultRelease is the release's configuration when none is named.
const defaultRelease = "release.yaml"

// releaseOptions are the flags of bigdisk release.
type releaseOptions struct {
	Config     string
	Version    string
	Abandon    bool
	DryRun     bool
	JSON       bool
	Progress   string
	DeviceDir  string
	Controller controllerOptions
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *releaseOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Config, "config", defaultRelease, "the release's configuration is this `FILE`; paths in it are relative to it")
	f.StringVar(&o.Version, "version", "", "publish as version `V` (default the label that the image was given, else the first 12 digits of its SHA-256)")
	f.BoolVar(&o.Abandon, "abandon", false, "give an unfinished release up, and begin anew; what it published stays, for bigdisk gc")
	f.BoolVar(&o.DryRun, "dry-run", false, "print what would be done, and do nothing")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
	f.StringVar(&o.Progress, "progress", string(progress.Auto), "show progress as `MODE`: auto (bars on a terminal, lines elsewhere), plain, json or none")
	f.StringVar(&o.DeviceDir, "device-dir", "/dev/disk/by-id", "source: disk: attached disks appear in `DIR` as google-NAME")
	o.Controller.AddFlags(f)
}

func newRelease() *cobra.Command {
	var opts releaseOptions
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Take a lock file all the way to the hosts, and go on where it stopped",
		Long: `Check the lock file, build an image on the last release's, verify it, publish it
and roll it out, as the configuration says, which is explained in
configs/release.yaml. What was done is written down in a journal beside the
images: run it again after a failure, an interruption or a kill, and it goes on
with the stage that was not finished. With the same inputs as the last release
there is nothing to do. While one is unfinished, other inputs are an error until
--abandon gives it up.

When the rollout pauses itself, the exit status is 1: look at bigdisk rollout
status, then bigdisk rollout resume, and run this again.`,
		Example: `  bigdisk release --config release.yaml
  bigdisk release --version v12 --json
  bigdisk release --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRelease(cmd.Context(), &opts, cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func runRelease(ctx context.Context, opts *releaseOptions, stdout io.Writer) error {
	if _, err := progress.ParseMode(opts.Progress); err != nil {
		return usageError{fmt.Errorf("--progress: %w", err), "see bigdisk release --help"}
	}
	if err := opts.Controller.check(); err != nil {
		return err
	}
	config, err := loadRelease(opts.Config)
	if err != nil {
		return err
	}
	run, err := config.options(opts)
	if err != nil {
		return err
	}
	if opts.DryRun {
		return planRelease(run, opts, stdout)
	}
	run.Logger = newLogger(os.Stderr)
	result, err := release.Run(ctx, run)
	err = hintedRelease(err, opts.Config)
	if result == nil {
		return err
	}
	return errors.Join(err, printReleased(stdout, opts.JSON, run.Dir, result))
}

// hintedRelease adds what to do to the errors of releases.
func hintedRelease(err error, config string) error {
	again := "bigdisk release --config " + config
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rollout.ErrPaused):
		return hintedError{err, "look at bigdisk rollout status, then bigdisk rollout resume, and run " + again + " to go on; or bigdisk rollout rollback"}
	case errors.As(err, new(hintedError)) || errors.As(err, new(usageError)):
		return err
	case errors.Is(err, release.ErrUnfinished):
		return hintedError{err, "undo the changes to go on with it, or give it up with " + again + " --abandon"}
	case errors.Is(err, release.ErrBusy):
		return hintedError{err, "wait for it"}
	case errors.Is(err, release.ErrJournal):
		return hintedError{err, "put back a copy of it, or move it away: then a run begins anew, and finds what is published already"}
	case errors.Is(err, errNotSound):
		return hintedError{err, again + " --abandon builds it anew"}
	case errors.As(err, new(*publish.IncompleteError)):
		return hintedError{err, again + " goes on with what is missing"}
	case errors.Is(err, context.Canceled):
		return hintedError{errors.New("interrupted"), again + " goes on"}
	}
	return err
}

func planRelease(run release.Options, opts *releaseOptions, stdout io.Writer) error {
	p, err := release.Plan(run)
	if err != nil {
		return hintedRelease(err, opts.Config)
	}
	return printJSONOr(stdout, opts.JSON, p, func(w io.Writer) error {
		if p.Nothing {
			_, err := fmt.Fprintf(w, "nothing to do: run %s released this\n", p.Run.ID)
			return err
		}
		fmt.Fprintf(w, "image: %s in %s\n", p.Image, run.Dir)
		if p.Base != "" {
			fmt.Fprintf(w, "base: %s\n", p.Base)
		}
		fmt.Fprint(w, p.Run.Summary())
		for _, name := range p.Remove {
			fmt.Fprintf(w, "then remove: %s\n", name)
		}
		return nil
	})
}

func printReleased(stdout io.Writer, asJSON bool, dir string, r *release.Result) error {
	return printJSONOr(stdout, asJSON, r, func(w io.Writer) error {
		what := "unfinished"
		switch {
		case r.Nothing:
			what = "nothing to do, it is released"
		case r.Run.Outcome != "":
			what = r.Run.Outcome
		}
		_, err := fmt.Fprintf(w, "run %s, %s in %s: %s\n%s", r.Run.ID, r.Run.Image, dir, what, r.Run.Summary())
		return err
	})
}
