package ext4

import "encoding/binary"

// extent is struct ext4_extent: len blocks of a file, from its block on, lie
// at start. Where that is need not follow from anything.
type extent struct {
	block   uint32 // ee_block
	len     uint16 // ee_len, at most extentMaxLen
	startHi uint16
	startLo uint32
}

func newExtent(block, start, blocks int64) extent {
	return extent{uint32(block), uint16(blocks), uint16(start >> 32), uint32(start)}
}

func (e *extent) start() int64 { return int64(e.startHi)<<32 | int64(e.startLo) }

func (e *extent) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], e.block)
	le.PutUint16(b[4:], e.len)
	le.PutUint16(b[6:], e.startHi)
	le.PutUint32(b[8:], e.startLo)
}

// addExtents maps so many blocks of a file, from block on, to start on. The
// file's extents so far begin at index first; the last of them grows if it
// can.
func (b *builder) addExtents(first int, block, start, blocks int64) {
	if b.extents.n > first {
		last := b.extents.at(b.extents.n - 1)
		have := int64(last.len)
		if int64(last.block)+have == block && last.start()+have == start {
			n := min(blocks, extentMaxLen-have)
			last.len += uint16(n)
			block, start, blocks = block+n, start+n, blocks-n
		}
	}
	for blocks > 0 {
		n := min(blocks, extentMaxLen)
		b.extents.add(newExtent(block, start, n))
		block, start, blocks = block+n, start+n, blocks-n
	}
}

// treeBlocks is how many blocks the tree of so many extents takes outside of
// the inode, all full but the last of each level.
func treeBlocks(extents int64) (blocks int64) {
	for extents > rootExtents {
		extents = ceilDiv(extents, extentsInBlock)
		blocks += extents
	}
	return blocks
}

// extentTree writes the extent tree of an inode: what fits into root, which
// is i_block, and the rest to tree. seed is the inode's.
func (f *finisher) extentTree(root []byte, n *inode, seed uint32) error {
	count := int64(n.extents)
	level := func(i int64) treeEntry {
		e := f.b.extents.at(int(n.ref + i))
		return treeEntry{leaf: e, block: e.block}
	}
	depth := uint16(0)
	for count > rootExtents {
		children := make([]treeEntry, 0, ceilDiv(count, extentsInBlock))
		for i := int64(0); i < count; i += extentsInBlock {
			children = append(children, treeEntry{block: level(i).block, child: f.tree.next()})
			block := f.tree.block()
			putTreeNode(block, level, i, min(count-i, extentsInBlock), extentsInBlock, depth)
			sum := crc32c(seed, block[:extentTail])
			binary.LittleEndian.PutUint32(block[extentTail:], sum)
			if err := f.tree.err; err != nil {
				return err
			}
		}
		count = int64(len(children))
		level = func(i int64) treeEntry { return children[i] }
		depth++
	}
	putTreeNode(root, level, 0, count, rootExtents, depth)
	return nil
}

// treeEntry is an entry of an extent tree's node: an extent, or the block of
// a node below, whose first logical block is given.
type treeEntry struct {
	leaf  *extent
	block uint32
	child int64
}

// putTreeNode writes struct ext4_extent_header and count entries from first
// on.
func putTreeNode(b []byte, entries func(int64) treeEntry, first, count, room int64, depth uint16) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], uint16(count))
	le.PutUint16(b[4:], uint16(room))
	le.PutUint16(b[6:], depth)
	for i := range count {
		e := entries(first + i)
		at := b[extentSize*(1+i):]
		if e.leaf != nil {
			e.leaf.put(at)
			continue
		}
		le.PutUint32(at[0:], e.block) // struct ext4_extent_idx
		le.PutUint32(at[4:], uint32(e.child))
		le.PutUint16(at[8:], uint16(e.child>>32))
	}
}
