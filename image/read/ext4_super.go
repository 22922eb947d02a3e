package read

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Facts of the format: struct ext4_super_block, struct ext4_group_desc and the
// feature flags in the kernel's fs/ext4/ext4.h, and the kernel's
// Documentation/filesystems/ext4.
const (
	extSuperOffset = 1024
	extSuperSize   = 1024
	extRootIno     = 2

	extIncompatFiletype = 0x2
	extIncompatMetaBG   = 0x10
	extIncompatExtents  = 0x40
	extIncompat64bit    = 0x80
	extIncompatFlexBG   = 0x200
	extIncompatCsumSeed = 0x2000
	extIncompatLargeDir = 0x4000

	// extIncompatKnown are the features without which a reader would go wrong,
	// and with which this one does not.
	extIncompatKnown = extIncompatFiletype | extIncompatMetaBG | extIncompatExtents | extIncompat64bit |
		extIncompatFlexBG | extIncompatCsumSeed | extIncompatLargeDir

	extCompatSparseSuper2 = 0x200

	extRoSparseSuper  = 0x1
	extRoBigalloc     = 0x200
	extRoMetadataCsum = 0x400
)

// ext4 reads one ext4 filesystem.
type ext4 struct {
	r    io.ReaderAt
	size int64 // bytes there are

	super      []byte // as it is on the disk
	blockSize  int64
	blocks     uint64
	firstBlock uint64
	perGroup   uint64 // blocks
	inodes     uint32
	inodesPer  uint32
	inodeSize  int64
	firstIno   uint32
	descSize   int64
	compat     uint32
	incompat   uint32
	roCompat   uint32
	backups    [2]uint32 // groups, with sparse_super2
	seed       uint32    // of metadata_csum
	groups     []extGroup
	chunks     *cache[[]byte] // by number, of extChunk bytes each
	files      bufPool
}

// extGroup is what is needed of struct ext4_group_desc.
type extGroup struct {
	blockBitmap, inodeBitmap, inodeTable uint64
	flags                                uint16
	blockCsum, inodeCsum                 uint32
}

// extChunk is how many bytes of metadata are read at once.
const (
	extChunk      = 32 << 10
	extChunkCache = 1024 // 32 MiB
)

func openExt4(r io.ReaderAt, size int64) (filesystem, error) {
	fs := &ext4{r: r, size: size, super: make([]byte, extSuperSize)}
	if _, err := r.ReadAt(fs.super, extSuperOffset); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	if err := fs.parseSuper(); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	fs.chunks = newCache(extChunkCache, fs.loadChunk)
	fs.files.size = maxPiece
	if err := fs.readGroups(); err != nil {
		return nil, err
	}
	return fs, nil
}

func (fs *ext4) parseSuper() error {
	le, b := binary.LittleEndian, fs.super
	fs.compat, fs.incompat, fs.roCompat = le.Uint32(b[0x5c:]), le.Uint32(b[0x60:]), le.Uint32(b[0x64:])
	fs.setSeed()
	if fs.hasCsum() {
		if got, want := crc32c(^uint32(0), b[:0x3fc]), le.Uint32(b[0x3fc:]); got != want {
			return damaged("its checksum is %#08x, but it says %#08x", got, want)
		}
	}
	if odd := fs.incompat &^ extIncompatKnown; odd != 0 {
		return fmt.Errorf("%w: ext4 features %#x (a journal to replay, inline data, encryption or others)", ErrUnsupported, odd)
	}
	if fs.incompat&extIncompatExtents == 0 {
		return fmt.Errorf("%w: ext2 or ext3, which map the blocks of files without extents", ErrUnsupported)
	}
	if fs.roCompat&extRoBigalloc != 0 {
		return fmt.Errorf("%w: ext4 with clusters of several blocks (bigalloc)", ErrUnsupported)
	}
	fs.inodes, fs.blocks = le.Uint32(b), uint64(le.Uint32(b[4:]))
	if fs.incompat&extIncompat64bit != 0 {
		fs.blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	fs.firstBlock = uint64(le.Uint32(b[0x14:]))
	fs.perGroup, fs.inodesPer = uint64(le.Uint32(b[0x20:])), le.Uint32(b[0x28:])
	fs.firstIno, fs.inodeSize = le.Uint32(b[0x54:]), int64(le.Uint16(b[0x58:]))
	fs.backups = [2]uint32{le.Uint32(b[0x24c:]), le.Uint32(b[0x250:])}
	fs.descSize = 32
	if fs.incompat&extIncompat64bit != 0 {
		fs.descSize = int64(le.Uint16(b[0xfe:]))
	}
	log := le.Uint32(b[0x18:])
	if log > 6 {
		return damaged("block size 2^%d", uint64(log)+10)
	}
	fs.blockSize = 1024 << log
	return fs.checkSuper()
}

func (fs *ext4) checkSuper() error {
	bs := uint64(fs.blockSize)
	switch {
	case fs.inodeSize < 128 || fs.inodeSize > fs.blockSize || fs.inodeSize&(fs.inodeSize-1) != 0:
		return damaged("inodes of %d bytes", fs.inodeSize)
	case fs.descSize < 32 || fs.descSize > 1024 || fs.descSize&(fs.descSize-1) != 0:
		return damaged("group descriptors of %d bytes", fs.descSize)
	case fs.perGroup == 0 || fs.perGroup > bs*8:
		return damaged("%d blocks in a group", fs.perGroup)
	case fs.inodesPer == 0 || uint64(fs.inodesPer) > bs*8:
		return damaged("%d inodes in a group", fs.inodesPer)
	case fs.blocks > uint64(fs.size)/bs:
		return damaged("%d blocks of %d bytes, but the image has only %d bytes: it has been cut short", fs.blocks, bs, fs.size)
	case fs.firstBlock >= fs.blocks:
		return damaged("first data block %d of %d", fs.firstBlock, fs.blocks)
	case fs.inodes < extRootIno || uint64(fs.inodes) > fs.groupCount()*uint64(fs.inodesPer):
		return damaged("%d inodes in %d groups of %d", fs.inodes, fs.groupCount(), fs.inodesPer)
	}
	return nil
}

func (fs *ext4) groupCount() uint64 {
	return (fs.blocks - fs.firstBlock + fs.perGroup - 1) / fs.perGroup
}

func (fs *ext4) hasCsum() bool { return fs.roCompat&extRoMetadataCsum != 0 }

// setSeed sets what all checksums but the superblock's start from.
func (fs *ext4) setSeed() {
	fs.seed = crc32c(^uint32(0), fs.super[0x68:0x78])
	if fs.incompat&extIncompatCsumSeed != 0 {
		fs.seed = binary.LittleEndian.Uint32(fs.super[0x270:])
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c goes on from crc over p as the kernel does, which inverts neither
// before nor after.
func crc32c(crc uint32, p []byte) uint32 { return ^crc32.Update(^crc, castagnoli, p) }

// crc32cNumber goes on over a 32-bit number.
func crc32cNumber(crc, n uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], n)
	return crc32c(crc, b[:])
}

// descBlock returns the block that holds the i-th block of group descriptors.
func (fs *ext4) descBlock(i uint64) uint64 {
	first := fs.firstBlock + 1
	if fs.incompat&extIncompatMetaBG == 0 || i < uint64(binary.LittleEndian.Uint32(fs.super[0x104:])) {
		return first + i
	}
	group := i * uint64(fs.blockSize/fs.descSize)
	at := fs.firstBlock + group*fs.perGroup
	if fs.hasSuper(group) {
		at++
	}
	return at
}

// readGroups reads and checks all group descriptors.
func (fs *ext4) readGroups() error {
	count, per := fs.groupCount(), uint64(fs.blockSize/fs.descSize)
	fs.groups = make([]extGroup, 0, min(count, 1<<20))
	block := make([]byte, fs.blockSize)
	for g := uint64(0); g < count; g++ {
		if g%per == 0 {
			at := fs.descBlock(g / per)
			if at >= fs.blocks {
				return damaged("descriptor of group %d at block %d of %d", g, at, fs.blocks)
			}
			if _, err := fs.r.ReadAt(block, int64(at)*fs.blockSize); err != nil {
				return fmt.Errorf("group descriptors: %w", err)
			}
		}
		d, err := fs.parseGroup(g, block[int64(g%per)*fs.descSize:][:fs.descSize])
		if err != nil {
			return fmt.Errorf("group %d: %w", g, err)
		}
		fs.groups = append(fs.groups, d)
	}
	return nil
}

func (fs *ext4) parseGroup(g uint64, b []byte) (extGroup, error) {
	le := binary.LittleEndian
	d := extGroup{
		blockBitmap: uint64(le.Uint32(b)), inodeBitmap: uint64(le.Uint32(b[4:])), inodeTable: uint64(le.Uint32(b[8:])),
		flags: le.Uint16(b[0x12:]), blockCsum: uint32(le.Uint16(b[0x18:])), inodeCsum: uint32(le.Uint16(b[0x1a:])),
	}
	if fs.descSize >= 64 {
		d.blockBitmap |= uint64(le.Uint32(b[0x20:])) << 32
		d.inodeBitmap |= uint64(le.Uint32(b[0x24:])) << 32
		d.inodeTable |= uint64(le.Uint32(b[0x28:])) << 32
		d.blockCsum |= uint32(le.Uint16(b[0x38:])) << 16
		d.inodeCsum |= uint32(le.Uint16(b[0x3a:])) << 16
	}
	if fs.hasCsum() {
		crc := crc32cNumber(fs.seed, uint32(g))
		crc = crc32c(crc, b[:0x1e])
		crc = crc32c(crc, []byte{0, 0})
		crc = crc32c(crc, b[0x20:])
		if got, want := uint16(crc), le.Uint16(b[0x1e:]); got != want {
			return d, damaged("its descriptor's checksum is %#04x, but it says %#04x", got, want)
		}
	}
	tableBlocks := (uint64(fs.inodesPer)*uint64(fs.inodeSize) + uint64(fs.blockSize) - 1) / uint64(fs.blockSize)
	if d.inodeTable >= fs.blocks || tableBlocks > fs.blocks-d.inodeTable {
		return d, damaged("its inode table is at block %d of %d", d.inodeTable, fs.blocks)
	}
	return d, nil
}

// loadChunk reads a piece of metadata; the last of the disk may be short.
func (fs *ext4) loadChunk(i int64) ([]byte, error) {
	b := make([]byte, min(extChunk, fs.size-i*extChunk))
	if _, err := fs.r.ReadAt(b, i*extChunk); err != nil {
		return nil, fmt.Errorf("bytes at %d: %w", i*extChunk, err)
	}
	return b, nil
}

// metadata returns n bytes at off, which a block holds whole.
func (fs *ext4) metadata(off, n int64) ([]byte, error) {
	if off < 0 || off+n > int64(fs.blocks)*fs.blockSize {
		return nil, damaged("metadata at byte %d, outside the filesystem", off)
	}
	if n > extChunk {
		b := make([]byte, n)
		_, err := fs.r.ReadAt(b, off)
		return b, err
	}
	b, err := fs.chunks.get(off / extChunk)
	if err != nil {
		return nil, err
	}
	off %= extChunk
	return b[off : off+n], nil
}

// block returns one block of metadata.
func (fs *ext4) block(i uint64) ([]byte, error) {
	if i >= fs.blocks {
		return nil, damaged("block %d of %d", i, fs.blocks)
	}
	return fs.metadata(int64(i)*fs.blockSize, fs.blockSize)
}

func (fs *ext4) info() Info {
	u := fs.super[0x68:0x78]
	return Info{
		Format:    Ext4,
		Length:    int64(fs.blocks) * fs.blockSize,
		Label:     string(bytes.TrimRight(fs.super[0x78:0x88], "\x00")),
		UUID:      fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]),
		BlockSize: fs.blockSize,
		Inodes:    int64(fs.inodes - binary.LittleEndian.Uint32(fs.super[0x10:])),
		Time:      int64(binary.LittleEndian.Uint32(fs.super[0x108:])),
	}
}
