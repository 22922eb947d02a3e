package squashfs

import (
	"fmt"
	"io"
	"math/bits"
	"runtime"
)

// DefaultBlockSize is what an image gets that nobody chose for, in bytes.
const DefaultBlockSize = 256 << 10

// LayoutVersion changes when the same entries and options come to lie in an
// image in other bytes than before.
const LayoutVersion = 1

// Options are the choices an image's bytes depend on, but for Jobs,
// Memory and ScratchDir, which they do not.
type Options struct {
	// Compression is how data and metadata are compressed; the zero value is
	// [DefaultCompression].
	Compression Compression
	// BlockSize is the size of a data block in bytes, a power of two from
	// [MinBlockSize] to [MaxBlockSize]; 0 is [DefaultBlockSize].
	BlockSize int
	// UID and GID own every file.
	UID, GID uint32
	// Jobs is the number of blocks compressed at a time; 0 is the number of
	// CPUs.
	Jobs int
	// Memory bounds the buffers for file data, in bytes; 0 is 64 MiB and 8 MiB a
	// job. There are never too few to work with, if slowly.
	Memory int64
	// ScratchDir is where metadata is kept that has grown past a few MiB, in a
	// file without a name; "" is the system's directory for such files.
	ScratchDir string
}

func (o Options) withDefaults() (Options, error) {
	if o.Compression == (Compression{}) {
		o.Compression = DefaultCompression
	}
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.BlockSize < MinBlockSize || o.BlockSize > MaxBlockSize || bits.OnesCount(uint(o.BlockSize)) != 1 {
		return o, fmt.Errorf("block size %d is not a power of two from %d to %d", o.BlockSize, MinBlockSize, MaxBlockSize)
	}
	if o.Jobs == 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.Jobs < 0 {
		return o, fmt.Errorf("%d jobs: at least one is needed", o.Jobs)
	}
	if o.Memory == 0 {
		o.Memory = 64<<20 + int64(o.Jobs)*(8<<20)
	}
	return o, nil
}

// blocksAhead is how many blocks may be on their way: enough to keep every
// worker busy while the disk is slow, as far as memory goes. Each may take a
// buffer before and one after compression.
func (o Options) blocksAhead() int {
	wanted := 2*o.Jobs + max(4, (2<<20)/o.BlockSize)
	possible := (o.Memory - maxHeld) / int64(2*o.BlockSize+o.BlockSize/8+512)
	return max(2, min(wanted, int(possible)))
}

// File is what an image is written to; an *os.File is one. What it holds
// beforehand is overwritten, and cut off at the image's end.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}
