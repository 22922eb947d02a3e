package read

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"bigdisk/bundle/store"
)

// Flags of struct ext4_inode, and its file types.
const (
	extFlagIndex   = 0x1000
	extFlagExtents = 0x80000
	extFlagEA      = 0x200000
	extFlagInline  = 0x10000000

	extTypeMask    = 0xf000
	extTypeDir     = 0x4000
	extTypeFile    = 0x8000
	extTypeSymlink = 0xa000

	extFastSymlink = 60 // a shorter target is in the inode
)

// extPos says where an inode's data is.
type extPos struct {
	size   uint64
	flags  uint32
	csum   uint32 // what checksums of the inode's own blocks start from
	iblock [60]byte
}

func (fs *ext4) root() (*Node, error) {
	n, err := fs.readInode(extRootIno)
	if err != nil {
		return nil, err
	}
	if n.Kind != store.Directory {
		return nil, damaged("the root inode is not a directory")
	}
	n.parent = extRootIno
	return n, nil
}

func (fs *ext4) node(e *DirEntry) (*Node, error) {
	n, err := fs.readInode(e.ino)
	if err != nil {
		return nil, err
	}
	if n.Kind != e.kind && fs.incompat&extIncompatFiletype != 0 {
		return nil, damaged("inode %d is not what its directory says", n.Ino)
	}
	if n.Links == 0 {
		return nil, damaged("inode %d has a name, but says it has none", n.Ino)
	}
	n.parent = e.parent
	return n, nil
}

// readInode reads and checks one inode.
func (fs *ext4) readInode(ino uint32) (*Node, error) {
	if ino == 0 || ino > fs.inodes || (ino < fs.firstIno && ino != extRootIno) {
		return nil, damaged("inode number %d of %d", ino, fs.inodes)
	}
	group := (ino - 1) / fs.inodesPer
	off := int64(fs.groups[group].inodeTable)*fs.blockSize + int64((ino-1)%fs.inodesPer)*fs.inodeSize
	b, err := fs.metadata(off, fs.inodeSize)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	p := &extPos{flags: binary.LittleEndian.Uint32(b[0x20:])}
	p.csum = crc32cNumber(crc32cNumber(fs.seed, ino), binary.LittleEndian.Uint32(b[0x64:]))
	copy(p.iblock[:], b[0x28:])
	if err := fs.checkInode(ino, b, p.csum); err != nil {
		return nil, err
	}
	n := parseInode(ino, b, p)
	if p.flags&(extFlagInline|extFlagEA) != 0 {
		return nil, fmt.Errorf("%w: inode %d with flags %#x", ErrUnsupported, ino, p.flags)
	}
	return n, fs.setTarget(n, p)
}

func (fs *ext4) checkInode(ino uint32, b []byte, csum uint32) error {
	if !fs.hasCsum() {
		return nil
	}
	le := binary.LittleEndian
	want, hi := uint32(le.Uint16(b[0x7c:])), false
	if len(b) > 128 && le.Uint16(b[0x80:]) >= 4 {
		want |= uint32(le.Uint16(b[0x82:])) << 16
		hi = true
	}
	zero := []byte{0, 0}
	got := crc32c(crc32c(csum, b[:0x7c]), zero)
	switch {
	case len(b) == 128:
		got = crc32c(got, b[0x7e:])
	case hi:
		got = crc32c(crc32c(crc32c(got, b[0x7e:0x82]), zero), b[0x84:])
	default:
		got = crc32c(got, b[0x7e:])
	}
	if !hi {
		got &= 0xffff
	}
	if got != want {
		return damaged("inode %d: its checksum is %#x, but it says %#x", ino, got, want)
	}
	return nil
}

func parseInode(ino uint32, b []byte, p *extPos) *Node {
	le := binary.LittleEndian
	mode := le.Uint16(b)
	n := &Node{
		Ino: ino, Mode: mode & 0o7777, Links: uint32(le.Uint16(b[0x1a:])), priv: p,
		UID:   uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[0x78:]))<<16,
		GID:   uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16,
		Mtime: int64(int32(le.Uint32(b[0x10:]))),
	}
	if len(b) >= 0x8c && le.Uint16(b[0x80:]) >= 0xc {
		extra := le.Uint32(b[0x88:])
		n.Mtime += int64(extra&3) << 32
		n.MtimeNsec = extra >> 2
	}
	p.size = uint64(le.Uint32(b[4:]))
	switch mode & extTypeMask {
	case extTypeDir:
		n.Kind = store.Directory
	case extTypeFile:
		n.Kind = store.Regular
		p.size |= uint64(le.Uint32(b[0x6c:])) << 32
		n.Size = int64(p.size)
	case extTypeSymlink:
		n.Kind = store.Symlink
	}
	return n
}

// setTarget reads a symlink's target.
func (fs *ext4) setTarget(n *Node, p *extPos) error {
	if n.Kind != store.Symlink {
		return nil
	}
	if p.size == 0 || p.size > uint64(min(fs.blockSize, 4096)) {
		return damaged("symlink inode %d has a target of %d bytes", n.Ino, p.size)
	}
	if p.size < extFastSymlink && p.flags&extFlagExtents == 0 {
		n.Target = string(p.iblock[:p.size])
		return nil
	}
	x, err := fs.extents(n.Ino, p)
	if err != nil {
		return err
	}
	e, err := x.next()
	if err != nil || e.logical != 0 || e.unwritten {
		return damaged("symlink inode %d has no target", n.Ino)
	}
	b, err := fs.block(e.physical)
	if err != nil {
		return fmt.Errorf("symlink inode %d: %w", n.Ino, err)
	}
	n.Target = string(b[:p.size])
	return nil
}

// isWhole reports whether all of a file's blocks are stored. The inode's count
// of blocks does not tell, for it counts those of the extent tree too.
func (fs *ext4) isWhole(n *Node) bool {
	x, err := fs.extents(n.Ino, n.priv.(*extPos))
	if err != nil {
		return false
	}
	next := uint64(0)
	for next*uint64(fs.blockSize) < uint64(n.Size) {
		e, err := x.next()
		if err != nil || e.logical != next || e.unwritten {
			return false
		}
		next += e.count
	}
	return true
}

// extSource reads a file's extents in order, and zeros where there is none.
type extSource struct {
	fs   *ext4
	x    *extentIter
	off  int64 // what has been given
	size int64
	e    extent // the extent at or after off
	done bool   // no extent is left
	tail bool   // there is more than zeros behind the last byte in its block
	buf  *[]byte
}

func (fs *ext4) open(n *Node) (blockSource, error) {
	p := n.priv.(*extPos)
	if p.size > 1<<62 {
		return nil, damaged("inode %d has %d bytes", n.Ino, p.size)
	}
	s := &extSource{fs: fs, size: n.Size}
	if n.Size == 0 {
		s.done = true
		return s, nil
	}
	x, err := fs.extents(n.Ino, p)
	if err != nil {
		return nil, err
	}
	s.x = x
	return s, s.advance()
}

func (s *extSource) advance() error {
	e, err := s.x.next()
	if err == io.EOF {
		s.done, s.e = true, extent{}
		return nil
	}
	s.e = e
	return err
}

func (s *extSource) next() ([]byte, error) {
	if s.off == s.size {
		return nil, s.end()
	}
	bs := s.fs.blockSize
	for !s.done && s.off >= int64(s.e.logical+s.e.count)*bs {
		if err := s.advance(); err != nil {
			return nil, err
		}
	}
	stop := s.size
	data := false
	if !s.done {
		if from := int64(s.e.logical) * bs; s.off < from {
			stop = min(stop, from)
		} else {
			stop = min(stop, int64(s.e.logical+s.e.count)*bs)
			data = !s.e.unwritten
		}
	}
	n := min(stop-s.off, maxPiece)
	if !data {
		s.off += n
		return zeros[:n], nil
	}
	return s.read(n)
}

// end checks the extents past the last byte that was wanted, so that a broken
// tree is not passed over.
func (s *extSource) end() error {
	for !s.done {
		if err := s.advance(); err != nil {
			return err
		}
	}
	return io.EOF
}

func (s *extSource) read(n int64) ([]byte, error) {
	if s.buf == nil {
		s.buf = s.fs.files.get()
	}
	bs := s.fs.blockSize
	b := (*s.buf)[:(n+bs-1)/bs*bs]
	at := int64(s.e.physical)*bs + s.off - int64(s.e.logical)*bs
	if _, err := s.fs.r.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("bytes at %d: %w", at, err)
	}
	s.off += n
	s.tail = !bytes.Equal(b[n:], zeros[:int64(len(b))-n])
	return b[:n], nil
}

func (s *extSource) close() {
	s.fs.files.put(s.buf)
	s.buf = nil
}
