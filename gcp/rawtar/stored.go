package rawtar

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	// maxStored is the length of the longest stored block.
	maxStored = 1<<16 - 1
	// storedHeader is the length in bytes of a stored block's header, which
	// begins and ends on a byte's boundary here.
	storedHeader = 5
	// storedBlocks is how many blocks a stored chunk takes.
	storedBlocks = (chunk + maxStored - 1) / maxStored
)

// store appends a chunk in stored blocks.
func (e *encoder) store(data []byte) {
	pieces := e.room()
	for _, piece := range pieces {
		data = data[copy(piece, data):]
	}
	e.keep(pieces)
}

// readStored reads a chunk to where stored blocks have it, and keeps it if that
// suits it: in an image that does not compress, this saves a copy of nearly all
// of it. After a false, nothing is changed, and the chunk is to be read again;
// so it is where reading fails.
func (e *encoder) readStored(file *os.File, off int64) bool {
	pieces := e.room()
	n, err := unix.Preadv(int(file.Fd()), pieces[:], off)
	if err != nil || n != chunk {
		return false
	}
	e.sample.take(pieces[:]...)
	if e.sample.unevenness() >= flat { // as that of zeros is
		return false
	}
	e.keep(pieces)
	return true
}

// room returns where the stored blocks of a chunk have its data.
func (e *encoder) room() (pieces [storedBlocks][]byte) {
	at := len(e.out)
	e.out = grow(e.out, chunk+storedBlocks*storedHeader)
	for i := range pieces {
		at += storedHeader
		n := min(maxStored, chunk-i*maxStored)
		pieces[i] = e.out[:cap(e.out)][at : at+n : at+n]
		at += n
	}
	return pieces
}

// grow makes room for n more bytes, without adding them.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return append(b, make([]byte, n)...)[:len(b)]
}

// keep adds the stored blocks whose data is in place.
func (e *encoder) keep(pieces [storedBlocks][]byte) {
	for _, piece := range pieces {
		n := len(piece)
		e.sum.add(piece)
		e.out = append(e.out, 0, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		e.out = e.out[:len(e.out)+n]
	}
	e.storing = true
}
