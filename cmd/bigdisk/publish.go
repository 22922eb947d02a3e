package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/publish/objects"
	"bigdisk/image"
	"bigdisk/pipeline/progress"
)

type publishOptions struct {
	manifestOptions
	Config    string
	Version   string
	Format    string
	Source    string
	Base      string
	Builder   string
	DeviceDir string
	Level     int
	Jobs      int
	Patience  time.Duration
	DryRun    bool
	JSON      bool
	Progress  string
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *publishOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Config, "config", defaultFleet, "the fleet's configuration is this `FILE`")
	f.StringVar(&o.Version, "version", "", "publish as version `V` (default the label that the image was given, else the first 12 digits of its SHA-256)")
	o.manifestOptions.AddFlags(f)
	f.StringVar(&o.Format, "format", string(publish.FormatDisk), "disk: images and disks; raw: only the image as it is, in the bucket")
	f.StringVar(&o.Source, "source", sourceImport, "import: Compute Engine imports the image from the bucket; disk: the builder instance writes it to a disk, of which a snapshot is made")
	f.StringVar(&o.Base, "base", "", "--source disk: begin with the snapshot of version `V` and write only what differs")
	f.StringVar(&o.Builder, "builder", "", "--source disk: the instance that this runs on is `PROJECT/ZONE/NAME` (default the configuration's, else what the metadata server says)")
	f.StringVar(&o.DeviceDir, "device-dir", "/dev/disk/by-id", "--source disk: attached disks appear in `DIR` as google-NAME")
	f.IntVar(&o.Level, "level", 0, "compress the archive at `LEVEL` 1 to 9 (default chosen by measurement)")
	f.IntVar(&o.Jobs, "jobs", 0, "`N` parts of the image at a time (default 8)")
	f.DurationVar(&o.Patience, "patience", 15*time.Minute, "wait so `LONG` for zones that are out of resources")
	f.BoolVar(&o.DryRun, "dry-run", false, "print what would be made, and make nothing")
	f.BoolVar(&o.JSON, "json", false, "print the report as JSON")
	f.StringVar(&o.Progress, "progress", string(progress.Auto), "show progress as `MODE`: auto (bars on a terminal, lines elsewhere), plain, json or none")
}

// The values of --source.
const (
	sourceImport = "import"
	sourceDisk   = "disk"
)

func newPublish() *cobra.Command {
	var opts publishOptions
	cmd := &cobra.Command{
		Use:   "publish IMAGE",
		Short: "Take an image to the bucket, to Compute Engine and to every zone",
		Long: `Upload the image as the archive that Compute Engine imports, made while it is
sent, make a Compute Engine image of it for each project and storage location in
the configuration, and disks in every zone. What is there already, and is of this
image, is left as it is: run it again to go on after a failure. A zone that fails
does not stop the others; then the exit status is 1, and the report says which
failed and why. Something of that name that is of another image is an error.

Credentials are the Application Default Credentials. STORAGE_EMULATOR_HOST, and
computeEndpoint in the configuration, name emulators.`,
		Example: `  bigdisk publish disk.raw --config fleet.yaml --dry-run
  bigdisk publish disk.raw --config fleet.yaml --version v12 --json
  bigdisk publish dev.sqsh --format raw
  bigdisk publish big.raw --source disk --base v11        # on the builder instance`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPublish(cmd.Context(), &opts, args[0], cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

// check refuses flags that do not go together.
func (o *publishOptions) check() error {
	hint := "see bigdisk publish --help"
	switch {
	case o.Format != string(publish.FormatDisk) && o.Format != string(publish.FormatRaw):
		return usageError{fmt.Errorf("--format: %q is neither disk nor raw", o.Format), hint}
	case o.Source != sourceImport && o.Source != sourceDisk:
		return usageError{fmt.Errorf("--source: %q is neither import nor disk", o.Source), hint}
	case o.Source == sourceDisk && o.Format == string(publish.FormatRaw):
		return usageError{errors.New("--source disk and --format raw exclude each other"), "the raw format makes no disks"}
	case o.Source != sourceDisk && (o.Base != "" || o.Builder != ""):
		return usageError{errors.New("--base and --builder are for --source disk"), "give --source disk, or leave them out"}
	case o.Level < 0 || o.Level > 9:
		return usageError{fmt.Errorf("--level: %d is not between 1 and 9", o.Level), hint}
	case o.Jobs < 0 || o.Jobs > 256:
		return usageError{fmt.Errorf("--jobs: %d is not between 1 and 256", o.Jobs), hint}
	case o.Patience < 0:
		return usageError{fmt.Errorf("--patience: %v is less than no time", o.Patience), hint}
	}
	return nil
}

func runPublish(ctx context.Context, opts *publishOptions, name string, stdout io.Writer) error {
	report, err := opts.publish(ctx, name)
	if report == nil {
		return err
	}
	if err != nil {
		err = afterInterrupt{err, "the same command goes on from here"}
	}
	return errors.Join(err, printPublished(stdout, opts.JSON, report))
}

// publish publishes an image, and shows how far it is. The report is nil only
// where nothing was tried.
func (opts *publishOptions) publish(ctx context.Context, name string) (*publish.Report, error) {
	mode, err := progress.ParseMode(opts.Progress)
	if err != nil {
		return nil, usageError{fmt.Errorf("--progress: %w", err), "see bigdisk publish --help"}
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	config, err := loadFleet(opts.Config)
	if err != nil {
		return nil, err
	}
	release, err := opts.release(ctx, name)
	if err != nil {
		return nil, err
	}
	tracker := progress.New(nil)
	display := progress.Show(tracker, mode, os.Stderr)
	defer display.Close()
	return publishWith(ctx, opts, config, name, release, tracker, display)
}

// credentialsHint is for services that cannot be connected to.
const credentialsHint = "log in with gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"

// publishWith connects to the services and publishes.
func publishWith(ctx context.Context, opts *publishOptions, config *fleet.Config, name string, release publish.Release,
	tracker *progress.Tracker, messages io.Writer) (*publish.Report, error) {
	log := newLogger(messages)
	storage, err := bucket.New(ctx, bucket.Options{Logger: log})
	if err != nil {
		return nil, hintedError{err, credentialsHint}
	}
	defer storage.Close()
	p := publish.Options{
		Config: config, Release: release, Format: publish.Format(opts.Format), DryRun: opts.DryRun,
		Patience: gce.Retry{Budget: max(opts.Patience, 1)}, Logger: log,
	}
	stages := &publishStages{tracker: tracker, size: release.Size}
	p.Notify = stages.item
	uploader := &objects.Uploader{
		Client: storage, Bucket: config.Bucket, Image: name, Manifest: opts.manifestFile(name),
		SHA256: release.SHA256, Size: release.Size, Parallel: opts.Jobs, Progress: stages.sent,
	}
	uploader.Archive.Level, p.Uploader = opts.Level, uploader
	if p.Format == publish.FormatRaw {
		return stages.run(ctx, p)
	}
	compute, err := gce.New(ctx, gce.Options{
		Endpoint: config.ComputeEndpoint, MutationsPerSecond: config.Publish.MutationsPerSecond, Logger: log,
	})
	if err != nil {
		return nil, hintedError{err, credentialsHint}
	}
	defer compute.Close()
	p.Compute = compute
	if opts.Source == sourceDisk {
		if p.FromDisk, err = opts.fromDisk(ctx, config, name, release, stages); err != nil {
			return nil, err
		}
	}
	return stages.run(ctx, p)
}

// manifestFile is where the manifest is that goes with the image.
func (o *publishOptions) manifestFile(name string) string {
	if o.Manifest != "" {
		return o.Manifest
	}
	return image.ManifestName(name)
}

// release is the image as its manifest describes it or, without one, as it is.
func (o *publishOptions) release(ctx context.Context, name string) (publish.Release, error) {
	f, err := os.Open(name)
	if err != nil {
		return publish.Release{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return publish.Release{}, fmt.Errorf("%s: %w", name, err)
	}
	m, err := o.load(name)
	if err != nil {
		return publish.Release{}, err
	}
	r := publish.Release{Version: o.Version, Size: size, Suffix: filepath.Ext(name), NoManifest: m == nil}
	var label string
	if m == nil {
		sum, err := image.HashExtents(ctx, f, []image.Extent{{Length: size}}, func(int64) {})
		if err != nil {
			return publish.Release{}, fmt.Errorf("%s: %w", name, err)
		}
		r.SHA256 = sum.String()
	} else {
		if m.Image.Size != size {
			return publish.Release{}, hintedError{fmt.Errorf("%s has %d bytes, and its manifest says %d", name, size, m.Image.Size), "build it again, or give the right --manifest"}
		}
		r.SHA256, label = m.Image.SHA256.String(), m.Image.Label
	}
	if r.Version == "" {
		r.Version = versionOf(label, r.SHA256)
	}
	if err := fleet.CheckVersion(r.Version); err != nil {
		return publish.Release{}, usageError{err, "give another one with --version"}
	}
	return r, nil
}

// ownLabel is what bigdisk build calls an image that is given no label.
var ownLabel = regexp.MustCompile(`^(bigdisk-[0-9a-f]{7})?$`)

// versionOf is what an image is published as where nobody says.
func versionOf(label, sha256 string) string {
	if ownLabel.MatchString(label) || strings.ContainsAny(label, " \t\n") {
		return sha256[:12]
	}
	return label
}

// printPublished writes the report to standard output.
func printPublished(stdout io.Writer, asJSON bool, r *publish.Report) error {
	if asJSON {
		return json.NewEncoder(stdout).Encode(r)
	}
	return r.WriteTable(stdout)
}
