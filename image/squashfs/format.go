// Package squashfs writes squashfs 4.0 images: entries go in, one stream of
// compressed data blocks and then the metadata tables come out, the same bytes
// for the same entries whatever the number of workers.
//
// The format is that of the kernel's fs/squashfs/squashfs_fs.h and
// Documentation/filesystems/squashfs.rst. All numbers are little-endian.
package squashfs

import "encoding/binary"

// Limits of the format and of what this package writes.
const (
	// MinBlockSize and MaxBlockSize bound the size of a data block, in bytes.
	MinBlockSize = 4 << 10
	MaxBlockSize = 1 << 20

	// metadataSize is the size of a metadata block before compression
	// (SQUASHFS_METADATA_SIZE).
	metadataSize = 8 << 10
	// maxNameLen is the longest name in a directory (SQUASHFS_NAME_LEN).
	maxNameLen = 256
	// maxDirHeader is how many entries may follow one directory header
	// (SQUASHFS_DIR_COUNT).
	maxDirHeader = 256
	// devBlock is what an image's length is rounded up to, so that a loop
	// device can show all of it.
	devBlock = 4 << 10
)

const (
	superMagic   = 0x73717368 // SQUASHFS_MAGIC, "hsqs"
	superSize    = 96         // sizeof(struct squashfs_super_block)
	versionMajor = 4
	versionMinor = 0

	flagDuplicates  = 0x0040 // identical files are stored once
	flagExportable  = 0x0080 // there is an export table
	flagNoXattrs    = 0x0200
	flagCompOptions = 0x0400 // a block of compressor options follows the superblock

	noTable    = ^uint64(0) // SQUASHFS_INVALID_BLK: the table is not there
	noFragment = ^uint32(0) // SQUASHFS_INVALID_FRAG
	noXattr    = ^uint32(0) // SQUASHFS_INVALID_XATTR

	blockStored = 1 << 24 // SQUASHFS_COMPRESSED_BIT_BLOCK: a data block as it is
	metaStored  = 1 << 15 // SQUASHFS_COMPRESSED_BIT: a metadata block as it is
)

// Inode types. An extended inode's type is its basic type plus extended.
const (
	typeDir     = 1 // SQUASHFS_DIR_TYPE
	typeReg     = 2 // SQUASHFS_REG_TYPE
	typeSymlink = 3 // SQUASHFS_SYMLINK_TYPE
	extended    = 7 // SQUASHFS_LDIR_TYPE - SQUASHFS_DIR_TYPE
)

// superblock is struct squashfs_super_block.
type superblock struct {
	Inodes         uint32
	MkfsTime       uint32
	BlockSize      uint32
	Fragments      uint32
	Compression    uint16
	BlockLog       uint16
	Flags          uint16
	IDs            uint16
	RootInode      uint64 // an inode reference
	BytesUsed      uint64
	IDTable        uint64
	XattrTable     uint64
	InodeTable     uint64
	DirectoryTable uint64
	FragmentTable  uint64
	LookupTable    uint64 // the export table
}

func (s *superblock) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, superSize)
	b = le.AppendUint32(b, superMagic)
	b = le.AppendUint32(b, s.Inodes)
	b = le.AppendUint32(b, s.MkfsTime)
	b = le.AppendUint32(b, s.BlockSize)
	b = le.AppendUint32(b, s.Fragments)
	b = le.AppendUint16(b, s.Compression)
	b = le.AppendUint16(b, s.BlockLog)
	b = le.AppendUint16(b, s.Flags)
	b = le.AppendUint16(b, s.IDs)
	b = le.AppendUint16(b, versionMajor)
	b = le.AppendUint16(b, versionMinor)
	b = le.AppendUint64(b, s.RootInode)
	b = le.AppendUint64(b, s.BytesUsed)
	b = le.AppendUint64(b, s.IDTable)
	b = le.AppendUint64(b, s.XattrTable)
	b = le.AppendUint64(b, s.InodeTable)
	b = le.AppendUint64(b, s.DirectoryTable)
	b = le.AppendUint64(b, s.FragmentTable)
	return le.AppendUint64(b, s.LookupTable)
}

// ref is an inode reference as the export table and the superblock hold it:
// where the inode's metadata block starts in the inode table, shifted left by
// 16, and the inode's offset in the block once decompressed.
type ref uint64

func makeRef(block int64, offset int) ref { return ref(block)<<16 | ref(offset) }

func (r ref) block() uint32  { return uint32(r >> 16) }
func (r ref) offset() uint16 { return uint16(r) }
