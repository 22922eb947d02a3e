package squashfs

import (
	"encoding/binary"
	"math"

	"bigdisk/bundle/store"
)

// Every entry has the modes and the time that Nix gives what is in its store.
const (
	modeDir     = 0o555
	modeFile    = 0o444
	modeExec    = 0o555
	modeSymlink = 0o777
	mtime       = 1 // seconds since 1970
)

// location is where the bytes of a regular file lie. Identical files share
// one.
type location struct {
	start int64 // of the first block in the image; the others follow it
	// The end of the file may lie in fragment block fragment, offset bytes in.
	fragment, offset uint32
	blocks           *blockList // nil if there is only a fragment
}

type blockList struct {
	sizes   []uint32 // as the inode lists them; 0 is a block of zeros
	written bool     // location.start is known
	sparse  int64    // bytes in blocks of zeros
}

// noteBlock keeps where block index went, and its size with blockStored.
func (l *location) noteBlock(index int, start int64, size uint32) {
	if !l.blocks.written {
		l.blocks.written = true
		l.start = start
	}
	l.blocks.sizes[index] = size
}

// inodeTable writes inodes. Their numbers come from outside, their places are
// noted for the export table.
type inodeTable struct {
	meta   *metaWriter
	places []ref // of inode n at n-1
	buf    []byte
}

func (t *inodeTable) add(number uint32, inode []byte) ref {
	at := makeRef(t.meta.pos())
	t.meta.write(inode)
	if missing := int(number) - len(t.places); missing > 0 {
		t.places = append(t.places, make([]ref, missing)...)
	}
	t.places[number-1] = at
	t.buf = inode[:0]
	return at
}

// header appends struct squashfs_base_inode. There is one owner, so the
// indices into the ID table are always the same.
func (t *inodeTable) header(typ, mode uint16, gidIndex uint16, number uint32) []byte {
	le := binary.LittleEndian
	b := t.buf[:0]
	b = le.AppendUint16(b, typ)
	b = le.AppendUint16(b, mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, gidIndex)
	b = le.AppendUint32(b, mtime)
	return le.AppendUint32(b, number)
}

// addFile writes struct squashfs_reg_inode, or squashfs_lreg_inode for a file
// that the short one cannot describe.
func (t *inodeTable) addFile(c *child, gidIndex uint16) ref {
	le := binary.LittleEndian
	mode := uint16(modeFile)
	if c.executable {
		mode = modeExec
	}
	loc := c.loc
	var sizes []uint32
	var sparse int64
	if loc.blocks != nil {
		sizes, sparse = loc.blocks.sizes, loc.blocks.sparse
	}
	if loc.start > math.MaxUint32 || c.size > math.MaxUint32 || sparse > 0 {
		b := t.header(typeReg+extended, mode, gidIndex, c.number)
		b = le.AppendUint64(b, uint64(loc.start))
		b = le.AppendUint64(b, uint64(c.size))
		b = le.AppendUint64(b, uint64(sparse))
		b = le.AppendUint32(b, 1) // links
		b = le.AppendUint32(b, loc.fragment)
		b = le.AppendUint32(b, loc.offset)
		b = le.AppendUint32(b, noXattr)
		return t.add(c.number, appendSizes(b, sizes))
	}
	b := t.header(typeReg, mode, gidIndex, c.number)
	b = le.AppendUint32(b, uint32(loc.start))
	b = le.AppendUint32(b, loc.fragment)
	b = le.AppendUint32(b, loc.offset)
	b = le.AppendUint32(b, uint32(c.size))
	return t.add(c.number, appendSizes(b, sizes))
}

func appendSizes(b []byte, sizes []uint32) []byte {
	for _, s := range sizes {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return b
}

// addSymlink writes struct squashfs_symlink_inode.
func (t *inodeTable) addSymlink(c *child, gidIndex uint16) ref {
	le := binary.LittleEndian
	b := t.header(typeSymlink, modeSymlink, gidIndex, c.number)
	b = le.AppendUint32(b, 1) // links
	b = le.AppendUint32(b, uint32(len(c.target)))
	return t.add(c.number, append(b, c.target...))
}

// addDir writes struct squashfs_dir_inode, or squashfs_ldir_inode with its
// index for a directory whose listing is long.
func (t *inodeTable) addDir(d *directory, l *listing, gidIndex uint16) ref {
	le := binary.LittleEndian
	// A directory's size counts "." and ".." as three bytes, though they are
	// not in the listing.
	size := l.size + 3
	links := 2 + d.subdirs
	if size > math.MaxUint16 {
		b := t.header(typeDir+extended, modeDir, gidIndex, d.number)
		b = le.AppendUint32(b, links)
		b = le.AppendUint32(b, uint32(size))
		b = le.AppendUint32(b, uint32(l.block))
		b = le.AppendUint32(b, d.parent)
		b = le.AppendUint16(b, uint16(len(l.index)))
		b = le.AppendUint16(b, uint16(l.offset))
		b = le.AppendUint32(b, noXattr)
		for i := range l.index {
			b = l.index[i].append(b)
		}
		return t.add(d.number, b)
	}
	b := t.header(typeDir, modeDir, gidIndex, d.number)
	b = le.AppendUint32(b, uint32(l.block))
	b = le.AppendUint32(b, links)
	b = le.AppendUint16(b, uint16(size))
	b = le.AppendUint16(b, uint16(l.offset))
	b = le.AppendUint32(b, d.parent)
	return t.add(d.number, b)
}

// entryType is the type a directory listing gives an entry: always the basic
// one.
func entryType(k store.Kind) uint16 {
	switch k {
	case store.Directory:
		return typeDir
	case store.Symlink:
		return typeSymlink
	}
	return typeReg
}
