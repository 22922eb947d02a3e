package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/image"
	"bigdisk/image/verify"
	"bigdisk/pipeline/progress"
)

// errNotSound ends a verification that found something.
var errNotSound = errors.New("the image is not sound")

// manifestOptions say where an image's manifest is.
type manifestOptions struct {
	Manifest string
	None     bool
}

// AddFlags binds the options to flags.
func (o *manifestOptions) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Manifest, "manifest", "", "the image's manifest is this `FILE` (default IMAGE.manifest.json, if it is there)")
	f.BoolVar(&o.None, "no-manifest", false, "do without a manifest")
}

// load returns the manifest, nil if there is none.
func (o *manifestOptions) load(imageName string) (*image.Manifest, error) {
	switch {
	case o.None && o.Manifest != "":
		return nil, usageError{errors.New("--manifest and --no-manifest exclude each other"), "give one of them"}
	case o.None:
		return nil, nil
	case o.Manifest != "":
		return image.ReadManifest(o.Manifest)
	}
	return verify.LoadManifest(imageName)
}

type verifyOptions struct {
	manifestOptions
	Jobs     int
	NoScan   bool
	Progress string
	JSON     bool
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *verifyOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	o.manifestOptions.AddFlags(f)
	f.BoolVar(&o.NoScan, "no-scan", false, "do not search contents for store paths that the database has no reference for")
	f.IntVar(&o.Jobs, "jobs", 0, "`N` workers (default the number of CPUs)")
	f.StringVar(&o.Progress, "progress", string(progress.Auto), "show progress as `MODE`: auto (bars on a terminal, lines elsewhere), plain, json or none")
	f.BoolVar(&o.JSON, "json", false, "print the report as JSON")
}

func newVerify() *cobra.Command {
	var opts verifyOptions
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check an image against its database, its manifest and itself",
		Long: `Read all of an image again, with a reader that shares no code with what writes
images, and check every NAR hash and size against the database, that everything
a store path refers to is there, that database, disk and manifest list the same
paths, modes, owners and times, and the structures of the filesystem. The image
may be a file or a block device, and made by others (mksquashfs, mke2fs -d).
Each thing that is wrong is a line on standard output; then the exit status is 1.`,
		Example: `  bigdisk verify disk.sqsh
  bigdisk verify --json --manifest disk.raw.manifest.json /dev/disk/by-id/google-bigdisk`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), &opts, args[0], cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

// oneImage wants one argument, an image.
func oneImage(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 1, 1) }

// wantArgs wants between least and most arguments.
func wantArgs(cmd *cobra.Command, args []string, least, most int) error {
	hint := "usage: " + cmd.UseLine()
	switch {
	case len(args) < least:
		return usageError{fmt.Errorf("%s takes %d arguments, and got %d", cmd.CommandPath(), least, len(args)), hint}
	case len(args) > most:
		return usageError{fmt.Errorf("%s takes no argument %q", cmd.CommandPath(), args[most]), hint}
	}
	return nil
}

func runVerify(ctx context.Context, opts *verifyOptions, name string, stdout io.Writer) error {
	r, err := opts.verify(ctx, name)
	if err != nil {
		return err
	}
	if opts.JSON {
		err = json.NewEncoder(stdout).Encode(r)
	} else {
		err = printReport(stdout, name, r)
	}
	if err == nil && !r.OK() {
		err = fmt.Errorf("%s: %w: errors: %d", name, errNotSound, r.Errors)
	}
	return err
}

// verify verifies an image, and shows how far it is.
func (opts *verifyOptions) verify(ctx context.Context, name string) (*verify.Report, error) {
	mode, err := progress.ParseMode(opts.Progress)
	if err != nil {
		return nil, usageError{fmt.Errorf("--progress: %w", err), "see bigdisk verify --help"}
	}
	if opts.Jobs < 0 {
		return nil, usageError{fmt.Errorf("--jobs %d: it cannot be negative", opts.Jobs), "see bigdisk verify --help"}
	}
	m, err := opts.load(name)
	if err != nil {
		return nil, err
	}
	tracker := progress.New(nil)
	display := progress.Show(tracker, mode, os.Stderr)
	defer display.Close()
	return verify.Verify(ctx, verify.Options{
		Image: name, Manifest: m, Jobs: opts.Jobs, NoScan: opts.NoScan,
		Stage: func(what string, total int64) verify.Counter { return tracker.Stage(what, progress.Bytes, total) },
	})
}

// printReport writes a line for each finding, and one for all.
func printReport(w io.Writer, name string, r *verify.Report) error {
	for _, f := range r.Findings {
		level := "error"
		if f.Warning {
			level = "warning"
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", level, harmless(f.String(), "")); err != nil {
			return err
		}
	}
	if more := r.Errors + r.Warnings - int64(len(r.Findings)); more > 0 {
		if _, err := fmt.Fprintf(w, "and %d more\n", more); err != nil {
			return err
		}
	}
	against := "without a manifest"
	if r.Manifest {
		against = "against its manifest"
	}
	_, err := fmt.Fprintf(w, "%s: %s, %d store paths, %d files of %s, verified %s: errors: %d, warnings: %d\n",
		name, cmp.Or(r.Info.Format, "no filesystem that can be read"), r.StorePaths, r.Files, humanBytes(r.Bytes), against, r.Errors, r.Warnings)
	return err
}
