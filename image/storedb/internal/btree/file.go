// Package btree fills the tables and indexes of an empty SQLite database from
// rows that come in key order.
//
// SQLite itself makes the database: schema, header and one empty root page for
// each table and index. This package then appends b-tree pages and points the
// roots at them, following "Database File Format" (sqlite.org/fileformat2.html):
// sections 1.3 (header), 1.6 (b-tree pages), 1.6 and 1.5 (overflow and
// lock-byte pages), 2.1 (records). Each page is written once, full, in
// sequence; nothing is searched, split or read back, so a row costs a small
// part of what an INSERT does and the bytes depend on the rows alone.
//
// Leaves are laid down in the order in which they fill up: trees that are
// filled side by side, in the same key order, have the leaves for one key close
// to each other in the file. Interior pages come together at the file's end.
package btree

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Output is what a database is written to. Only the first pages are written
// out of order.
type Output interface {
	io.Writer
	io.WriterAt
}

const (
	// lockByte is the offset of the byte that SQLite locks; the page that holds
	// it is never used.
	lockByte = 1 << 30
	// maxPage is the highest page number SQLite allows.
	maxPage = 1<<32 - 2

	headerPageSize  = 16 // two bytes, 1 means 65536
	headerReserved  = 20 // unused bytes at the end of every page
	headerChange    = 24 // file change counter
	headerPages     = 28 // size of the database in pages
	headerValidFor  = 92 // change counter at which headerPages was right
	headerLen       = 100
	maxPageSize     = 65536
	writeBufferSize = 1 << 20
)

// File appends b-tree pages to an empty database. The first failure is kept
// and returned by every later call.
type File struct {
	skeleton []byte
	size     int // of a page
	out      Output
	buf      *bufio.Writer
	next     uint64 // number of the next page
	err      error
	trees    []*tree
}

// NewFile starts with skeleton, the bytes of an empty database that SQLite has
// made, at the start of out, which must be empty and at offset 0.
func NewFile(out Output, skeleton []byte) (*File, error) {
	if len(skeleton) < headerLen {
		return nil, errors.New("a database has at least 100 bytes")
	}
	size := int(binary.BigEndian.Uint16(skeleton[headerPageSize:]))
	if size == 1 {
		size = maxPageSize
	}
	if size < 512 || size&(size-1) != 0 || len(skeleton)%size != 0 || len(skeleton) > lockByte {
		return nil, fmt.Errorf("%d bytes are not a whole number of pages of %d", len(skeleton), size)
	}
	if skeleton[headerReserved] != 0 {
		return nil, fmt.Errorf("%d bytes are reserved in every page", skeleton[headerReserved])
	}
	f := &File{
		skeleton: append([]byte(nil), skeleton...),
		size:     size,
		out:      out,
		buf:      bufio.NewWriterSize(out, writeBufferSize),
		next:     uint64(len(skeleton)/size) + 1,
	}
	_, f.err = f.buf.Write(f.skeleton)
	return f, f.err
}

// Finish writes what is left of every tree, then the roots and the header. The
// file is then whole, but not synced.
func (f *File) Finish() error {
	for _, t := range f.trees {
		t.finishLeaves()
	}
	for _, t := range f.trees {
		t.finishInterior()
	}
	if f.err == nil {
		f.err = f.buf.Flush()
	}
	if f.err != nil {
		return f.err
	}
	binary.BigEndian.PutUint32(f.skeleton[headerPages:], uint32(f.next-1))
	binary.BigEndian.PutUint32(f.skeleton[headerChange:], 1)
	binary.BigEndian.PutUint32(f.skeleton[headerValidFor:], 1)
	_, f.err = f.out.WriteAt(f.skeleton, 0)
	return f.err
}

// append writes a page at the end and returns its number.
func (f *File) append(page []byte) uint32 {
	if f.next == uint64(lockByte/f.size)+1 {
		f.put(make([]byte, f.size))
	}
	n := uint32(f.next)
	f.put(page)
	return n
}

func (f *File) put(page []byte) {
	if f.err != nil {
		return
	}
	if f.next > maxPage {
		f.err = fmt.Errorf("the database would have more than %d pages", uint32(maxPage))
		return
	}
	f.next++
	_, f.err = f.buf.Write(page)
}

// setRoot replaces one of the skeleton's pages.
func (f *File) setRoot(n uint32, page []byte) {
	copy(f.skeleton[int(n-1)*f.size:], page)
}

// overflow writes data as a chain of overflow pages and returns the number of
// the first. The pages of a chain follow each other.
func (f *File) overflow(data []byte) uint32 {
	page := make([]byte, f.size)
	var first uint32
	for len(data) > 0 {
		n := copy(page[4:], data)
		clear(page[4+n:])
		data = data[n:]
		var next uint32
		if len(data) > 0 {
			next = f.pageAfterNext()
		}
		binary.BigEndian.PutUint32(page, next)
		if at := f.append(page); first == 0 {
			first = at
		}
	}
	return first
}

// pageAfterNext is the number of the page that is written after the next.
func (f *File) pageAfterNext() uint32 {
	lock := uint64(lockByte/f.size) + 1
	after := f.next + 1
	if f.next == lock || after == lock {
		after++
	}
	return uint32(after)
}
