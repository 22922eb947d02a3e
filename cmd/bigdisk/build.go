package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/image/squashfs"
	"bigdisk/pipeline"
	"bigdisk/pipeline/progress"
)

// defaultLock is the lock file when none is named and no store path is given.
const defaultLock = "modules.json"

// buildOptions are the flags of bigdisk build. The yaml keys are the flags'
// names, so that a configuration file can hold any of them.
type buildOptions struct {
	Config string `yaml:"-"`

	Lock    string   `yaml:"lock"`
	Modules []string `yaml:"module"`
	Latest  int      `yaml:"latest"`
	Select  string   `yaml:"select"`
	Paths   []string `yaml:"path"`

	From        []string   `yaml:"from"`
	TrustedKeys []string   `yaml:"trusted-key"`
	NoCheckSigs bool       `yaml:"no-check-sigs"`
	KeepGoing   bool       `yaml:"keep-going"`
	SkipMissing bool       `yaml:"skip-missing"`
	Nix         nixOptions `yaml:",inline"`

	Base         string `yaml:"base"`
	BaseOptional bool   `yaml:"base-optional"`
	TrustBase    bool   `yaml:"trust-base"`
	BaseManifest string `yaml:"base-manifest"`
	InPlace      bool   `yaml:"in-place"`

	Cache     string   `yaml:"cache"`
	CacheSize byteSize `yaml:"cache-size"`

	Output      string   `yaml:"output"`
	Format      string   `yaml:"format"`
	Compression string   `yaml:"compression"`
	BlockSize   byteSize `yaml:"block-size"`
	Owner       owner    `yaml:"owner"`
	Label       string   `yaml:"label"`
	Size        byteSize `yaml:"size"`
	Writable    bool     `yaml:"writable"`
	Verity      bool     `yaml:"verity"`
	Partition   string   `yaml:"partition"`
	Verify      bool     `yaml:"verify"`

	AutoUpgrade      string `yaml:"auto-upgrade"`
	RecommendUpgrade string `yaml:"recommend-upgrade"`
	ActiveModules    string `yaml:"active-modules"`
	Mapping          string `yaml:"mapping"`

	Jobs     int    `yaml:"jobs"`
	Progress string `yaml:"progress"`
	JSON     bool   `yaml:"json"`
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *buildOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Config, "config", "", "read flags from this YAML `FILE`; paths in it are relative to it, and the command line wins")
	f.StringVar(&o.Lock, "lock", "", "the lock `FILE` (default \""+defaultLock+"\", or none with --path alone)")
	f.StringArrayVar(&o.Modules, "module", nil, "build only this `ID` or ID:TAG; a bare ID is its newest version (repeatable)")
	f.IntVar(&o.Latest, "latest", 0, "build the newest `N` versions of each module, or of each bare --module ID")
	f.StringVar(&o.Select, "select", "", "build only `WHAT`: terminal, the ends of the automatic upgrades and what leads to them directly")
	f.StringArrayVar(&o.Paths, "path", nil, "one more store `PATH` to put on the disk (repeatable)")

	f.StringArrayVar(&o.From, "from", nil, "take store paths from this `STORE`: nix, which substitutes or builds them, a directory with a Nix store in it\n(/ is this machine's), file:///DIR, file:DIR, http(s)://HOST, gs://BUCKET or s3://BUCKET, a binary cache (repeatable, tried in this order;\ndefault nix where it is installed)")
	f.StringArrayVar(&o.TrustedKeys, "trusted-key", nil, "accept what `NAME:BASE64` has signed (repeatable; default cache.nixos.org-1's)")
	f.BoolVar(&o.NoCheckSigs, "no-check-sigs", false, "accept what nobody has signed")
	f.BoolVar(&o.KeepGoing, "keep-going", false, "when a module cannot be had, go on with the others to report all that cannot")
	f.BoolVar(&o.SkipMissing, "skip-missing", false, "leave out modules that cannot be had, and say so in the manifest")
	o.Nix.AddFlags(f, "have Nix build modules from this `FLAKE`, a directory or a reference such as github:OWNER/REPO\n(default the lock file's directory, if that is in a Git work tree)")

	f.StringVar(&o.Base, "base", "", "take store paths that have not changed from this earlier `IMAGE`, a file or gs://BUCKET/OBJECT, whose manifest is beside it; the new one does not depend on it")
	f.BoolVar(&o.BaseOptional, "base-optional", false, "build what cannot be taken from the base")
	f.BoolVar(&o.TrustBase, "trust-base", false, "do not hold what is taken from the base against its manifest")
	f.StringVar(&o.BaseManifest, "base-manifest", "", "the base's manifest is this `FILE` (default IMAGE.manifest.json)")
	f.BoolVar(&o.InPlace, "in-place", false, "ext4: turn the base, a file or block device, into the new image: only what is new is written, and what stays is not read.\nIf it is interrupted the base is no image until the same command has been run again")

	f.StringVar(&o.Cache, "cache", "", "squashfs: keep compressed store paths in this `DIR` or gs://BUCKET/PREFIX, for later builds and other machines")
	f.Var(&o.CacheSize, "cache-size", "drop from a cache directory what was used longest ago, down to this size (default no bound)")

	f.StringVarP(&o.Output, "output", "o", "", "write the image to this `FILE`, and its description to FILE.manifest.json")
	f.StringVar(&o.Format, "format", "", "`FORMAT` of the image, squashfs or ext4 (default by the suffix of -o: .sqsh, .squashfs; .raw, .img, .ext4)")
	f.StringVar(&o.Compression, "compression", "", "squashfs: compress by `METHOD` zstd[:fastest|default|better|best], gzip, lz4 or none (default \""+pipeline.DefaultCompression+"\")")
	f.Var(&o.BlockSize, "block-size", "squashfs: data block size, 4K to 1M (default "+defaultBlockSize()+")")
	f.Var(&o.Owner, "owner", "`UID:GID` of everything on the disk")
	f.StringVar(&o.Label, "label", "", "label `TEXT`, of the filesystem where it has one, else in the manifest (default \"bigdisk-\" and the first 7 digits of the lock file's SHA-256)")

	f.Var(&o.Size, "size", "ext4: the image's size (default what fits, in GiB)")
	f.BoolVar(&o.Writable, "writable", false, "ext4: leave room to write, and let it be mounted read-write")
	f.BoolVar(&o.Verity, "verity", false, "append a dm-verity hash tree; its root hash goes into the manifest")
	f.StringVar(&o.Partition, "partition", "none", "ext4: `TABLE` none, a bare filesystem, or gpt, a disk with one partition")
	f.BoolVar(&o.Verify, "verify", false, "verify the image before it gets its name")

	f.StringVar(&o.Mapping, "mapping", "", "make the upgrade maps in /etc/nixmodules from this `FILE`, see bigdisk modules upgrade-maps")
	f.StringVar(&o.AutoUpgrade, "auto-upgrade", "", "put this `FILE` into /etc/nixmodules as auto-upgrade.json")
	f.StringVar(&o.RecommendUpgrade, "recommend-upgrade", "", "put this `FILE` into /etc/nixmodules as recommend-upgrade.json")
	f.StringVar(&o.ActiveModules, "active-modules", "", "put this `FILE` into /etc/nixmodules as active-modules.json")

	f.IntVar(&o.Jobs, "jobs", 0, "`N` workers (default the number of CPUs); the image does not depend on it")
	f.StringVar(&o.Progress, "progress", string(progress.Auto), "show progress as `MODE`: auto (bars on a terminal, lines elsewhere), plain, json or none")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

func defaultBlockSize() string {
	size := byteSize(squashfs.DefaultBlockSize)
	return size.String()
}

func newBuild() *cobra.Command {
	var given buildOptions
	cmd := &cobra.Command{
		Use:   "build [--lock FILE] --from STORE -o FILE",
		Short: "Build an image from a lock file",
		Long: `Build an image with the closures of the locked modules, the database that lets
Nix use it as a read-only store, and /etc/nixmodules. The same inputs give the
same bytes. Nothing appears under the output's name until it is whole.`,
		Example: `  bigdisk build --lock modules.json --from https://cache.example.org -o disk.sqsh
  bigdisk build --module python-3.10 --latest 2 --from / -o python.sqsh
  bigdisk build --config build.yaml -o disk.sqsh`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := given.withConfig(cmd.Flags())
			if err != nil {
				return err
			}
			return runBuild(cmd.Context(), opts, cmd.OutOrStdout())
		},
	}
	given.AddFlags(cmd.Flags())
	return cmd
}

// withConfig returns what the configuration file says, if there is one, under
// what the command line says.
func (o *buildOptions) withConfig(commandLine *pflag.FlagSet) (*buildOptions, error) {
	if o.Config == "" {
		return o, o.resolve(".")
	}
	merged, dir := new(buildOptions), filepath.Dir(o.Config)
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	merged.AddFlags(flags)
	if err := readConfig(o.Config, merged); err != nil {
		return nil, err
	}
	if err := merged.resolve(dir); err != nil {
		return nil, configError(o.Config, err)
	}
	if err := o.resolve("."); err != nil {
		return nil, err
	}
	return merged, override(flags, commandLine)
}

// resolve makes the paths among the options relative to dir.
func (o *buildOptions) resolve(dir string) error {
	for _, p := range []*string{&o.Lock, &o.BaseManifest, &o.Output, &o.AutoUpgrade, &o.RecommendUpgrade, &o.ActiveModules, &o.Mapping} {
		*p = relativeTo(dir, *p)
	}
	for _, p := range []*string{&o.Base, &o.Cache} {
		if !strings.HasPrefix(*p, "gs://") {
			*p = relativeTo(dir, *p)
		}
	}
	o.Nix.resolve(dir)
	for i := range o.From {
		from, err := resolveStore(dir, o.From[i])
		if err != nil {
			return err
		}
		o.From[i] = from
	}
	return nil
}

// pipelineOptions says the same to the pipeline.
func (o *buildOptions) pipelineOptions() pipeline.BuildOptions {
	lock := o.Lock
	if lock == "" && (len(o.Paths) == 0 || len(o.Modules) > 0 || o.Latest > 0 || o.Select != "" || o.Mapping != "") {
		lock = defaultLock
	}
	partition := o.Partition
	if partition == "none" {
		partition = ""
	}
	return pipeline.BuildOptions{
		Lock: lock, Modules: o.Modules, Latest: o.Latest, Select: o.Select, Paths: o.Paths,
		Flake: o.Nix.Flake, FlakeAttr: o.Nix.Attr, KeepGoing: o.KeepGoing, SkipMissing: o.SkipMissing,
		From: o.From, TrustedKeys: o.TrustedKeys, NoCheckSigs: o.NoCheckSigs,
		Base: o.Base, BaseOptional: o.BaseOptional, TrustBase: o.TrustBase, InPlace: o.InPlace, BaseManifest: o.BaseManifest,
		Cache: o.Cache, CacheSize: int64(o.CacheSize),
		Output: o.Output, Format: o.Format, Compression: o.Compression, BlockSize: int(o.BlockSize),
		UID: o.Owner.uid, GID: o.Owner.gid, Label: o.Label,
		Size: int64(o.Size), Writable: o.Writable, Verity: o.Verity, Verify: o.Verify,
		Partition:   partition,
		AutoUpgrade: o.AutoUpgrade, RecommendUpgrade: o.RecommendUpgrade, ActiveModules: o.ActiveModules,
		Mapping: o.Mapping, Jobs: o.Jobs,
	}
}

func runBuild(ctx context.Context, opts *buildOptions, stdout io.Writer) error {
	var result *pipeline.BuildResult
	err := opts.run(func(build pipeline.BuildOptions) (err error) {
		result, err = pipeline.Build(ctx, build)
		return err
	})
	switch {
	case err != nil && opts.InPlace:
		return afterInterrupt{err, "if " + opts.Base + " was being changed, it is no image until the same command has been run again"}
	case err != nil:
		return afterInterrupt{err, "nothing was written under the output's name"}
	case opts.JSON:
		return json.NewEncoder(stdout).Encode(result)
	}
	return printResult(stdout, result)
}

// run gives what the options say to do, and shows its progress.
func (opts *buildOptions) run(do func(pipeline.BuildOptions) error) error {
	mode, err := progress.ParseMode(opts.Progress)
	if err != nil {
		return usageError{fmt.Errorf("--progress: %w", err), "see bigdisk build --help"}
	}
	if len(opts.From) == 0 {
		opts.From = defaultStores()
	}
	if len(opts.From) == 0 {
		return usageError{errors.New("no store to take paths from"), "give --from STORE: a directory, or a binary cache's URL"}
	}
	build := opts.pipelineOptions()
	if build.Nix, err = opts.Nix.client(); err != nil {
		return err
	}
	build.Progress = progress.New(nil)
	display := progress.Show(build.Progress, mode, os.Stderr)
	build.Logger = newLogger(display)
	defer spareProcessors(&build)()
	err = do(build)
	display.Close()
	return err
}

// spareProcessors lets more of Go's threads run than there are workers, until
// the function that it returns is called. A write that goes to the disk at once
// keeps a processor until the runtime notices, and gets none after it while
// others compute: with no more of them than CPUs, an ext4 build takes an eighth
// longer.
func spareProcessors(o *pipeline.BuildOptions) (restore func()) {
	procs := runtime.GOMAXPROCS(0)
	if o.Jobs == 0 {
		o.Jobs = procs
	}
	runtime.GOMAXPROCS(procs + 2)
	return func() { runtime.GOMAXPROCS(procs) }
}

// printResult sums a build up for people.
func printResult(w io.Writer, r *pipeline.BuildResult) error {
	const mib = 1 << 20
	if r.Unchanged {
		if _, err := fmt.Fprintf(w, "%s already was what it should become: nothing was changed\n", r.Image); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s, %.1f MiB, label %s, sha256 %s\n%s: %d modules, %d store paths, %d files of %.1f MiB\n",
		r.Image, r.Format, float64(r.Size)/mib, r.Label, r.SHA256,
		r.Manifest, r.Modules, r.Totals.StorePaths, r.Totals.Files, float64(r.Totals.Bytes)/mib)
	if err == nil && r.Written > 0 {
		_, err = fmt.Fprintf(w, "%.1f MiB were written\n", float64(r.Written)/mib)
	}
	if err == nil && r.Missing > 0 {
		_, err = fmt.Fprintf(w, "%d modules were left out: the manifest says which, and why\n", r.Missing)
	}
	return err
}
