package image

import (
	"io"

	"bigdisk/bundle/store"
)

// KeptWriter is a [Writer] that takes regular files as an earlier image of the
// same format, layout version and options holds them. What comes out is what
// would come out if their bytes were written.
type KeptWriter interface {
	Writer
	// CreateKept adds a regular file, not empty, whose bytes need not be
	// written. The file's data is read from its unit's image until Close returns.
	CreateKept(e *store.Entry, k *Kept) error
}

// Kept is a regular file in an earlier image.
type Kept struct {
	Unit *KeptUnit
	Sum  FileSum
	// Place is where its data lies.
	Place FilePlace
	// ReadTail fills p, as long as the file's last block is, with that block;
	// for squashfs. Its error names the file and the image.
	ReadTail func(p []byte) error
	// Check reads the data and tells whether it is what Sum says; it is called
	// before the data is used. Its error names the file and the image. nil where
	// it has been checked, or is trusted.
	Check func() error
}

// KeptUnit is a unit in an earlier image.
type KeptUnit struct {
	// Image is the filesystem: offsets count from its start.
	Image io.ReaderAt
	// Data are the unit's own extents, DataSum is their sum if the format has
	// one.
	Data    []Extent
	DataSum *DataSum
	// Release, if it is there, is called once nothing will be read from Image
	// any more for the unit that is being written, and at the latest by Close.
	Release func()
}

// FilePlace is where the data of a regular file lies in an image.
type FilePlace struct {
	// Blocks and Tail are for squashfs: Start is the byte offset of the first
	// of the whole blocks, which follow one another; their sizes are those
	// that the inode lists.
	Start  int64
	Blocks []uint32
	Tail   *TailPlace // nil if the size is a multiple of the block size
	// Runs are for ext4.
	Runs []BlockRun
}

// TailPlace is where the end of a file lies in a squashfs image: from byte
// Offset on in the unpacked fragment block that struct squashfs_fragment_entry
// says to be at Start, Size long.
type TailPlace struct {
	Start  int64
	Size   uint32
	Offset uint32
	// Length is the unpacked block's, if it holds ends of files of this unit
	// alone; else 0.
	Length uint32
}

// BlockRun is a run of blocks, as struct ext4_extent has it: Length blocks of
// the file, from block Logical on, lie from block Physical on.
type BlockRun struct {
	Logical, Physical, Length int64
}
