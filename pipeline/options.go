package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/source"
	"bigdisk/image"
	"bigdisk/pipeline/progress"
)

// The image formats, as manifests and flags name them.
const (
	Squashfs = "squashfs"
	Ext4     = "ext4"
)

// Defaults of [BuildOptions].
const (
	// DefaultCompression is the squashfs compression, as --compression names it.
	DefaultCompression = "zstd:default"
	// BaseMemoryBudget and MemoryPerJob make up how many bytes of file data a
	// build keeps in flight.
	BaseMemoryBudget = 160 << 20
	MemoryPerJob     = 16 << 20
	// DefaultSpoolBudget is how many bytes of downloads a build keeps on disk
	// ahead of the image.
	DefaultSpoolBudget = 1 << 30
)

// selectTerminal is the one choice of [BuildOptions.Select].
const selectTerminal = "terminal"

// ErrUsage is wrapped by errors about options that do not go together, as
// opposed to a build that failed.
var ErrUsage = errors.New("usage")

// BuildOptions say what to build, from where and how. The zero value of every
// field but Output and one of Lock and Paths is a sensible default.
type BuildOptions struct {
	// Lock is the lock file; "" when there are only Paths.
	Lock string
	// Modules selects lock entries: "ID" or "ID:TAG". None selects all.
	Modules []string
	// Latest keeps only the newest so many versions of each module; 0 keeps all.
	Latest int
	// Select is "terminal" to keep only what the automatic upgrades end
	// with, and what leads there directly; "" keeps all.
	Select string
	// Paths are store paths to hold besides what the lock selects.
	Paths []string

	// From are the stores to take paths from, as --from spells them, tried in
	// this order; [NixStore] has Nix make them.
	From []string
	// Sources are stores to take paths from besides, asked after those of From;
	// they are for programs that have stores of their own. They stay open.
	Sources []source.Source
	// Nix is the Nix to use for [NixStore].
	Nix nixcmd.Client
	// Flake is what Nix builds modules from, and FlakeAttr its attribute that has
	// them. "" are the repository that the lock file is in, and
	// [nixcmd.DefaultAttr].
	Flake, FlakeAttr string
	// KeepGoing goes on with the others when a module cannot be had, to report
	// all that cannot. SkipMissing builds the image without them, which its
	// manifest then says.
	KeepGoing, SkipMissing bool
	// TrustedKeys may sign the paths of a binary cache: "NAME:BASE64". None
	// stands for the source's default.
	TrustedKeys []string
	// NoCheckSigs takes paths that nobody trusted has signed.
	NoCheckSigs bool

	// Base is an earlier image of this format, made with the same options, to
	// take store paths from that have not changed. The image does not depend on
	// it. With BaseOptional, what cannot be taken is built instead; with
	// TrustBase, what is taken is not held against the base's manifest.
	Base                    string
	BaseOptional, TrustBase bool
	// BaseManifest is the base's manifest, if it is not beside it.
	BaseManifest string
	// InPlace turns the base, an ext4 image in a file or on a block device, into
	// the new image. What it keeps is not read. Output is then the base's name or
	// "".
	InPlace bool

	// Cache is a directory, or gs://BUCKET/PREFIX, that keeps compressed store
	// paths for later builds and other machines; squashfs only. CacheSize bounds
	// a directory in bytes; 0 is no bound. The image does not depend on it.
	Cache     string
	CacheSize int64

	// Output is the image file. The manifest goes beside it, see [ManifestName].
	Output string
	// Format is [Squashfs] or [Ext4]; "" goes by the suffix of Output.
	Format string
	// Compression is for squashfs: "zstd:default", "gzip", "none", …; "" is
	// [DefaultCompression].
	Compression string
	// BlockSize is a data block's size in bytes; 0 is the format's default.
	BlockSize int
	// Size is the length of an ext4 image in bytes, a multiple of 4096; 0 is
	// what fits, in GiB.
	Size int64
	// Writable leaves room in an ext4 image, and lets it be mounted read-write.
	Writable bool
	// Verity appends a dm-verity hash tree.
	Verity bool
	// Partition is "" or, for ext4, [GPT].
	Partition string
	// Verify reads the whole image again before it gets its name.
	Verify bool
	// UID and GID own everything in the image.
	UID, GID uint32
	// Label names the filesystem; "" is "bigdisk-" and the first 7 digits of the
	// lock file's SHA-256 (of the sorted Paths, one a line, without a lock file).
	Label string
	// AutoUpgrade, RecommendUpgrade and ActiveModules are files to put into
	// /etc/nixmodules as they are, instead of generated ones.
	AutoUpgrade, RecommendUpgrade, ActiveModules string
	// Mapping is an upgrade mapping to generate the first two from.
	Mapping string

	// Jobs is the number of workers; 0 is the number of CPUs. The image does not
	// depend on it.
	Jobs int
	// MemoryBudget bounds the file data in flight, in bytes: half of it on the
	// way through the image's writer, a quarter read ahead, a quarter of
	// downloads that are being checked. 0 is [BaseMemoryBudget] and
	// [MemoryPerJob] for each job.
	MemoryBudget int64
	// SpoolBudget bounds the downloads on disk in ScratchDir, in bytes; 0 is
	// [DefaultSpoolBudget]. One path that is larger still passes, alone.
	SpoolBudget int64
	// ScratchDir holds temporary files, which are gone at the end; "" is the
	// system's directory for them.
	ScratchDir string

	// Progress is told what is done; nil tells nobody.
	Progress *progress.Tracker
	// Logger gets what is worth knowing and no failure; nil drops it.
	Logger *slog.Logger
}

// BuildResult sums up a finished build.
type BuildResult struct {
	// Image and Manifest are the files that were written.
	Image    string `json:"image"`
	Manifest string `json:"manifest"`
	// Format, Label, Size (bytes) and SHA256 are those of the image.
	Format string          `json:"format"`
	Label  string          `json:"label"`
	Size   int64           `json:"size"`
	SHA256 image.HexSHA256 `json:"sha256"`
	// Modules counts the locked entries on the disk.
	Modules int `json:"modules"`
	// Missing counts those that were left out.
	Missing int `json:"missing,omitempty"`
	// Totals counts what is on the disk.
	Totals image.ManifestTotals `json:"totals"`
	// Written is how many bytes a build in place has written. Unchanged is set if
	// the base already was what it should become.
	Written   int64 `json:"written,omitempty"`
	Unchanged bool  `json:"unchanged,omitempty"`
	// Seconds is how long the build took.
	Seconds float64 `json:"seconds"`
}

// samePath tells whether two names are the same but for how they are written.
func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// baseManifest is where the base's manifest is, if that is in a file.
func (o *BuildOptions) baseManifest() string {
	if o.BaseManifest != "" {
		return o.BaseManifest
	}
	return image.ManifestName(o.Base)
}

// formatOf tells the format that a file's suffix stands for: .sqsh and
// .squashfs, or .raw, .img and .ext4.
func formatOf(output string) (string, error) {
	switch strings.ToLower(filepath.Ext(output)) {
	case ".sqsh", ".squashfs":
		return Squashfs, nil
	case ".raw", ".img", ".ext4":
		return Ext4, nil
	}
	return "", fmt.Errorf("%w: %s: no format goes with this suffix: name the output .sqsh or .raw, or give --format", ErrUsage, output)
}

// withDefaults checks o and fills in what was left out.
func (o BuildOptions) withDefaults() (BuildOptions, error) {
	if o.InPlace {
		if err := o.checkInPlace(); err != nil {
			return o, err
		}
		o.Output = o.Base
	}
	if o.Output == "" {
		return o, fmt.Errorf("%w: no output file: give -o FILE", ErrUsage)
	}
	if o.Lock == "" && len(o.Paths) == 0 {
		return o, fmt.Errorf("%w: nothing to build: give a lock file or store paths", ErrUsage)
	}
	if o.Lock == "" && (len(o.Modules) > 0 || o.Latest > 0) {
		return o, fmt.Errorf("%w: --module and --latest select from a lock file: give --lock", ErrUsage)
	}
	if err := o.checkSelection(); err != nil {
		return o, err
	}
	if o.InPlace && o.Format == "" {
		o.Format = Ext4
	}
	if o.Format == "" {
		format, err := formatOf(o.Output)
		if err != nil {
			return o, err
		}
		o.Format = format
	}
	if o.Format != Squashfs && o.Format != Ext4 {
		return o, fmt.Errorf("%w: format %q: it is %s or %s", ErrUsage, o.Format, Squashfs, Ext4)
	}
	if o.Format == Ext4 && o.Compression != "" {
		return o, fmt.Errorf("%w: ext4 does not compress: leave --compression out", ErrUsage)
	}
	if err := o.checkDisk(); err != nil {
		return o, err
	}
	if strings.Contains(o.Base, "://") && !inBucket(o.Base) {
		return o, fmt.Errorf("%w: --base %s: it is a file, a block device, or gs://BUCKET/OBJECT", ErrUsage, o.Base)
	}
	if o.Base == "" && (o.BaseOptional || o.TrustBase || o.BaseManifest != "") {
		return o, fmt.Errorf("%w: --base-optional, --trust-base and --base-manifest are about a base: give --base IMAGE", ErrUsage)
	}
	if o.BaseManifest != "" && inBucket(o.Base) {
		return o, fmt.Errorf("%w: the manifest of %s is beside it: leave --base-manifest out", ErrUsage, o.Base)
	}
	if o.Base != "" && !o.InPlace && (samePath(o.Output, o.baseManifest()) || samePath(image.ManifestName(o.Output), o.Base)) {
		return o, fmt.Errorf("%w: -o %s would write over the base or its manifest: choose another name", ErrUsage, o.Output)
	}
	if o.CacheSize < 0 || o.Cache == "" && o.CacheSize != 0 {
		return o, fmt.Errorf("%w: --cache-size is about a cache: give --cache", ErrUsage)
	}
	if o.Latest < 0 || o.Jobs < 0 || o.BlockSize < 0 || o.MemoryBudget < 0 || o.SpoolBudget < 0 {
		return o, fmt.Errorf("%w: a number of versions, jobs or bytes is negative", ErrUsage)
	}
	return o.fill(), nil
}

// checkSelection checks what goes on the disk, and the maps that say so.
func (o *BuildOptions) checkSelection() error {
	if o.Mapping != "" && (o.AutoUpgrade != "" || o.RecommendUpgrade != "") {
		return fmt.Errorf("%w: --mapping makes the files that --auto-upgrade and --recommend-upgrade give: leave one or the other out", ErrUsage)
	}
	if o.Lock == "" && (o.Mapping != "" || o.Select != "") {
		return fmt.Errorf("%w: --mapping and --select are about a lock file: give --lock", ErrUsage)
	}
	switch o.Select {
	case "":
	case selectTerminal:
		if o.Mapping == "" && o.AutoUpgrade == "" {
			return fmt.Errorf("%w: --select %s follows the automatic upgrades: give --mapping or --auto-upgrade", ErrUsage, selectTerminal)
		}
	default:
		return fmt.Errorf("%w: --select %q: there is %s", ErrUsage, o.Select, selectTerminal)
	}
	if first := slices.Index(o.From, NixStore); first >= 0 && slices.Contains(o.From[first+1:], NixStore) {
		return fmt.Errorf("%w: --from %s comes twice", ErrUsage, NixStore)
	}
	return nil
}

// checkDisk checks the options about what is around the filesystem.
func (o BuildOptions) checkDisk() error {
	if o.Format != Ext4 && (o.Size != 0 || o.Writable || o.Partition != "") {
		return fmt.Errorf("%w: --size, --writable and --partition are for ext4", ErrUsage)
	}
	if o.Partition != "" && o.Partition != GPT {
		return fmt.Errorf("%w: partition table %q: it is none or %s", ErrUsage, o.Partition, GPT)
	}
	if o.Size != 0 && (o.Verity || o.Partition != "") {
		return fmt.Errorf("%w: --size is that of a bare filesystem: leave it out with --verity and --partition", ErrUsage)
	}
	if o.Size%ext4BlockSize != 0 || o.Size < 0 {
		return fmt.Errorf("%w: an image of %d bytes: it takes a multiple of %d", ErrUsage, o.Size, ext4BlockSize)
	}
	return nil
}

// checkInPlace checks what changes an image in place.
func (o BuildOptions) checkInPlace() error {
	switch {
	case o.Base == "":
		return fmt.Errorf("%w: --in-place changes a base: give --base IMAGE", ErrUsage)
	case inBucket(o.Base):
		return fmt.Errorf("%w: --in-place changes a file or block device: %s is neither", ErrUsage, o.Base)
	case o.Output != "" && o.Output != o.Base:
		return fmt.Errorf("%w: --in-place makes the base the output: leave -o out", ErrUsage)
	case o.Format != "" && o.Format != Ext4, o.Compression != "":
		return fmt.Errorf("%w: --in-place is for ext4 images", ErrUsage)
	case o.Verity || o.Partition != "":
		return fmt.Errorf("%w: --in-place is for bare filesystems: leave --verity and --partition out", ErrUsage)
	case o.BaseOptional:
		return fmt.Errorf("%w: --in-place needs its base: leave --base-optional out", ErrUsage)
	}
	return nil
}

// fill puts defaults where nothing was said.
func (o BuildOptions) fill() BuildOptions {
	if o.Format == Squashfs && o.Compression == "" {
		o.Compression = DefaultCompression
	}
	if o.Jobs == 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.MemoryBudget == 0 {
		o.MemoryBudget = BaseMemoryBudget + int64(o.Jobs)*MemoryPerJob
	}
	if o.SpoolBudget == 0 {
		o.SpoolBudget = DefaultSpoolBudget
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
