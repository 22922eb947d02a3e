package read

import (
	"encoding/binary"
	"slices"
	"strings"
)

// sqfsIndexEntry is struct squashfs_dir_index: which name stands first at some
// place in a long listing.
type sqfsIndexEntry struct {
	offset uint32 // into the listing
	start  uint32 // metadata block, from the directory table's start
	name   string
}

// readDir reads a listing: runs of up to 256 entries (struct squashfs_dir_entry)
// behind a header (struct squashfs_dir_header) with what they share.
func (fs *squashfs) readDir(n *Node) ([]DirEntry, error) {
	p := n.priv.(*sqfsDirPos)
	if p.size == 0 {
		return nil, nil
	}
	index, err := fs.readIndex(p)
	if err != nil {
		return nil, err
	}
	c, err := fs.cursor(fs.sb.DirectoryTable+uint64(p.start), fs.sb.BytesUsed, int(p.offset))
	if err != nil {
		return nil, err
	}
	l := sqfsListing{c: c, table: fs.sb.DirectoryTable, left: p.size, size: p.size, dir: n.Ino, index: index}
	for l.left > 0 {
		if err := l.run(); err != nil {
			return nil, err
		}
	}
	if len(l.index) > 0 {
		return nil, damaged("directory inode %d: its index has an entry at %d, where no run of names starts", n.Ino, l.index[0].offset)
	}
	return l.entries()
}

// readIndex reads the index behind a long directory inode.
func (fs *squashfs) readIndex(p *sqfsDirPos) ([]sqfsIndexEntry, error) {
	c := p.index
	var out []sqfsIndexEntry
	for range p.indexes {
		var b [12]byte
		if err := c.read(b[:]); err != nil {
			return nil, err
		}
		le := binary.LittleEndian
		length := le.Uint32(b[8:])
		if length > 255 {
			return nil, damaged("directory index with a name of %d bytes", length+1)
		}
		name := make([]byte, length+1)
		if err := c.read(name); err != nil {
			return nil, err
		}
		out = append(out, sqfsIndexEntry{le.Uint32(b[:]), le.Uint32(b[4:]), string(name)})
	}
	return out, nil
}

// sqfsListing parses one directory. The names are gathered in one string, to
// keep a listing of a million names small.
type sqfsListing struct {
	c     *sqfsCursor
	table uint64
	left  uint32 // bytes
	size  uint32
	dir   uint32
	index []sqfsIndexEntry // what has not been met yet

	names strings.Builder
	ends  []uint32
	out   []DirEntry
	buf   [256]byte
	last  []byte
}

func (l *sqfsListing) read(p []byte) error {
	if uint32(len(p)) > l.left {
		return damaged("directory inode %d: an entry runs past the listing's end", l.dir)
	}
	l.left -= uint32(len(p))
	return l.c.read(p)
}

// run reads one header and its entries.
func (l *sqfsListing) run() error {
	at := l.size - l.left
	if l.c.off == len(l.c.data) {
		if err := l.c.advance(); err != nil {
			return err
		}
	}
	block := uint64(l.c.pos) - l.table
	var h [12]byte
	if err := l.read(h[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	count := le.Uint32(h[:])
	if count >= 256 {
		return damaged("directory inode %d: a run of %d names", l.dir, uint64(count)+1)
	}
	for i := range count + 1 {
		if err := l.entry(uint64(le.Uint32(h[4:])), le.Uint32(h[8:])); err != nil {
			return err
		}
		if i == 0 {
			if err := l.checkIndex(at, block); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkIndex holds an index entry, if one points at the run that started at
// this offset, against it.
func (l *sqfsListing) checkIndex(at uint32, block uint64) error {
	if len(l.index) == 0 || l.index[0].offset != at {
		return nil
	}
	x := l.index[0]
	if uint64(x.start) != block || x.name != string(l.last) {
		return damaged("directory inode %d: its index says that %q is at %d, where %q is at %d", l.dir, x.name, x.start, l.last, block)
	}
	l.index = l.index[1:]
	return nil
}

func (l *sqfsListing) entry(block uint64, base uint32) error {
	var b [8]byte
	if err := l.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	length := int(le.Uint16(b[6:])) + 1
	if length > len(l.buf) {
		return damaged("directory inode %d: a name of %d bytes", l.dir, length)
	}
	name := l.buf[:length]
	if err := l.read(name); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	if len(l.out) > 0 && string(name) <= string(l.last) {
		return damaged("directory inode %d: %q comes after %q", l.dir, name, l.last)
	}
	if len(l.out) >= maxDirEntries {
		return damaged("directory inode %d: more than %d names", l.dir, maxDirEntries)
	}
	l.last = append(l.last[:0], name...)
	l.names.Write(name)
	l.ends = append(l.ends, uint32(l.names.Len()))
	l.out = append(l.out, DirEntry{
		ref:    block<<16 | uint64(le.Uint16(b[:])),
		ino:    base + uint32(int32(int16(le.Uint16(b[2:])))),
		parent: l.dir,
		kind:   sqfsKind(le.Uint16(b[4:])),
	})
	return nil
}

// entries gives the entries their names.
func (l *sqfsListing) entries() ([]DirEntry, error) {
	all, start := l.names.String(), uint32(0)
	for i, end := range l.ends {
		l.out[i].Name = all[start:end]
		start = end
	}
	return slices.Clip(l.out), nil
}
