package ext4

import "encoding/binary"

// The sizes that this writer always uses; the kernel calls them
// EXT4_BLOCK_SIZE, s_blocks_per_group and so on.
const (
	blockSize      = 4096
	logBlockSize   = 2             // s_log_block_size: 1024 << 2
	blocksPerGroup = 8 * blockSize // one bitmap block: 128 MiB
	inodeSize      = 256
	extraIsize     = 32 // i_extra_isize: up to and with i_projid
	inodesPerBlock = blockSize / inodeSize
	maxGroupInodes = 8 * blockSize // one bitmap block
	descSize       = 64
	descsPerBlock  = blockSize / descSize
)

// Inode numbers with a meaning of their own: EXT4_ROOT_INO,
// EXT4_GOOD_OLD_FIRST_INO, and lost+found's, which is always the first.
const (
	rootIno      = 2
	firstIno     = 11
	lostFoundIno = firstIno
)

// linkMax is EXT4_LINK_MAX: the most names that an inode may have. A
// directory past it has the count 1, which means that nobody counts
// (dir_nlink).
const linkMax = 65000

// Values for struct ext4_super_block.
const (
	superOffset     = 1024
	superMagic      = 0xEF53
	stateValid      = 1 // EXT4_VALID_FS
	errorsContinue  = 1 // EXT4_ERRORS_CONTINUE
	revDynamic      = 1 // EXT4_DYNAMIC_REV
	hashHalfMD4     = 1 // DX_HASH_HALF_MD4
	unsignedHash    = 2 // EXT2_FLAGS_UNSIGNED_HASH
	checksumCRC32C  = 1 // EXT4_CRC32C_CHKSUM
	mountXattrACL   = 0x0004 | 0x0008
	neverCheck      = 0xFFFF // s_max_mnt_count: no check after so many mounts
	logFlexGroups   = 4
	canonicalTime   = 1 // the time of everything in a Nix store, in seconds
	labelLen        = 16
	nameMax         = 255
	targetMax       = blockSize - 1 // a symlink's block ends with a NUL
	fastSymlinkSize = 60            // below it the target is in i_block
)

// compatFeature is s_feature_compat: a kernel that does not know one may
// mount all the same.
type compatFeature uint32

const (
	compatDirIndex     compatFeature = 0x0020
	compatSparseSuper2 compatFeature = 0x0200
)

// incompatFeature is s_feature_incompat: a kernel that does not know one must
// not mount.
type incompatFeature uint32

const (
	incompatFiletype incompatFeature = 0x0002
	incompatExtents  incompatFeature = 0x0040
	incompat64Bit    incompatFeature = 0x0080
	incompatFlexBG   incompatFeature = 0x0200
	incompatLargeDir incompatFeature = 0x4000
)

// roCompatFeature is s_feature_ro_compat: a kernel that does not know one may
// mount read-only.
type roCompatFeature uint32

const (
	roCompatSparseSuper  roCompatFeature = 0x0001
	roCompatLargeFile    roCompatFeature = 0x0002
	roCompatHugeFile     roCompatFeature = 0x0008
	roCompatDirNlink     roCompatFeature = 0x0020
	roCompatExtraIsize   roCompatFeature = 0x0040
	roCompatMetadataCsum roCompatFeature = 0x0400
	roCompatReadonly     roCompatFeature = 0x1000
)

// superblock is struct ext4_super_block, 1024 bytes, little endian.
type superblock struct {
	InodesCount          uint32 // 0x000
	BlocksCountLo        uint32
	RBlocksCountLo       uint32
	FreeBlocksCountLo    uint32
	FreeInodesCount      uint32 // 0x010
	FirstDataBlock       uint32
	LogBlockSize         uint32
	LogClusterSize       uint32
	BlocksPerGroup       uint32 // 0x020
	ClustersPerGroup     uint32
	InodesPerGroup       uint32
	Mtime                uint32
	Wtime                uint32 // 0x030
	MntCount             uint16
	MaxMntCount          uint16
	Magic                uint16
	State                uint16
	Errors               uint16
	MinorRevLevel        uint16
	Lastcheck            uint32 // 0x040
	Checkinterval        uint32
	CreatorOS            uint32
	RevLevel             uint32
	DefResuid            uint16 // 0x050
	DefResgid            uint16
	FirstIno             uint32
	InodeSize            uint16
	BlockGroupNr         uint16
	FeatureCompat        compatFeature
	FeatureIncompat      incompatFeature // 0x060
	FeatureRoCompat      roCompatFeature
	UUID                 [16]byte       // 0x068
	VolumeName           [labelLen]byte // 0x078
	LastMounted          [64]byte       // 0x088
	AlgorithmUsageBitmap uint32         // 0x0C8
	PreallocBlocks       uint8
	PreallocDirBlocks    uint8
	ReservedGdtBlocks    uint16
	JournalUUID          [16]byte // 0x0D0
	JournalInum          uint32   // 0x0E0
	JournalDev           uint32
	LastOrphan           uint32
	HashSeed             [4]uint32 // 0x0EC
	DefHashVersion       uint8     // 0x0FC
	JnlBackupType        uint8
	DescSize             uint16
	DefaultMountOpts     uint32 // 0x100
	FirstMetaBG          uint32
	MkfsTime             uint32
	JnlBlocks            [17]uint32 // 0x10C
	BlocksCountHi        uint32     // 0x150
	RBlocksCountHi       uint32
	FreeBlocksCountHi    uint32
	MinExtraIsize        uint16
	WantExtraIsize       uint16
	Flags                uint32 // 0x160
	RaidStride           uint16
	MmpInterval          uint16
	MmpBlock             uint64
	RaidStripeWidth      uint32 // 0x170
	LogGroupsPerFlex     uint8
	ChecksumType         uint8
	EncryptionLevel      uint8
	ReservedPad          uint8
	KbytesWritten        uint64       // 0x178
	Snapshot             [20]byte     // 0x180: s_snapshot_*
	ErrorLog             [108]byte    // 0x194: s_error_count to s_last_error_func
	MountOpts            [64]byte     // 0x200
	UsrQuotaInum         uint32       // 0x240
	GrpQuotaInum         uint32       //
	OverheadClusters     uint32       //
	BackupBgs            [2]uint32    // 0x24C
	EncryptAlgos         [4]byte      // 0x254
	EncryptPwSalt        [16]byte     // 0x258
	LpfIno               uint32       // 0x268
	PrjQuotaInum         uint32       //
	ChecksumSeed         uint32       // 0x270
	TimesHi              [6]byte      // 0x274: the 5th byte of each time
	ErrorCodes           [2]byte      // 0x27A
	Encoding             uint16       // 0x27C
	EncodingFlags        uint16       //
	OrphanFileInum       uint32       // 0x280
	Reserved             [94 * 4]byte // 0x284
	Checksum             uint32       // 0x3FC
}

// Flags of struct ext4_group_desc, bg_flags.
const (
	groupInodeUninit = 0x1 // EXT4_BG_INODE_UNINIT: bitmap not written, no inode used
	groupBlockUninit = 0x2 // EXT4_BG_BLOCK_UNINIT: bitmap not written, no block used
	groupInodeZeroed = 0x4 // EXT4_BG_INODE_ZEROED: nothing to zero in the table
)

// groupDesc is struct ext4_group_desc in its 64-byte form, halves joined.
type groupDesc struct {
	blockBitmap, inodeBitmap, inodeTable int64 // blocks
	freeBlocks, freeInodes, usedDirs     int64
	flags                                uint16
	blockBitmapCsum, inodeBitmapCsum     uint32
	itableUnused                         int64 // inodes at the table's end never used
}

// put writes the descriptor without its checksum into b.
func (d *groupDesc) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0x00:], uint32(d.blockBitmap))
	le.PutUint32(b[0x04:], uint32(d.inodeBitmap))
	le.PutUint32(b[0x08:], uint32(d.inodeTable))
	le.PutUint16(b[0x0C:], uint16(d.freeBlocks))
	le.PutUint16(b[0x0E:], uint16(d.freeInodes))
	le.PutUint16(b[0x10:], uint16(d.usedDirs))
	le.PutUint16(b[0x12:], d.flags)
	le.PutUint16(b[0x18:], uint16(d.blockBitmapCsum))
	le.PutUint16(b[0x1A:], uint16(d.inodeBitmapCsum))
	le.PutUint16(b[0x1C:], uint16(d.itableUnused))
	le.PutUint32(b[0x20:], uint32(d.blockBitmap>>32))
	le.PutUint32(b[0x24:], uint32(d.inodeBitmap>>32))
	le.PutUint32(b[0x28:], uint32(d.inodeTable>>32))
	le.PutUint16(b[0x2C:], uint16(d.freeBlocks>>16))
	le.PutUint16(b[0x2E:], uint16(d.freeInodes>>16))
	le.PutUint16(b[0x30:], uint16(d.usedDirs>>16))
	le.PutUint16(b[0x32:], uint16(d.itableUnused>>16))
	le.PutUint16(b[0x38:], uint16(d.blockBitmapCsum>>16))
	le.PutUint16(b[0x3A:], uint16(d.inodeBitmapCsum>>16))
}

// descChecksum is the offset of bg_checksum.
const descChecksum = 0x1E

// Modes (i_mode) and inode flags (i_flags).
const (
	modeDir        = 0o040555
	modeFile       = 0o100444
	modeExecutable = 0o100555
	modeSymlink    = 0o120777
	modeLostFound  = 0o040700
	modeFormat     = 0o170000 // S_IFMT
	modeFormatDir  = 0o040000 // S_IFDIR

	flagIndex   = 0x00001000 // EXT4_INDEX_FL: a directory with an htree
	flagExtents = 0x00080000 // EXT4_EXTENTS_FL: i_block holds an extent tree
)

// Offsets in struct ext4_inode.
const (
	inodeMode       = 0x00
	inodeUIDLo      = 0x02
	inodeSizeLo     = 0x04
	inodeAtime      = 0x08
	inodeCtime      = 0x0C
	inodeMtime      = 0x10
	inodeGIDLo      = 0x18
	inodeLinks      = 0x1A
	inodeBlocksLo   = 0x1C
	inodeFlags      = 0x20
	inodeBlock      = 0x28 // 60 bytes
	inodeSizeHi     = 0x6C
	inodeBlocksHi   = 0x74
	inodeUIDHi      = 0x78
	inodeGIDHi      = 0x7A
	inodeChecksumLo = 0x7C
	inodeExtraIsize = 0x80
	inodeChecksumHi = 0x82
	inodeCrtime     = 0x90
	inodeBlockLen   = 60
)

// struct ext4_extent_header, ext4_extent, ext4_extent_idx, ext4_extent_tail.
const (
	extentMagic    = 0xF30A
	extentSize     = 12      // each of the first three
	extentMaxLen   = 1 << 15 // EXT_INIT_MAX_LEN: 128 MiB
	rootExtents    = inodeBlockLen/extentSize - 1
	extentsInBlock = (blockSize - extentSize - 4) / extentSize
	extentTail     = extentSize * (1 + extentsInBlock)
	maxFileSize    = (1<<32 - 1) * blockSize // ee_block has 32 bits
)

// struct ext4_dir_entry_2: inode, rec_len, name_len, file_type, name; and
// struct ext4_dir_entry_tail, which ends each block of entries.
const (
	direntHeader  = 8
	direntTail    = 12
	direntTailFT  = 0xDE // EXT4_FT_DIR_CSUM
	dirBlockRoom  = blockSize - direntTail
	fileTypeReg   = 1 // EXT4_FT_REG_FILE
	fileTypeDir   = 2 // EXT4_FT_DIR
	fileTypeLink  = 7 // EXT4_FT_SYMLINK
	dotEntriesLen = 24
)

// struct dx_root, dx_node, dx_countlimit, dx_entry and dx_tail: the blocks of
// an htree's index.
const (
	dxInfo       = 0x18 // struct dx_root_info, after the two fake entries
	dxInfoLen    = 8
	dxRootStart  = dxInfo + dxInfoLen // dx_countlimit in dx_root
	dxNodeStart  = direntHeader       // dx_countlimit in dx_node
	dxEntryLen   = 8
	dxTailLen    = 8
	dxRootLimit  = (blockSize - dxRootStart - dxTailLen) / dxEntryLen
	dxNodeLimit  = (blockSize - dxNodeStart - dxTailLen) / dxEntryLen
	dxMaxLevels  = 3 // with largedir; two without
	dxContinued  = 1 // lowest bit of a hash: goes on from the block before
	dxHashEOF    = 0x7FFFFFFF
	dxDotDotSize = blockSize - 12
)
