package image

import (
	"encoding/hex"
	"fmt"

	"bigdisk/bundle/store"
)

// ManifestVersion is the version of the manifest format that this package
// writes. It changes when a field changes its meaning; fields may be added
// without.
const ManifestVersion = 2

// Manifest describes a finished image, in a file beside it: what is in it,
// what it was made from and where things lie. The same inputs give the same
// manifest, byte for byte.
type Manifest struct {
	// Version is [ManifestVersion].
	Version int `json:"version"`
	// Image is the image file itself.
	Image ManifestImage `json:"image"`
	// Options are those that the bytes depend on.
	Options ManifestOptions `json:"options"`
	// Lock is the lock file the image was made from; nil when it was made from
	// store paths alone.
	Lock *ManifestLock `json:"lock,omitempty"`
	// Modules are the locked entries on the disk, in the lock file's order.
	Modules []ManifestModule `json:"modules"`
	// Roots are the store paths that were asked for by themselves.
	Roots []store.Path `json:"roots,omitempty"`
	// Missing are the locked entries that were left out because they could not
	// be had, and why.
	Missing []ManifestMissing `json:"missing,omitempty"`
	// Totals counts what is on the disk.
	Totals ManifestTotals `json:"totals"`
	// Verity tells of the dm-verity hash tree, if there is one.
	Verity *ManifestVerity `json:"verity,omitempty"`
	// Paths has every store path on the disk, sorted by path.
	Paths []ManifestPath `json:"paths"`
}

// ManifestImage is the image file: its whole length, hash tree and partition
// table included.
type ManifestImage struct {
	Format string `json:"format"` // "squashfs" or "ext4"
	Size   int64  `json:"size"`   // bytes
	// SHA256 stands for all that is in the image: see [Manifest.Digest]. It is not
	// that of the file's bytes from the first to the last.
	SHA256 HexSHA256 `json:"sha256"`
	Label  string    `json:"label"`
	Part   *Extent   `json:"partition,omitempty"` // where the filesystem lies in a partitioned disk
	// Metadata is all that is in the image but the data of store paths: what a
	// build on top of this image reads before it takes the data.
	Metadata ManifestMetadata `json:"metadata"`
}

// ManifestMetadata tells where the filesystem's own structures lie, the files
// that are in no store path, the hash tree and the partition tables, and the
// SHA-256 of these ranges, one after the other.
type ManifestMetadata struct {
	Extents []Extent  `json:"extents"`
	SHA256  HexSHA256 `json:"sha256"`
}

// Bytes is how many there are.
func (m *ManifestMetadata) Bytes() (sum int64) {
	for _, x := range m.Extents {
		sum += x.Length
	}
	return sum
}

// Shift says that the filesystem described so far lies at an offset, in bytes.
func (m *Manifest) Shift(offset int64) {
	shift := func(extents []Extent) {
		for i := range extents {
			extents[i].Offset += offset
		}
	}
	shift(m.Image.Metadata.Extents)
	for i := range m.Paths {
		shift(m.Paths[i].Data)
	}
}

// AddMetadata adds ranges to those that hold no store path's data.
func (m *Manifest) AddMetadata(extents ...Extent) {
	m.Image.Metadata.Extents = append(m.Image.Metadata.Extents, extents...)
}

// ManifestOptions are the choices that the image's bytes depend on.
type ManifestOptions struct {
	Compression string `json:"compression,omitempty"` // squashfs: "zstd:default", …
	BlockSize   int    `json:"blockSize"`             // bytes
	Owner       string `json:"owner"`                 // "UID:GID"
	Partition   string `json:"partition,omitempty"`   // "gpt"
	Writable    bool   `json:"writable,omitempty"`
	// Layout is the version of the writer's way to lay data out. Images of one
	// version and the same options hold the same store path in the same bytes.
	Layout int `json:"layout"`
}

// ManifestLock is a lock file.
type ManifestLock struct {
	SHA256 HexSHA256 `json:"sha256"`
}

// ManifestModule is a locked entry: its key in the lock file, commit and store
// path.
type ManifestModule struct {
	ID     string     `json:"id"`
	Commit string     `json:"commit"`
	Path   store.Path `json:"path"`
}

// ManifestMissing is a locked entry that is not on the disk.
type ManifestMissing struct {
	ManifestModule
	Reason string `json:"reason"`
}

// ManifestTotals counts what is on the disk: the store paths, and everything
// that is a file, a directory or a symlink in the image, the database and
// /etc/nixmodules included. Bytes is the sum of file sizes, UniqueBytes that
// sum with identical files counted once.
type ManifestTotals struct {
	StorePaths  int64 `json:"storePaths"`
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	Bytes       int64 `json:"bytes"`
	UniqueBytes int64 `json:"uniqueBytes"`
}

// ManifestVerity is a dm-verity hash tree (version 1, SHA-256, 4 KiB blocks).
type ManifestVerity struct {
	RootHash HexSHA256 `json:"rootHash"`
	// Offset is where the verity superblock starts, in bytes from the start of
	// what is protected.
	Offset int64  `json:"offset"`
	Salt   string `json:"salt"` // hexadecimal
	UUID   string `json:"uuid"`
}

// ManifestPath is a store path: what its NAR hashes to, and where the data
// lies that it was the first to need.
type ManifestPath struct {
	Path    store.Path `json:"path"`
	NarHash store.Hash `json:"narHash"`
	NarSize int64      `json:"narSize"`
	Files   int64      `json:"files"`
	Data    []Extent   `json:"data,omitempty"`
	// DataSum is the BLAKE3 of what Data holds, in squashfs images, and of Sums.
	DataSum *DataSum `json:"blake3,omitempty"`
	// Sums are those of the path's regular files that are not empty, in NAR
	// order.
	Sums FileSums `json:"sums,omitempty"`
}

// HexSHA256 is a SHA-256 digest that is written as 64 hexadecimal digits.
type HexSHA256 [32]byte

// String returns the digest in lower-case hexadecimal.
func (h HexSHA256) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes lower-case hexadecimal.
func (h HexSHA256) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads exactly 64 hexadecimal digits.
func (h *HexSHA256) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a SHA-256 has %d hexadecimal digits, not %d", hex.EncodedLen(len(h)), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}
