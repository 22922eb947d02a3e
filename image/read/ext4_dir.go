package read

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"

	"bigdisk/bundle/store"
)

// readDir reads a directory block by block: struct ext4_dir_entry_2, one after
// the other. The blocks of an index (struct dx_root, struct dx_node) look like
// blocks without names, so an indexed directory needs nothing more, but their
// checksums are checked.
func (fs *ext4) readDir(n *Node) ([]DirEntry, error) {
	p := n.priv.(*extPos)
	size := int64(p.size)
	if size <= 0 || size > maxDirBytes || size%fs.blockSize != 0 {
		return nil, damaged("directory inode %d has %d bytes", n.Ino, size)
	}
	x, err := fs.extents(n.Ino, p)
	if err != nil {
		return nil, err
	}
	l := extListing{fs: fs, dir: n, csum: p.csum, indexed: p.flags&extFlagIndex != 0}
	for want := uint64(size / fs.blockSize); l.blocks < want; {
		e, err := x.next()
		if err == io.EOF || (err == nil && (e.logical != l.blocks || e.unwritten)) {
			return nil, damaged("directory inode %d has no block %d", n.Ino, l.blocks)
		}
		if err != nil {
			return nil, err
		}
		for i := uint64(0); i < e.count && l.blocks < want; i++ {
			if err := l.block(e.physical + i); err != nil {
				return nil, err
			}
		}
	}
	return l.entries()
}

// extListing parses one directory. The names are gathered in one string, to
// keep a listing of a million names small.
type extListing struct {
	fs      *ext4
	dir     *Node
	csum    uint32
	indexed bool
	blocks  uint64 // read so far
	dots    int

	names strings.Builder
	ends  []uint32
	out   []DirEntry
}

func (l *extListing) block(at uint64) error {
	b, err := l.fs.block(at)
	if err != nil {
		return err
	}
	if err := l.check(b); err != nil {
		return err
	}
	for off := 0; off < len(b); {
		n, err := l.entry(b[off:])
		if err != nil {
			return err
		}
		off += n
	}
	l.blocks++
	return nil
}

// check checks a block's checksum, which stands elsewhere in an index block
// than in one with names.
func (l *extListing) check(b []byte) error {
	le := binary.LittleEndian
	index := -1
	if l.indexed {
		switch {
		case l.blocks == 0:
			index = 0x20
		case le.Uint32(b) == 0 && recLen(b) == len(b):
			index = 8
		}
	}
	if index >= 0 {
		return l.checkIndex(b, index)
	}
	if !l.fs.hasCsum() {
		return nil
	}
	tail := b[len(b)-12:]
	if le.Uint32(tail) != 0 || le.Uint16(tail[4:]) != 12 || tail[6] != 0 || tail[7] != 0xde {
		return damaged("directory inode %d: block %d has no checksum", l.dir.Ino, l.blocks)
	}
	if got, want := crc32c(l.csum, b[:len(b)-12]), le.Uint32(tail[8:]); got != want {
		return damaged("directory inode %d: the checksum of block %d is %#08x, but it says %#08x", l.dir.Ino, l.blocks, got, want)
	}
	return nil
}

// checkIndex checks an index block whose struct dx_countlimit is at off.
func (l *extListing) checkIndex(b []byte, off int) error {
	le := binary.LittleEndian
	limit, count := int(le.Uint16(b[off:])), int(le.Uint16(b[off+2:]))
	tail := off + limit*8
	if count == 0 || count > limit || tail > len(b) {
		return damaged("directory inode %d: index block %d has %d of %d entries", l.dir.Ino, l.blocks, count, limit)
	}
	total := l.dir.priv.(*extPos).size / uint64(l.fs.blockSize)
	for i := range count {
		if child := le.Uint32(b[off+i*8+4:]) & 0x0fffffff; uint64(child) >= total || child == 0 {
			return damaged("directory inode %d: index block %d points at block %d of %d", l.dir.Ino, l.blocks, child, total)
		}
	}
	if !l.fs.hasCsum() {
		return nil
	}
	if tail+8 > len(b) {
		return damaged("directory inode %d: index block %d has no room for its checksum", l.dir.Ino, l.blocks)
	}
	crc := crc32c(l.csum, b[:off+count*8])
	crc = crc32c(crc, b[tail:tail+4])
	crc = crc32c(crc, []byte{0, 0, 0, 0})
	if want := le.Uint32(b[tail+4:]); crc != want {
		return damaged("directory inode %d: the checksum of index block %d is %#08x, but it says %#08x", l.dir.Ino, l.blocks, crc, want)
	}
	return nil
}

// recLen is an entry's length; 64 KiB does not fit, so 0 and 65535 mean that.
func recLen(b []byte) int {
	n := int(binary.LittleEndian.Uint16(b[4:]))
	if n == 0 || n == 65535 {
		return 65536
	}
	return n
}

// entry reads the entry at b's start and returns its length.
func (l *extListing) entry(b []byte) (int, error) {
	if len(b) < 8 {
		return 0, damaged("directory inode %d: block %d ends within an entry", l.dir.Ino, l.blocks)
	}
	ino, n, length, kind := binary.LittleEndian.Uint32(b), recLen(b), int(b[6]), b[7]
	if n > len(b) || n%4 != 0 || n < 8+length || n < 8 {
		return 0, damaged("directory inode %d: an entry of %d bytes with a name of %d, in block %d", l.dir.Ino, n, length, l.blocks)
	}
	if ino == 0 {
		return n, nil
	}
	return n, l.add(ino, b[8:8+length], kind)
}

func (l *extListing) add(ino uint32, name []byte, kind byte) error {
	if l.blocks == 0 && l.dots < 2 {
		return l.dot(ino, name)
	}
	if err := checkName(name); err != nil {
		return err
	}
	if len(l.out) >= maxDirEntries {
		return damaged("directory inode %d: more than %d names", l.dir.Ino, maxDirEntries)
	}
	l.names.Write(name)
	l.ends = append(l.ends, uint32(l.names.Len()))
	l.out = append(l.out, DirEntry{ref: uint64(ino), ino: ino, parent: l.dir.Ino, kind: extKind(kind)})
	return nil
}

// dot checks "." and "..", which come first.
func (l *extListing) dot(ino uint32, name []byte) error {
	want, target := ".", l.dir.Ino
	if l.dots == 1 {
		want, target = "..", l.dir.parent
	}
	if string(name) != want || ino != target {
		return damaged("directory inode %d: %q for inode %d, where %q for inode %d should be", l.dir.Ino, name, ino, want, target)
	}
	l.dots++
	return nil
}

func extKind(t byte) store.Kind {
	switch t {
	case 1:
		return store.Regular
	case 2:
		return store.Directory
	case 7:
		return store.Symlink
	}
	return 0
}

// entries gives the entries their names, sorts them and refuses doubles.
func (l *extListing) entries() ([]DirEntry, error) {
	if l.dots < 2 {
		return nil, damaged("directory inode %d has no \"..\"", l.dir.Ino)
	}
	all, start := l.names.String(), uint32(0)
	for i, end := range l.ends {
		l.out[i].Name = all[start:end]
		start = end
	}
	slices.SortFunc(l.out, func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(l.out); i++ {
		if l.out[i].Name == l.out[i-1].Name {
			return nil, damaged("directory inode %d has %q twice", l.dir.Ino, l.out[i].Name)
		}
	}
	return slices.Clip(l.out), nil
}
