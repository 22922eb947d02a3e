package read

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// loadFragment reads and unpacks one fragment block. Where every store path
// has its own, most of them are far smaller than a block: what is kept of one
// is as long as what is in it.
func (fs *squashfs) loadFragment(i int64) ([]byte, error) {
	b, err := fs.tableEntry(fs.fragIndex, uint64(i), 16)
	if err != nil {
		return nil, fmt.Errorf("fragment table: %w", err)
	}
	start, size := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
	packed, block := fs.bufs.get(), fs.bufs.get()
	defer fs.bufs.put(packed)
	defer fs.bufs.put(block)
	out, err := fs.readBlock(start, size, *packed, *block)
	if err != nil {
		return nil, fmt.Errorf("fragment %d: %w", i, err)
	}
	return bytes.Clone(out), nil
}

// blockBytes is the length on disk of a data block; bit 24 of size says that
// it is not packed.
func blockBytes(size uint32) uint32 { return size &^ (1 << 24) }

// readBlock reads the data block at start, using packed for its bytes as they
// are stored and dst for the rest, and returns its contents in one of the two.
func (fs *squashfs) readBlock(start uint64, size uint32, packed, dst []byte) ([]byte, error) {
	n := blockBytes(size)
	if n == 0 || n > fs.sb.BlockSize {
		return nil, damaged("a block of %d bytes, where the block size is %d", n, fs.sb.BlockSize)
	}
	if start < sqfsSuperSize || start > fs.sb.BytesUsed || uint64(n) > fs.sb.BytesUsed-start {
		return nil, damaged("a block at %d, outside the image", start)
	}
	if size != n {
		packed = dst
	}
	if _, err := fs.r.ReadAt(packed[:n], int64(start)); err != nil {
		return nil, fmt.Errorf("block at %d: %w", start, err)
	}
	if size != n {
		return packed[:n], nil
	}
	out, err := fs.unpack.unpack(dst, packed[:n])
	if err != nil {
		return nil, fmt.Errorf("block at %d: %w", start, err)
	}
	return out, nil
}

// sqfsSource reads a file's blocks in order, then its fragment.
type sqfsSource struct {
	fs          *squashfs
	pos         sqfsFilePos
	at          uint64 // where the next block is stored
	left        int64  // bytes of the file
	tail        int64  // of those, in the fragment
	hole        int64  // bytes of zeros to give before anything else
	packed, out *[]byte
}

func (fs *squashfs) open(n *Node) (blockSource, error) {
	p := n.priv.(*sqfsFilePos)
	s := &sqfsSource{fs: fs, pos: *p, at: p.start, left: n.Size}
	if p.frag != sqfsNoFrag {
		if p.frag >= fs.sb.Fragments {
			return nil, damaged("inode %d is in fragment %d of %d", n.Ino, p.frag, fs.sb.Fragments)
		}
		s.tail = n.Size % int64(fs.sb.BlockSize)
	}
	return s, nil
}

func (s *sqfsSource) next() ([]byte, error) {
	switch {
	case s.hole > 0:
		n := min(s.hole, int64(len(zeros)))
		s.hole -= n
		s.left -= n
		return zeros[:n], nil
	case s.left == 0:
		return nil, io.EOF
	case s.left == s.tail:
		return s.fragment()
	}
	return s.block()
}

func (s *sqfsSource) block() ([]byte, error) {
	want := min(s.left, int64(s.fs.sb.BlockSize))
	var b [4]byte
	if err := s.pos.blocks.read(b[:]); err != nil {
		return nil, fmt.Errorf("block list: %w", err)
	}
	size := binary.LittleEndian.Uint32(b[:])
	if size == 0 {
		s.hole = want
		return s.next()
	}
	if s.out == nil {
		s.packed, s.out = s.fs.bufs.get(), s.fs.bufs.get()
	}
	out, err := s.fs.readBlock(s.at, size, *s.packed, *s.out)
	if err != nil {
		return nil, err
	}
	if int64(len(out)) != want {
		return nil, damaged("block at %d has %d bytes, not %d", s.at, len(out), want)
	}
	s.at += uint64(blockBytes(size))
	s.left -= want
	return out, nil
}

func (s *sqfsSource) fragment() ([]byte, error) {
	b, err := s.fs.frags.get(int64(s.pos.frag))
	if err != nil {
		return nil, err
	}
	from, to := int64(s.pos.fragOffset), int64(s.pos.fragOffset)+s.tail
	if to > int64(len(b)) {
		return nil, damaged("bytes %d to %d of fragment %d, which has %d", from, to, s.pos.frag, len(b))
	}
	s.left = 0
	return b[from:to], nil
}

func (s *sqfsSource) close() {
	s.fs.bufs.put(s.packed)
	s.fs.bufs.put(s.out)
	s.packed, s.out = nil, nil
}
