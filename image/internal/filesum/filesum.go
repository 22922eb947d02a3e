// Package filesum hashes files so that equal ones are found: within an image,
// between an image and the one before it, and between machines. It is at work
// on every byte that goes into an image, so it has to be fast; what it makes
// is written down and believed later, so it has to be a cryptographic hash.
package filesum

import (
	"bytes"
	"encoding/binary"

	"github.com/zeebo/blake3"

	"bigdisk/image"
)

// BlockSize is the size of the blocks, in bytes, that may be holes.
const BlockSize = 4096

// Hash makes the [image.FileSum] of one file after the other: the first bytes
// of the BLAKE3 of
//
//	every block of BlockSize bytes that is not all zero, the last one as long as it is
//	the BLAKE3 of the runs of such blocks, if any block is all zero: first block and length, 8 bytes each, little-endian
//	the file's size, 8 bytes, little-endian
//	1 if there are zero blocks, else 0
//
// Read from its end, that is one file only; and a hole costs nothing, however
// long it is. A Hash must not be used by two goroutines at once.
type Hash struct {
	data, runs *blake3.Hasher
	next       int64 // the block that comes next
	start      int64 // where the run that is open began
	holes      bool
	text       []byte
	part       []byte // of a block, see Add
}

// New returns a Hash at the start of a file.
func New() *Hash { return &Hash{data: blake3.New(), runs: blake3.New(), text: make([]byte, 0, 64)} }

// Blocks takes the next blocks, of which none is all zero; the file's last may
// be shorter.
func (h *Hash) Blocks(p []byte) {
	h.data.Write(p)
	h.next += int64(len(p)+BlockSize-1) / BlockSize
}

// Zeros takes the next n blocks, which are zeros, the file's last perhaps
// shorter.
func (h *Hash) Zeros(n int64) {
	if n == 0 {
		return
	}
	h.endRun()
	h.holes = true
	h.next += n
	h.start = h.next
}

func (h *Hash) endRun() {
	if h.next == h.start {
		return
	}
	h.text = binary.LittleEndian.AppendUint64(h.text[:0], uint64(h.start))
	h.text = binary.LittleEndian.AppendUint64(h.text, uint64(h.next-h.start))
	h.runs.Write(h.text)
}

// Write takes the next blocks, whatever is in them. Only the file's last bytes
// may be less than a block.
func (h *Hash) Write(p []byte) {
	for len(p) > 0 {
		n := run(p, false)
		if n > 0 {
			h.Blocks(p[:n])
		}
		zeros := run(p[n:], true)
		h.Zeros(int64(zeros+BlockSize-1) / BlockSize)
		p = p[n+zeros:]
	}
}

// Add takes the file's next bytes, however they are cut. It must not be mixed
// with the other ways to give them.
func (h *Hash) Add(p []byte) {
	if len(h.part) > 0 {
		n := min(len(p), BlockSize-len(h.part))
		h.part = append(h.part, p[:n]...)
		p = p[n:]
		if len(h.part) < BlockSize {
			return
		}
		h.Write(h.part)
		h.part = h.part[:0]
	}
	whole := len(p) / BlockSize * BlockSize
	h.Write(p[:whole])
	h.part = append(h.part, p[whole:]...)
}

// run returns how many bytes at the start of p are in blocks that are, or are
// not, all zero.
func run(p []byte, zero bool) int {
	n := 0
	for n < len(p) {
		b := p[n:min(n+BlockSize, len(p))]
		if bytes.Equal(b, zeros[:len(b)]) != zero {
			break
		}
		n += len(b)
	}
	return n
}

var zeros [BlockSize]byte

// End returns the sum of a file of size bytes and starts the next one.
func (h *Hash) End(size int64) (sum image.FileSum) {
	h.Write(h.part)
	h.part = h.part[:0]
	holes := byte(0)
	if h.holes {
		holes = 1
		h.endRun()
		h.data.Write(h.runs.Sum(h.text[:0]))
		h.runs.Reset()
	}
	h.text = append(binary.LittleEndian.AppendUint64(h.text[:0], uint64(size)), holes)
	h.data.Write(h.text)
	copy(sum[:], h.data.Sum(h.text[:0]))
	h.data.Reset()
	h.next, h.start, h.holes = 0, 0, false
	return sum
}
