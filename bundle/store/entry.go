package store

import "io"

// Kind is what an [Entry] is.
type Kind uint8

// The three kinds of file that a NAR, and so a store path, can hold.
const (
	Directory Kind = iota + 1
	Regular
	Symlink
)

// String returns the kind as a NAR writes it.
func (k Kind) String() string {
	switch k {
	case Directory:
		return "directory"
	case Regular:
		return "regular"
	case Symlink:
		return "symlink"
	}
	return "unknown"
}

// Entry is one file of a tree, from the source it is read from to the image it
// is written to. Nix keeps nothing else about a file: owner, mode and time are
// canonical, so the image decides them.
type Entry struct {
	// Path is slash-separated and relative. A source sets it relative to the
	// store path ("" is the store path itself, which may be a file); for an
	// image writer it is relative to the image's root ("nix/store/…").
	Path string
	Kind Kind
	// Size is the number of bytes in a regular file; 0 otherwise.
	Size int64
	// Executable is the one permission bit of a regular file.
	Executable bool
	// Target is where a symlink points, as it is written in the link.
	Target string
}

// Contents is the tree of one store path as a stream in NAR order: depth
// first, the names of a directory in byte order, each directory before what it
// holds.
//
// After [Contents.Next] has given a regular file, Read gives its Size bytes
// and then io.EOF; what is not read is skipped by the next Next. Next ends
// with io.EOF only when the whole tree has been seen and its NAR hash and size
// were those of the path's info: data from a Contents that ended otherwise
// must not be used. An Entry is valid until the next call of Next.
type Contents interface {
	Next() (*Entry, error)
	io.Reader
	io.Closer
}
