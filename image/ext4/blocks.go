package ext4

import "fmt"

// blockWriter writes blocks one after the other, a megabyte at a time. It
// keeps the first error, so that what calls it reads straight down.
type blockWriter struct {
	file   File
	buf    []byte
	offset int64 // of buf in the image
	err    error
}

const blockWriterBuf = 1 << 20

func newBlockWriter(f File, block int64) *blockWriter {
	return &blockWriter{file: f, buf: make([]byte, 0, blockWriterBuf), offset: block * blockSize}
}

// next is the number of the block that the next call of block returns.
func (w *blockWriter) next() int64 { return (w.offset + int64(len(w.buf))) / blockSize }

// block returns the next block, all zero, to be filled in before any other
// call.
func (w *blockWriter) block() []byte {
	if len(w.buf) == cap(w.buf) {
		w.flush()
	}
	n := len(w.buf)
	w.buf = w.buf[:n+blockSize]
	b := w.buf[n : n+blockSize : n+blockSize]
	clear(b)
	return b
}

// seek goes on at a block; what is passed over stays as it is.
func (w *blockWriter) seek(block int64) {
	if block != w.next() {
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
