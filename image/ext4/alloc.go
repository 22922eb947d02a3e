package ext4

import (
	"errors"
	"fmt"
)

// How an image is laid out, in blocks:
//
//	0                 superblock, at byte 1024
//	1 …               group descriptors, 64 to a block
//	… firstData       unused, or the groups' bitmaps and inode tables where they fit
//	firstData …       regular files and long symlinks, in the order they came
//	…                 directories, in the order they came
//	…                 blocks of extent trees that do not fit in an inode
//	…                 block bitmaps, inode bitmaps, inode tables of all groups
//	…                 free
//
// The descriptors must follow the superblock, and how many there are is known
// last. So room is kept for as many as the greatest image needs: 64 TiB are
// 2^34 blocks, 2^19 groups of 128 MiB, 2^25 bytes of descriptors, 8192 blocks.
// That is 32 MiB in images that are gibibytes, and nothing is written there,
// so it is a hole. firstData is a little more, so that data starts at a
// multiple of 1 MiB.
//
// With flex_bg a group's bitmaps and inode table may be anywhere, and with
// sparse_super2 no other group needs a copy of superblock and descriptors. So
// nothing lies between firstData and the data's end but data, a file runs on
// across the borders of groups, and the used blocks are just two ranges.
const (
	maxBlocks = 1 << 34
	firstData = 33 << 20 / blockSize
)

// geometry says where things lie. All numbers are in blocks, but for
// groupInodes.
type geometry struct {
	blocks      int64 // the image
	groups      int64 // of 32768 blocks; the last may be shorter
	descBlocks  int64 // of group descriptors, from block 1
	frontEnd    int64 // blocks [0, frontEnd) are used,
	dataStart   int64 // and blocks [dataStart, end)
	end         int64
	groupMeta   int64 // where bitmaps and inode tables start
	tableBlocks int64 // of one group's inode table
	groupInodes int64 // inodes of one group: tableBlocks * 16
}

var errTooManyInodes = errors.New("more files than ext4 has inode numbers for")

// plan finds the geometry of the smallest image for so many inodes, when
// blocks [dataStart, end) are used; or that of opts.Size.
func plan(opts Options, inodes, end int64) (geometry, error) {
	round := opts.RoundTo / blockSize
	size := max(end, 1)
	if opts.Size != 0 {
		size = opts.Size / blockSize
	} else {
		size = (size + round - 1) / round * round
	}
	for {
		g, need, err := fit(opts, inodes, end, size)
		if err != nil {
			return g, err
		}
		if need <= size {
			return g, nil
		}
		if opts.Size != 0 {
			return g, fmt.Errorf("the contents need %d bytes, the image's size is %d", need*blockSize, opts.Size)
		}
		size = (need + round - 1) / round * round
		if size > maxBlocks {
			return g, fmt.Errorf("the contents need %d bytes, more than the 64 TiB that an image can have", need*blockSize)
		}
	}
}

// fit lays an image of so many blocks out, and returns how many it needs.
func fit(opts Options, inodes, end, blocks int64) (geometry, int64, error) {
	g := geometry{blocks: blocks, dataStart: opts.dataStart, end: end}
	g.groups = ceilDiv(blocks, blocksPerGroup)
	if inodes >= 1<<32 {
		return g, 0, errTooManyInodes
	}
	if opts.Writable {
		inodes = min(inodes+blocks/4, (1<<32-1)/g.groups*g.groups)
	}
	if least := ceilDiv(inodes, maxGroupInodes); least > g.groups {
		return g, least * blocksPerGroup, nil
	}
	g.tableBlocks = min(ceilDiv(inodes, g.groups*inodesPerBlock), (1<<32-1)/(g.groups*inodesPerBlock))
	g.groupInodes = g.tableBlocks * inodesPerBlock
	g.descBlocks = ceilDiv(g.groups, descsPerBlock)
	g.frontEnd = 1 + g.descBlocks
	meta := g.groups * (2 + g.tableBlocks)
	if g.frontEnd+meta <= firstData {
		g.groupMeta = g.frontEnd
		g.frontEnd += meta
	} else {
		g.groupMeta = end
		g.end += meta
	}
	need := g.end
	if opts.Writable && opts.Size == 0 {
		need += (g.frontEnd+g.end-g.dataStart)/16 + 16<<20/blockSize
	}
	return g, need, nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// inodes is how many the image has.
func (g *geometry) inodes() int64 { return g.groups * g.groupInodes }

// used is how many blocks are.
func (g *geometry) used() int64 { return g.frontEnd + g.end - g.dataStart }

// blockBitmap, inodeBitmap and inodeTable are where those of a group are. All
// inode tables follow one another, so that they are one array of inodes.
func (g *geometry) blockBitmap(group int64) int64 { return g.groupMeta + group }
func (g *geometry) inodeBitmap(group int64) int64 { return g.groupMeta + g.groups + group }
func (g *geometry) inodeTable(group int64) int64 {
	return g.groupMeta + 2*g.groups + group*g.tableBlocks
}

// groupBlocks is how many blocks a group has.
func (g *geometry) groupBlocks(group int64) int64 {
	return min(blocksPerGroup, g.blocks-group*blocksPerGroup)
}

// usedIn returns the used blocks of a group as two ranges, counted from its
// first block. A range may be empty.
func (g *geometry) usedIn(group int64) [2][2]int64 {
	first := group * blocksPerGroup
	clamp := func(block int64) int64 { return min(max(block-first, 0), blocksPerGroup) }
	return [2][2]int64{
		{0, clamp(g.frontEnd)},
		{clamp(g.dataStart), clamp(g.end)},
	}
}
