// Package narinfo reads and writes narinfo files, in which a binary cache says
// what it knows of one store path: its info, and where its archive lies.
//
// In flows the text of DIGEST.narinfo, out flows a [NarInfo]. The format is
// that of Nix's src/libstore/nar-info.cc: lines of "Name: value".
package narinfo

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"bigdisk/bundle/store"
)

// MaxSize is the longest narinfo that is read, in bytes. It is room for more
// than 30,000 references of the greatest length.
const MaxSize = 8 << 20

// ErrFormat is wrapped by every error of [Parse].
var ErrFormat = errors.New("malformed narinfo")

// NarInfo is what a binary cache says of a store path.
type NarInfo struct {
	// Info is what the cache's database says. Its references are sorted and
	// without duplicates, and so are its signatures, as Nix keeps them.
	Info store.PathInfo
	// URL is where the archive lies, relative to the cache or absolute.
	URL string
	// Compression is how the archive is compressed: "none", "xz", "zstd", …
	// A narinfo without it means bzip2.
	Compression string
	// FileHash is the SHA-256 of the compressed archive; zero if not given.
	FileHash store.Hash
	// FileSize is the length of the compressed archive in bytes; 0 if not
	// given.
	FileSize int64
	// System is the platform the path was built for, e.g. "x86_64-linux"; ""
	// if not given, as Nix has not written it for years.
	System string
}

// String returns the text that Nix writes for n.
func (n *NarInfo) String() string {
	var b strings.Builder
	field := func(name, value string) {
		b.WriteString(name)
		b.WriteString(": ")
		b.WriteString(value)
		b.WriteByte('\n')
	}
	field("StorePath", n.Info.Path.String())
	field("URL", n.URL)
	field("Compression", n.Compression)
	if !n.FileHash.IsZero() {
		field("FileHash", n.FileHash.String())
	}
	if n.FileSize != 0 {
		field("FileSize", strconv.FormatInt(n.FileSize, 10))
	}
	field("NarHash", n.Info.NarHash.String())
	field("NarSize", strconv.FormatInt(n.Info.NarSize, 10))
	field("References", joinBases(n.Info.References))
	if n.Info.Deriver != "" {
		field("Deriver", n.Info.Deriver.Base())
	}
	if n.System != "" {
		field("System", n.System)
	}
	for _, sig := range sortedSet(n.Info.Sigs) {
		field("Sig", sig)
	}
	if n.Info.CA != "" {
		field("CA", n.Info.CA)
	}
	return b.String()
}

// MarshalText returns what String does.
func (n *NarInfo) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText does what [Parse] does.
func (n *NarInfo) UnmarshalText(text []byte) error {
	v, err := Parse(text)
	if err != nil {
		return err
	}
	*n = *v
	return nil
}

func joinBases(paths []store.Path) string {
	var b strings.Builder
	for i, p := range paths {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Base())
	}
	return b.String()
}

// sortedSet returns the sorted, distinct strings of s, which stays as it is.
func sortedSet(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}
