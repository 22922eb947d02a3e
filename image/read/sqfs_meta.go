package read

import (
	"encoding/binary"
	"fmt"
)

// sqfsMeta is an unpacked metadata block and where the next one starts.
type sqfsMeta struct {
	data []byte
	next int64
}

// loadMeta reads the metadata block at pos: a 16-bit length whose top bit says
// that it is not packed, and that many bytes.
func (fs *squashfs) loadMeta(pos int64) (sqfsMeta, error) {
	var m sqfsMeta
	if pos < sqfsSuperSize || pos+2 > int64(fs.sb.BytesUsed) {
		return m, damaged("metadata block at %d, outside the image", pos)
	}
	var head [2]byte
	if _, err := fs.r.ReadAt(head[:], pos); err != nil {
		return m, fmt.Errorf("metadata block at %d: %w", pos, err)
	}
	h := binary.LittleEndian.Uint16(head[:])
	n := int64(h & 0x7fff)
	if n == 0 || n > sqfsMetaSize || pos+2+n > int64(fs.sb.BytesUsed) {
		return m, damaged("metadata block at %d has %d bytes", pos, n)
	}
	data := make([]byte, n)
	if _, err := fs.r.ReadAt(data, pos+2); err != nil {
		return m, fmt.Errorf("metadata block at %d: %w", pos, err)
	}
	if h&0x8000 == 0 {
		var err error
		if data, err = fs.unpack.unpack(make([]byte, sqfsMetaSize), data); err != nil {
			return m, fmt.Errorf("metadata block at %d: %w", pos, err)
		}
		if len(data) == 0 {
			return m, damaged("metadata block at %d is empty", pos)
		}
	}
	return sqfsMeta{data, pos + 2 + n}, nil
}

// sqfsCursor reads a table's metadata blocks as one stream.
type sqfsCursor struct {
	fs   *squashfs
	end  int64 // no block of this table starts here or later
	pos  int64 // the block that data is of
	next int64
	data []byte // all of the block
	off  int    // how much of it has been read
}

// cursor starts at an offset into the metadata block at pos.
func (fs *squashfs) cursor(pos, end uint64, offset int) (*sqfsCursor, error) {
	c := &sqfsCursor{fs: fs, end: int64(end), next: int64(pos)}
	if err := c.advance(); err != nil {
		return nil, err
	}
	if offset > len(c.data) {
		return nil, damaged("offset %d into a metadata block of %d bytes", offset, len(c.data))
	}
	c.off = offset
	return c, nil
}

func (c *sqfsCursor) advance() error {
	if c.next >= c.end {
		return damaged("metadata runs past the end of its table at %d", c.end)
	}
	m, err := c.fs.meta.get(c.next)
	if err != nil {
		return err
	}
	c.pos, c.next, c.data, c.off = c.next, m.next, m.data, 0
	return nil
}

// read fills p.
func (c *sqfsCursor) read(p []byte) error {
	for len(p) > 0 {
		if c.off == len(c.data) {
			if err := c.advance(); err != nil {
				return err
			}
		}
		n := copy(p, c.data[c.off:])
		c.off += n
		p = p[n:]
	}
	return nil
}
