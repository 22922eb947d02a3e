package ext4

import (
	"errors"
	"fmt"
	"slices"
)

// How an image is laid out, in blocks:
//
//	0                 superblock, at byte 1024
//	1 …               group descriptors, 64 to a block
//	… firstData       unused, or the groups' bitmaps and inode tables where they fit
//	firstData …       regular files, in the order they came
//	…                 directories, in the order they came
//	…                 symlinks' targets that do not fit in an inode, the same
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
// across the borders of groups, and the used blocks are just two ranges. In an
// image that has been changed in place all this but the superblock and the
// descriptors lies wherever there was room, from firstData on.
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
	tableBlocks int64 // of one group's inode table
	groupInodes int64 // inodes of one group: tableBlocks * 16

	used                                    spans  // sorted
	blockBitmaps, inodeBitmaps, inodeTables places // of the groups, in order
}

// places are blocks that are numbered through, wherever they lie.
type places struct {
	spans spans
	first []int64 // the number of each span's first block
}

func newPlaces(s spans) places {
	p := places{spans: s, first: make([]int64, len(s))}
	for i := 1; i < len(s); i++ {
		p.first[i] = p.first[i-1] + s[i-1].blocks()
	}
	return p
}

// at is where the block with number i lies.
func (p *places) at(i int64) int64 {
	k, found := slices.BinarySearch(p.first, i)
	if !found {
		k--
	}
	return p.spans[k].start + i - p.first[k]
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
	g, least, err := divide(opts, inodes, blocks)
	if err != nil || least > blocks {
		return g, least, err
	}
	frontEnd, dataStart := 1+g.descBlocks, opts.dataStart
	meta := g.groups * (2 + g.tableBlocks)
	at := end
	if frontEnd+meta <= firstData {
		at = frontEnd
		frontEnd += meta
	} else {
		end += meta
	}
	part := func(blocks int64) places {
		at += blocks
		return newPlaces(spans{{at - blocks, at}})
	}
	g.blockBitmaps, g.inodeBitmaps, g.inodeTables = part(g.groups), part(g.groups), part(g.groups*g.tableBlocks)
	g.used = spans{{0, frontEnd}, {dataStart, end}}
	return g, end + opts.spare(g.used.blocks()), nil
}

// spare is how many free blocks an image should have when so many are used.
func (o *Options) spare(used int64) int64 {
	if !o.Writable || o.Size != 0 {
		return 0
	}
	return used/16 + 16<<20/blockSize
}

// divide cuts an image of so many blocks into groups, and returns how many it
// has to have.
func divide(opts Options, inodes, blocks int64) (g geometry, least int64, err error) {
	g.blocks = blocks
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
	return g, 0, nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// inodes is how many the image has.
func (g *geometry) inodes() int64 { return g.groups * g.groupInodes }

// blockBitmap, inodeBitmap and inodeTable are where those of a group are.
func (g *geometry) blockBitmap(group int64) int64 { return g.blockBitmaps.at(group) }
func (g *geometry) inodeBitmap(group int64) int64 { return g.inodeBitmaps.at(group) }
func (g *geometry) inodeTable(group int64) int64  { return g.inodeTables.at(group * g.tableBlocks) }

// groupBlocks is how many blocks a group has.
func (g *geometry) groupBlocks(group int64) int64 {
	return min(blocksPerGroup, g.blocks-group*blocksPerGroup)
}

// usedIn returns the used blocks of a group, counted from its first block.
func (g *geometry) usedIn(group int64, into spans) spans {
	first := group * blocksPerGroup
	for _, x := range g.used.from(first) {
		if x.start >= first+blocksPerGroup {
			break
		}
		into = append(into, span{max(x.start-first, 0), min(x.end-first, blocksPerGroup)})
	}
	return into
}
