package ext4

import (
	"io"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// A batch carries what the caller gave from [Writer] to [builder], and the
// blocks to keep from there to the disk: operations in order, and the bytes
// of regular files, each from a block's start and zero-padded to its end.
type batch struct {
	ops  []op
	data []byte
	// pieces is what goes to the image, in order, and keep the bytes at the
	// front of data that it takes; the builder sets both.
	pieces []piece
	keep   int
}

// piece is a run of blocks that goes to the image: the next ones of the
// batch's data, or ones of an earlier image.
type piece struct {
	at, blocks int64
	from       io.ReaderAt // the earlier image, or nil
	source     int64       // the first block in it
	release    *release    // instead of all this: what to release
}

func (p *piece) isData() bool { return p.from == nil && p.release == nil }

const (
	batchData  = 1 << 20 // bytes, whole blocks
	batchOps   = 4096
	batchCount = 8 // one filling, one being built, one being written, the others to even it out
)

type opKind uint8

const (
	opUnit    opKind = iota + 1 // name starts a unit
	opEntry                     // an entry of the directory open last
	opData                      // n bytes of the file, whole blocks
	opZeros                     // n blocks of zeros in the file
	opLeave                     // the directory open last is whole
	opUnsort                    // the same, and its names came out of order
	opRelease                   // nothing more is read of earlier images for the unit
)

// op is one step in building an image.
type op struct {
	kind    opKind
	entry   store.Kind
	exec    bool
	name    string      // in its directory; the unit's; when leaving, the directory's path
	target  string      // of a symlink
	n       int64       // of an entry: the file's size in bytes
	kept    *image.Kept // of a regular file that need not be written
	release *release
}

func newBatch() *batch {
	return &batch{data: make([]byte, 0, batchData)}
}

func (b *batch) reset() {
	clear(b.ops) // let the strings go
	clear(b.pieces)
	b.ops, b.data, b.pieces, b.keep = b.ops[:0], b.data[:0], b.pieces[:0], 0
}

func (b *batch) full() bool { return len(b.data) == cap(b.data) }

// addData appends what fits of p and returns how much that was.
func (b *batch) addData(p []byte) int {
	n := min(len(p), cap(b.data)-len(b.data))
	b.data = append(b.data, p[:n]...)
	b.count(n)
	return n
}

// pad fills the last block up.
func (b *batch) pad() {
	if n := -len(b.data) & (blockSize - 1); n > 0 {
		b.data = append(b.data, zeroBlock[:n]...)
		b.count(n)
	}
}

func (b *batch) count(n int) {
	if last := len(b.ops) - 1; last >= 0 && b.ops[last].kind == opData {
		b.ops[last].n += int64(n)
		return
	}
	b.ops = append(b.ops, op{kind: opData, n: int64(n)})
}

// zeroBlock is what is not written.
var zeroBlock [blockSize]byte
