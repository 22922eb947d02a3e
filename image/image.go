// Package image says what it takes to lay a tree of files out as a filesystem
// image. Entries flow in, in the order a source gives them; the bytes of one
// image file flow out. The formats live below: image/squashfs and image/ext4
// write, image/storedb makes the database that goes in.
package image

import (
	"fmt"
	"io"

	"bigdisk/bundle/store"
)

// Writer lays entries out in a filesystem image, in the style of archive/tar:
// Begin a unit, Create an entry, Write a regular file's bytes, and so on, then
// Close. It is not safe for concurrent use; what runs in parallel does so
// inside.
//
// Paths are relative to the image's root, which exists from the start. Entries
// come depth first: a directory before what it holds, and never again after an
// entry outside it. The names in one directory may come in any order; a name
// that comes twice is an error.
//
// The first failure is kept and returned by every later call. One that is about
// the entry that was given wraps an [*EntryError]; what goes wrong with the
// image file does so some time after the entries came, and names none.
type Writer interface {
	// Begin starts a unit of layout, for which the caller may later ask where
	// its data lies: what a unit holds depends on the units before it only
	// through files that they share. Data of entries created before the first
	// Begin, or after Begin(""), belongs to no unit.
	Begin(unit string) error
	// Create adds an entry. A regular file's Size bytes must then be written
	// before the next Create, Begin or Close. The entry is not kept.
	Create(e *store.Entry) error
	// Write adds bytes to the regular file created last. More than its Size is
	// an error.
	io.Writer
	// Close finishes the image: afterwards it is whole, though not yet synced.
	// It must be called even after an error, to release what the writer holds;
	// it then returns that error.
	Close() error
	// Layout describes the finished image; nil before a successful Close.
	Layout() *Layout
}

// EntryError is what is wrong with an entry that a [Writer] was given.
type EntryError struct {
	// Path is the entry's, relative to the image's root.
	Path string
	Err  error
}

// Error names the entry.
func (e *EntryError) Error() string { return fmt.Sprintf("%q: %v", e.Path, e.Err) }

// Unwrap returns what is wrong.
func (e *EntryError) Unwrap() error { return e.Err }

// Layout tells where things lie in a finished image, and how big they are.
type Layout struct {
	// Size is the image's length in bytes.
	Size int64
	// Files, Dirs and Symlinks count the entries; DataBytes is the sum of the
	// regular files' sizes, and UniqueBytes what is left of it once identical
	// files are counted once.
	Files, Dirs, Symlinks, DataBytes, UniqueBytes int64
	// Units has an entry for each Begin with a name, in order.
	Units []Unit
	// Metadata are the byte ranges that hold everything but the units' data, as
	// far as they are written at all.
	Metadata []Extent
}

// Unit is where one unit's own data lies.
type Unit struct {
	Name string
	// Extents are the byte ranges that hold the data which the unit was the
	// first to need, in order. A unit whose files are all shared has none.
	Extents []Extent
	// Files counts the unit's regular files, Bytes sums their sizes.
	Files, Bytes int64
	// Sums has a sum for each of the files that is not empty.
	Sums FileSums
	// Data is the sum of what Extents hold and of Sums; where Sums say what lies
	// in the extents, of Sums alone. nil for a unit without files that are not
	// empty.
	Data *DataSum
}

// Extent is a range of bytes in an image.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// AddTree adds the tree in c to w, with its root at the image path root. It
// returns when c has ended, and so has proved what it gave to be whole. Where c
// is an [io.WriterTo], file data goes from its buffers straight into w.
func AddTree(w Writer, root string, c store.Contents) error {
	var buf []byte
	out := &blamed{w: w}
	_, direct := c.(io.WriterTo)
	for {
		e, err := c.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at := *e
		at.Path = root
		if e.Path != "" {
			at.Path = root + "/" + e.Path
		}
		if err := w.Create(&at); err != nil {
			return err
		}
		if e.Kind != store.Regular {
			continue
		}
		if buf == nil && !direct {
			buf = make([]byte, 256<<10)
		}
		n, err := io.CopyBuffer(out, c, buf)
		if out.err != nil {
			return out.err
		}
		if err != nil {
			return &EntryError{at.Path, err}
		}
		if n != e.Size {
			return &EntryError{at.Path, fmt.Errorf("%d of %d bytes: %w", n, e.Size, io.ErrUnexpectedEOF)}
		}
	}
}

// blamed keeps io.CopyBuffer to the buffer it was given, and tells what went
// wrong in writing from what did in reading.
type blamed struct {
	w   io.Writer
	err error
}

// Write implements [io.Writer].
func (b *blamed) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.err = err
	return n, err
}
