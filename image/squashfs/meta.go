package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
)

// metaWriter packs records into metadata blocks: 8 KiB each before
// compression, behind a 16-bit header with the length and a bit that says
// whether the block is stored as it is. Records may straddle blocks.
//
// It keeps the first error, so that callers read straight down.
type metaWriter struct {
	out   io.Writer
	comp  compressor
	block []byte // not yet compressed, under metadataSize
	buf   []byte // reused for a compressed block
	size  int64  // compressed bytes so far
	err   error
}

func newMetaWriter(out io.Writer, comp compressor) *metaWriter {
	return &metaWriter{out: out, comp: comp, block: make([]byte, 0, metadataSize)}
}

// pos returns where the next record will begin: the offset of its block among
// the compressed ones, and its offset in the block.
func (m *metaWriter) pos() (block int64, offset int) { return m.size, len(m.block) }

func (m *metaWriter) write(p []byte) {
	for len(p) > 0 && m.err == nil {
		n := copy(m.block[len(m.block):metadataSize], p)
		m.block = m.block[:len(m.block)+n]
		p = p[n:]
		if len(m.block) == metadataSize {
			m.flush()
		}
	}
}

// flush ends the block, if anything is in it.
func (m *metaWriter) flush() {
	if len(m.block) == 0 || m.err != nil {
		return
	}
	const header = 2
	out, err := m.comp.compress(append(m.buf[:0], 0, 0), m.block)
	if err != nil {
		m.err = fmt.Errorf("metadata block: %w", err)
		return
	}
	if out == nil {
		out = append(append(m.buf[:0], 0, 0), m.block...)
		binary.LittleEndian.PutUint16(out, uint16(len(m.block))|metaStored)
	} else {
		binary.LittleEndian.PutUint16(out, uint16(len(out)-header))
	}
	if _, err := m.out.Write(out); err != nil {
		m.err = err
		return
	}
	m.buf = out
	m.size += int64(len(out))
	m.block = m.block[:0]
}
