// Package nar reads and writes Nix archives, the canonical serialisation of a
// file tree that Nix hashes, signs and downloads.
//
// In flows a stream of bytes or a tree on disk, out flow [store.Entry] values
// in NAR order with the bytes of each file, and the other way round. [Reader]
// and [Writer] follow the contract of archive/tar; [DirReader] gives a tree on
// disk the same shape without making an archive of it.
//
// The format is that of Nix's src/libutil/archive.cc and
// doc/manual/source/protocols/nix-archive.md: strings with a 64-bit
// little-endian length, padded with zeros to 8 bytes, in a fixed grammar, so
// that one tree has one archive. Anything that Nix would not itself write is
// refused.
package nar

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Limits on what an archive may hold.
const (
	// MaxName is the longest file name in bytes (Linux NAME_MAX, and Nix's
	// narMaxName).
	MaxName = 255
	// MaxTarget is the longest symlink target in bytes (Linux PATH_MAX less
	// its NUL).
	MaxTarget = 4095
	// MaxDepth is the number of levels in a tree, its root counted (Nix's
	// narMaxDepth): a path in it has at most one name less.
	MaxDepth = 64
)

// ErrFormat is wrapped by every error that is about the archive's bytes, and
// not about getting them. An archive that ends too early is
// [io.ErrUnexpectedEOF] instead, since the transport may be to blame.
var ErrFormat = errors.New("malformed NAR")

var errPadding = fmt.Errorf("%w: padding that is not zero", ErrFormat)

// ErrTooLong is wrapped when more bytes are written to a file than its entry
// announced.
var ErrTooLong = errors.New("more bytes than the file's size")

// ErrChanged is wrapped when a file on disk has changed while it was read.
var ErrChanged = errors.New("file changed while it was read")

// The grammar's words as they stand in an archive: length, bytes, padding.
const (
	wordMagic      = "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00"
	wordOpen       = "\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x00\x00\x00\x00\x00"
	wordClose      = "\x01\x00\x00\x00\x00\x00\x00\x00)\x00\x00\x00\x00\x00\x00\x00"
	wordType       = "\x04\x00\x00\x00\x00\x00\x00\x00type\x00\x00\x00\x00"
	wordRegular    = "\x07\x00\x00\x00\x00\x00\x00\x00regular\x00"
	wordDirectory  = "\x09\x00\x00\x00\x00\x00\x00\x00directory\x00\x00\x00\x00\x00\x00\x00"
	wordSymlink    = "\x07\x00\x00\x00\x00\x00\x00\x00symlink\x00"
	wordExecutable = "\x0a\x00\x00\x00\x00\x00\x00\x00executable\x00\x00\x00\x00\x00\x00"
	wordEmpty      = "\x00\x00\x00\x00\x00\x00\x00\x00"
	wordContents   = "\x08\x00\x00\x00\x00\x00\x00\x00contents"
	wordTarget     = "\x06\x00\x00\x00\x00\x00\x00\x00target\x00\x00"
	wordEntry      = "\x05\x00\x00\x00\x00\x00\x00\x00entry\x00\x00\x00"
	wordName       = "\x04\x00\x00\x00\x00\x00\x00\x00name\x00\x00\x00\x00"
	wordNode       = "\x04\x00\x00\x00\x00\x00\x00\x00node\x00\x00\x00\x00"
)

// padding is the number of zeros after n bytes.
func padding(n int64) int { return int(-n & 7) }

// checkName says what is wrong with a file's name, if anything.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty file name", ErrFormat)
	case name == ".", name == "..":
		return fmt.Errorf("%w: file name %q", ErrFormat, name)
	case len(name) > MaxName:
		return fmt.Errorf("%w: file name of %d bytes, over %d", ErrFormat, len(name), MaxName)
	case strings.IndexByte(name, '/') >= 0:
		return fmt.Errorf("%w: file name %q has a slash", ErrFormat, name)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%w: file name %q has a NUL", ErrFormat, name)
	}
	return nil
}

// validName reports whether checkName has nothing to say.
func validName(name []byte) bool {
	switch len(name) {
	case 0:
		return false
	case 1, 2:
		if string(name) == "." || string(name) == ".." {
			return false
		}
	}
	return len(name) <= MaxName && bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0
}

// checkTarget says what is wrong with a symlink's target, if anything.
func checkTarget(target string) error {
	switch {
	case target == "":
		return fmt.Errorf("%w: empty symlink target", ErrFormat)
	case len(target) > MaxTarget:
		return fmt.Errorf("%w: symlink target of %d bytes, over %d", ErrFormat, len(target), MaxTarget)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("%w: symlink target %q has a NUL", ErrFormat, target)
	}
	return nil
}

// fail adds to err where in the tree it happened.
func fail(path string, err error) error {
	if path == "" {
		return fmt.Errorf("nar: %w", err)
	}
	return fmt.Errorf("nar: %q: %w", path, err)
}
