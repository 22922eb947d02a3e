package read

import (
	"encoding/binary"
	"fmt"
	"io"
)

// extent maps a run of a file's blocks.
type extent struct {
	logical, physical, count uint64
	unwritten                bool
}

// extentNode is one node of an extent tree: struct ext4_extent_header and the
// entries behind it.
type extentNode struct {
	b     []byte
	count int
	depth int
	i     int
}

const (
	extExtentMagic = 0xf30a
	extExtentSize  = 12
	extMaxExtent   = 32768 // blocks; a larger count means unwritten, less this
	extMaxDepth    = 5
)

// extentIter walks an extent tree from the file's first block to its last.
// What it returns never goes back, so a tree with a loop in it ends in an error.
type extentIter struct {
	fs    *ext4
	ino   uint32
	csum  uint32
	stack []extentNode
	least uint64 // the next extent starts here or later
}

// extents starts at the root of the tree, which is in the inode.
func (fs *ext4) extents(ino uint32, p *extPos) (*extentIter, error) {
	if p.flags&extFlagExtents == 0 {
		return nil, fmt.Errorf("%w: inode %d maps its blocks without extents", ErrUnsupported, ino)
	}
	x := &extentIter{fs: fs, ino: ino, csum: p.csum}
	return x, x.push(p.iblock[:], -1)
}

// push adds a node; depth is what its parent wants it to be, -1 for the root.
func (x *extentIter) push(b []byte, depth int) error {
	le := binary.LittleEndian
	n := extentNode{b: b, count: int(le.Uint16(b[2:])), depth: int(le.Uint16(b[6:]))}
	most := int(le.Uint16(b[4:]))
	switch {
	case le.Uint16(b) != extExtentMagic:
		return damaged("inode %d: an extent node starts with %#x", x.ino, le.Uint16(b))
	case n.count > most || extExtentSize*(1+most) > len(b):
		return damaged("inode %d: an extent node of %d bytes with %d of %d entries", x.ino, len(b), n.count, most)
	case n.depth > extMaxDepth || (depth >= 0 && n.depth != depth):
		return damaged("inode %d: an extent node of depth %d, not %d", x.ino, n.depth, depth)
	case n.count == 0 && depth >= 0:
		return damaged("inode %d: an empty extent node", x.ino)
	}
	if depth >= 0 && x.fs.hasCsum() {
		tail := extExtentSize * (1 + most)
		if tail+4 > len(b) {
			return damaged("inode %d: an extent node without room for its checksum", x.ino)
		}
		if got, want := crc32c(x.csum, b[:tail]), le.Uint32(b[tail:]); got != want {
			return damaged("inode %d: an extent node's checksum is %#08x, but it says %#08x", x.ino, got, want)
		}
	}
	x.stack = append(x.stack, n)
	return nil
}

// next returns the next extent, io.EOF after the last.
func (x *extentIter) next() (extent, error) {
	for len(x.stack) > 0 {
		n := &x.stack[len(x.stack)-1]
		if n.i == n.count {
			x.stack = x.stack[:len(x.stack)-1]
			continue
		}
		n.i++
		entry := n.b[extExtentSize*n.i:][:extExtentSize]
		if n.depth == 0 {
			return x.leaf(entry)
		}
		if err := x.index(entry, n.depth-1); err != nil {
			return extent{}, err
		}
	}
	return extent{}, io.EOF
}

// leaf reads struct ext4_extent.
func (x *extentIter) leaf(b []byte) (extent, error) {
	le := binary.LittleEndian
	e := extent{
		logical:  uint64(le.Uint32(b)),
		count:    uint64(le.Uint16(b[4:])),
		physical: uint64(le.Uint32(b[8:])) | uint64(le.Uint16(b[6:]))<<32,
	}
	if e.count > extMaxExtent {
		e.count -= extMaxExtent
		e.unwritten = true
	}
	switch {
	case e.count == 0:
		return e, damaged("inode %d: an extent of no blocks", x.ino)
	case e.logical < x.least:
		return e, damaged("inode %d: an extent at block %d, where block %d was reached", x.ino, e.logical, x.least)
	case e.physical <= x.fs.firstBlock || e.physical >= x.fs.blocks || e.count > x.fs.blocks-e.physical:
		return e, damaged("inode %d: an extent of %d blocks at block %d, outside the filesystem", x.ino, e.count, e.physical)
	}
	x.least = e.logical + e.count
	return e, nil
}

// index reads struct ext4_extent_idx and goes down.
func (x *extentIter) index(b []byte, depth int) error {
	le := binary.LittleEndian
	logical := uint64(le.Uint32(b))
	if logical < x.least {
		return damaged("inode %d: an extent node at block %d, where block %d was reached", x.ino, logical, x.least)
	}
	x.least = logical
	child, err := x.fs.block(uint64(le.Uint32(b[4:])) | uint64(le.Uint16(b[8:]))<<32)
	if err != nil {
		return fmt.Errorf("inode %d: %w", x.ino, err)
	}
	return x.push(child, depth)
}
