package store

import (
	"slices"
	"strconv"
	"strings"
)

// PathInfo is what a store's database says of one valid path.
type PathInfo struct {
	Path Path
	// NarHash is the SHA-256 of the path's NAR serialisation.
	NarHash Hash
	// NarSize is the length of that serialisation in bytes.
	NarSize int64
	// References are the store paths that the contents mention, sorted, without
	// duplicates; the path itself may be among them.
	References []Path
	// Deriver is the derivation that built the path, "" if unknown. It is not
	// part of the closure and mostly not on the disk.
	Deriver Path
	// Sigs are the signatures over [PathInfo.Fingerprint], "NAME:BASE64", as
	// their source gave them.
	Sigs []string
	// CA says how the path is content-addressed, e.g. "fixed:r:sha256:…"; "" for
	// an ordinary, input-addressed path.
	CA string
}

// Fingerprint is the text that a binary cache signs: path, NAR hash, NAR size
// and references.
func (i *PathInfo) Fingerprint() string {
	var b strings.Builder
	b.WriteString("1;")
	b.WriteString(string(i.Path))
	b.WriteByte(';')
	b.WriteString(i.NarHash.String())
	b.WriteByte(';')
	b.WriteString(strconv.FormatInt(i.NarSize, 10))
	b.WriteByte(';')
	for n, r := range i.References {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(r))
	}
	return b.String()
}

// SortReferences puts the references into the order that fingerprints and
// databases want, and drops duplicates.
func (i *PathInfo) SortReferences() {
	slices.Sort(i.References)
	i.References = slices.Compact(i.References)
}
