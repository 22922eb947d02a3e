package verify

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"bigdisk/image/read"
)

// Kind says in what way two things disagree. Each has its own, so that scripts
// can tell them apart.
type Kind string

// What is wrong with the image itself.
const (
	// Unreadable: a part of the image cannot be read, or contradicts itself.
	Unreadable Kind = "unreadable"
	// StaleSize: the image has not the length that its manifest says.
	StaleSize Kind = "stale-manifest-size"
	// StaleHash: the image has not the SHA-256 that its manifest says.
	StaleHash Kind = "stale-manifest-sha256"
	// StaleFacts: format, label, partition or counts differ from the manifest.
	StaleFacts Kind = "stale-manifest-facts"
	// Verity: the dm-verity tree does not vouch for the image's bytes.
	Verity Kind = "verity-mismatch"
	// ReadersDisagree: go-diskfs sees something else than this package.
	ReadersDisagree Kind = "readers-disagree"
)

// What is wrong with files.
const (
	// NotStorePath: a name in /nix/store that no store path can have.
	NotStorePath Kind = "not-a-store-path"
	// WrongMode, WrongOwner, WrongTime: not what a Nix store has.
	WrongMode  Kind = "wrong-mode"
	WrongOwner Kind = "wrong-owner"
	WrongTime  Kind = "wrong-time"
	// WrongLinks: the link count of an inode is not the number of its names.
	WrongLinks Kind = "wrong-link-count"
	// WrongFileType: a device, FIFO or socket where Nix has none.
	WrongFileType Kind = "wrong-file-type"
	// BadSymlink: a target that cannot be.
	BadSymlink Kind = "bad-symlink"
	// DanglingSymlink: a symlink to a store path that is not on the disk.
	DanglingSymlink Kind = "dangling-symlink"
	// BehindEnd: something other than zeros behind a file's end in its last
	// block, which programs see that map the file.
	BehindEnd Kind = "bytes-behind-end"
	// LowerStore: something is missing that Nix needs to use the image as a
	// read-only store.
	LowerStore Kind = "not-a-lower-store"
)

// What is wrong between disk, database and manifest.
const (
	// PathNotOnDisk: a database row whose store path is not on the disk.
	PathNotOnDisk Kind = "path-not-on-disk"
	// PathNotInDatabase: a store path on the disk without a row.
	PathNotInDatabase Kind = "path-not-in-database"
	// PathNotInManifest: a store path on the disk that the manifest lacks.
	PathNotInManifest Kind = "path-not-in-manifest"
	// ManifestPathNotOnDisk: a store path of the manifest that the disk lacks.
	ManifestPathNotOnDisk Kind = "manifest-path-not-on-disk"
	// NarHash, NarSize: the contents are not those of the database's row.
	NarHash Kind = "wrong-nar-hash"
	NarSize Kind = "wrong-nar-size"
	// ManifestNarHash, ManifestNarSize, ManifestFiles, ManifestSum: the manifest says
	// something else of a store path than the database or the disk.
	ManifestNarHash Kind = "manifest-nar-hash"
	ManifestNarSize Kind = "manifest-nar-size"
	ManifestFiles   Kind = "manifest-files"
	ManifestSum     Kind = "manifest-sum"
	// MissingReference: the contents mention a store path, and the database has no
	// Refs row for it.
	MissingReference Kind = "missing-reference"
	// DanglingReference: a Refs row with an id that no ValidPaths row has.
	DanglingReference Kind = "dangling-reference"
	// ReferenceCycle: store paths that refer to each other in a circle, which
	// Nix cannot follow.
	ReferenceCycle Kind = "reference-cycle"
	// DatabaseMissing, DatabaseDamaged, DatabaseSchema, DatabaseRow: what is wrong with the database itself.
	DatabaseMissing Kind = "database-missing"
	DatabaseDamaged Kind = "database-damaged"
	DatabaseSchema  Kind = "database-schema"
	DatabaseRow     Kind = "database-row"
	// BadModules: a file in /etc/nixmodules that is not what it should be.
	BadModules Kind = "bad-modules-file"
	// ModulePathNotOnDisk: an entry of modules.json whose path is not there.
	ModulePathNotOnDisk Kind = "module-path-not-on-disk"
	// ManifestModules: modules.json and the manifest name other modules.
	ManifestModules Kind = "manifest-modules"
)

// Finding is one disagreement.
type Finding struct {
	Kind Kind `json:"kind"`
	// Warning marks what does not make the image bad: it was made by other
	// tools, or Nix allows it.
	Warning bool `json:"warning,omitempty"`
	// Path is the store path it is about, or another path in the image; "" is
	// the image as a whole.
	Path string `json:"path,omitempty"`
	// Detail says what is wrong.
	Detail string `json:"detail"`
}

// String returns the finding as one line.
func (f Finding) String() string {
	where := f.Path
	if where == "" {
		where = "image"
	}
	return fmt.Sprintf("%s: %s: %s", where, f.Kind, f.Detail)
}

// Report is what [Verify] found.
type Report struct {
	Info read.Info `json:"image"`
	// Manifest is whether the image was held against one.
	Manifest bool `json:"manifest"`
	// The counts are of what was read: store paths, and everything in the image.
	StorePaths  int64 `json:"storePaths"`
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	Bytes       int64 `json:"bytes"`
	// Findings are sorted by path and kind, errors and warnings. There are no
	// more than MaxFindings; Errors and Warnings count them all.
	Findings []Finding `json:"findings"`
	Errors   int64     `json:"errors"`
	Warnings int64     `json:"warnings"`
}

// MaxFindings is how many findings a report lists.
const MaxFindings = 1000

// OK reports whether nothing is wrong with the image.
func (r *Report) OK() bool { return r.Errors == 0 }

// collector gathers findings from many goroutines.
type collector struct {
	mu       sync.Mutex
	list     []Finding
	errors   int64
	warnings int64
}

// add keeps the finding, unless there are too many; the smallest are kept, so
// that a report does not depend on which goroutine was first.
func (c *collector) add(f Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Warning {
		c.warnings++
	} else {
		c.errors++
	}
	c.list = append(c.list, f)
	if len(c.list) >= 4*MaxFindings {
		c.trim()
	}
}

func (c *collector) trim() {
	slices.SortFunc(c.list, compareFindings)
	c.list = c.list[:min(len(c.list), MaxFindings)]
}

// compareFindings puts errors first.
func compareFindings(a, b Finding) int {
	if a.Warning != b.Warning {
		if b.Warning {
			return -1
		}
		return 1
	}
	if n := strings.Compare(a.Path, b.Path); n != 0 {
		return n
	}
	if n := strings.Compare(string(a.Kind), string(b.Kind)); n != 0 {
		return n
	}
	return strings.Compare(a.Detail, b.Detail)
}

func (c *collector) errorf(kind Kind, path, format string, args ...any) {
	c.add(Finding{Kind: kind, Path: path, Detail: fmt.Sprintf(format, args...)})
}

func (c *collector) warnf(kind Kind, path, format string, args ...any) {
	c.add(Finding{Kind: kind, Warning: true, Path: path, Detail: fmt.Sprintf(format, args...)})
}

// fill moves what was found into the report.
func (c *collector) fill(r *Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trim()
	r.Findings, r.Errors, r.Warnings = slices.Clone(c.list), c.errors, c.warnings
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
}
