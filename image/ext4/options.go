package ext4

import (
	"fmt"
	"strings"
)

// LayoutVersion changes when the same entries and options come to lie in an
// image in other bytes than before.
const LayoutVersion = 2

// Options are what an image's bytes depend on beside its entries.
type Options struct {
	// UID and GID own everything.
	UID, GID uint32
	// Label is the volume's name, at most 16 bytes, without NUL.
	Label string
	// Size is the image's length in bytes, a multiple of 4096; 0 is what fits,
	// rounded up to a multiple of RoundTo.
	Size int64
	// RoundTo is a multiple of 4096 bytes; 0 is 1 GiB, which is what Compute
	// Engine's disks come in. It is not used when Size is given.
	RoundTo int64
	// Writable leaves room to write: one free inode for every 16 KiB of the
	// image, as mke2fs does, and, if Size is 0, a sixteenth of what is used
	// and 16 MiB more as free blocks. Without it the image says that it is
	// read-only, and the kernel mounts it so whatever it is asked for.
	Writable bool

	// dataStart is the first block of data, if not the usual one: tests put
	// what an image holds beyond 16 TiB.
	dataStart int64
}

// defaultRound is a gibibyte.
const defaultRound = 1 << 30

// check returns the options with their defaults filled in.
func (o Options) check() (Options, error) {
	if len(o.Label) > labelLen || strings.IndexByte(o.Label, 0) >= 0 {
		return o, fmt.Errorf("label %q: ext4 holds up to %d bytes without NUL", clip(o.Label), labelLen)
	}
	if o.RoundTo == 0 {
		o.RoundTo = defaultRound
	}
	if o.RoundTo < 0 || o.RoundTo%blockSize != 0 || o.RoundTo > maxBlocks*blockSize {
		return o, fmt.Errorf("size rounded to %d bytes: not a multiple of %d bytes up to 64 TiB", o.RoundTo, blockSize)
	}
	if o.Size < 0 || o.Size%blockSize != 0 || o.Size > maxBlocks*blockSize {
		return o, fmt.Errorf("size of %d bytes: not a multiple of %d bytes up to 64 TiB", o.Size, blockSize)
	}
	if o.dataStart == 0 {
		o.dataStart = firstData
	}
	return o, nil
}
