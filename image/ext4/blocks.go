package ext4

import "fmt"

// blockWriter writes blocks one after the other, a megabyte at a time. It
// keeps the first error, so that what calls it reads straight down.
type blockWriter struct {
	file   File
	buf    []byte
	offset int64 // of buf in the image
	err    error
	// take, if it is there, gives the block to go on at once left are used up.
	take func() (start, blocks int64, err error)
	left int64
	runs spans // where the blocks went
}

const blockWriterBuf = 1 << 20

func newBlockWriter(f File, block int64) *blockWriter {
	return &blockWriter{file: f, buf: make([]byte, 0, blockWriterBuf), offset: block * blockSize}
}

// at is where the buffer ends.
func (w *blockWriter) at() int64 { return (w.offset + int64(len(w.buf))) / blockSize }

// next is the number of the block that the next call of block returns.
func (w *blockWriter) next() int64 {
	if w.take != nil && w.left == 0 {
		w.move()
	}
	return w.at()
}

// block returns the next block, all zero, to be filled in before any other
// call.
func (w *blockWriter) block() []byte {
	if len(w.buf) == cap(w.buf) {
		w.flush()
	}
	w.runs.add(w.next(), 1)
	w.left--
	n := len(w.buf)
	w.buf = w.buf[:n+blockSize]
	b := w.buf[n : n+blockSize : n+blockSize]
	clear(b)
	return b
}

// move goes on where take says.
func (w *blockWriter) move() {
	start, blocks, err := w.take()
	if err != nil {
		if w.err == nil {
			w.err = err
		}
		start, blocks = 0, 1<<62 // nothing is written any more
	}
	w.seek(start)
	w.left = blocks
}

// seek goes on at a block; what is passed over stays as it is.
func (w *blockWriter) seek(block int64) {
	if block != w.at() {
		w.flush()
		w.offset = block * blockSize
	}
}

func (w *blockWriter) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		if _, err := w.file.WriteAt(w.buf, w.offset); err != nil {
			w.err = fmt.Errorf("writing metadata: %w", err)
		}
	}
	w.offset += int64(len(w.buf))
	w.buf = w.buf[:0]
	return w.err
}
