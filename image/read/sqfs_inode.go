package read

import (
	"encoding/binary"

	"bigdisk/bundle/store"
)

// Inode types of squashfs: the first seven are short, the next seven the same
// with more room.
const (
	sqfsDir      = 1
	sqfsFile     = 2
	sqfsSymlink  = 3
	sqfsLongDir  = 8
	sqfsLongFile = 9
	sqfsLongLink = 10
	sqfsTypes    = 14
)

// sqfsDirPos says where a directory's listing is.
type sqfsDirPos struct {
	start   uint32 // of the metadata block, from the table's start
	offset  uint16
	size    uint32     // of the listing in bytes
	indexes uint16     // entries of the index that follows the inode
	index   sqfsCursor // where that starts
}

// sqfsFilePos says where a file's data is.
type sqfsFilePos struct {
	start      uint64
	frag       uint32
	fragOffset uint32
	blocks     sqfsCursor // where the list of block sizes starts
}

func sqfsKind(t uint16) store.Kind {
	switch t {
	case sqfsDir, sqfsLongDir:
		return store.Directory
	case sqfsFile, sqfsLongFile:
		return store.Regular
	case sqfsSymlink, sqfsLongLink:
		return store.Symlink
	}
	return 0
}

func (fs *squashfs) root() (*Node, error) {
	n, err := fs.readInode(fs.sb.RootInode)
	if err != nil {
		return nil, err
	}
	if n.Kind != store.Directory {
		return nil, damaged("the root inode is not a directory")
	}
	return n, nil
}

func (fs *squashfs) node(e *DirEntry) (*Node, error) {
	n, err := fs.readInode(e.ref)
	if err != nil {
		return nil, err
	}
	if n.Ino != e.ino {
		return nil, damaged("inode %d, which its directory calls %d", n.Ino, e.ino)
	}
	if n.Kind != e.kind {
		return nil, damaged("inode %d is not what its directory says", n.Ino)
	}
	if n.Kind == store.Directory && n.parent != e.parent {
		return nil, damaged("directory inode %d says its parent is %d, but it is in %d", n.Ino, n.parent, e.parent)
	}
	return n, nil
}

// readInode reads the inode at ref: a metadata block's place in the inode
// table, and 16 bits of offset into it.
func (fs *squashfs) readInode(ref uint64) (*Node, error) {
	if ref>>16 >= fs.sb.DirectoryTable {
		return nil, damaged("inode at %#x is outside the inode table", ref)
	}
	c, err := fs.cursor(fs.sb.InodeTable+ref>>16, fs.sb.DirectoryTable, int(ref&0xffff))
	if err != nil {
		return nil, err
	}
	var h [16]byte
	if err := c.read(h[:]); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	n := &Node{Mode: le.Uint16(h[2:]) & 0o7777, Mtime: int64(le.Uint32(h[8:])), Ino: le.Uint32(h[12:])}
	if n.UID, err = fs.id(le.Uint16(h[4:])); err != nil {
		return nil, err
	}
	if n.GID, err = fs.id(le.Uint16(h[6:])); err != nil {
		return nil, err
	}
	if n.Ino == 0 || n.Ino > fs.sb.Inodes {
		return nil, damaged("inode number %d of %d", n.Ino, fs.sb.Inodes)
	}
	if err := fs.checkExport(n.Ino, ref); err != nil {
		return nil, err
	}
	return n, fs.readBody(n, c, le.Uint16(h[:]))
}

func (fs *squashfs) id(i uint16) (uint32, error) {
	if int(i) >= len(fs.ids) {
		return 0, damaged("owner %d of %d", i, len(fs.ids))
	}
	return fs.ids[i], nil
}

// checkExport holds the export table against where the inode was found.
func (fs *squashfs) checkExport(ino uint32, ref uint64) error {
	if fs.export == nil {
		return nil
	}
	b, err := fs.tableEntry(fs.export, uint64(ino-1), 8)
	if err != nil {
		return err
	}
	if got := binary.LittleEndian.Uint64(b); got != ref {
		return damaged("export table: inode %d at %#x, but it is at %#x", ino, got, ref)
	}
	return nil
}

func (fs *squashfs) readBody(n *Node, c *sqfsCursor, t uint16) error {
	n.Kind = sqfsKind(t)
	switch t {
	case sqfsDir:
		return readSqfsDir(n, c)
	case sqfsLongDir:
		return readSqfsLongDir(n, c)
	case sqfsFile:
		return readSqfsFile(n, c)
	case sqfsLongFile:
		return readSqfsLongFile(n, c)
	case sqfsSymlink, sqfsLongLink:
		return readSqfsSymlink(n, c)
	}
	if t == 0 || t > sqfsTypes {
		return damaged("inode %d has type %d", n.Ino, t)
	}
	var b [4]byte
	err := c.read(b[:])
	n.Links = binary.LittleEndian.Uint32(b[:])
	return err
}

// readSqfsDir reads the rest of struct squashfs_dir_inode.
func readSqfsDir(n *Node, c *sqfsCursor) error {
	var b [16]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	n.Links, n.parent = le.Uint32(b[4:]), le.Uint32(b[12:])
	return setDir(n, &sqfsDirPos{start: le.Uint32(b[:]), size: uint32(le.Uint16(b[8:])), offset: le.Uint16(b[10:])})
}

// readSqfsLongDir reads the rest of struct squashfs_ldir_inode.
func readSqfsLongDir(n *Node, c *sqfsCursor) error {
	var b [24]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	n.Links, n.parent = le.Uint32(b[:]), le.Uint32(b[12:])
	return setDir(n, &sqfsDirPos{
		start: le.Uint32(b[8:]), size: le.Uint32(b[4:]), offset: le.Uint16(b[18:]),
		indexes: le.Uint16(b[16:]), index: *c,
	})
}

// setDir takes off the 3 bytes that the format adds to every listing's size.
func setDir(n *Node, p *sqfsDirPos) error {
	if p.size < 3 || p.size-3 > maxDirBytes {
		return damaged("directory inode %d has a listing of %d bytes", n.Ino, p.size)
	}
	p.size -= 3
	n.priv = p
	return nil
}

// readSqfsFile reads the rest of struct squashfs_reg_inode.
func readSqfsFile(n *Node, c *sqfsCursor) error {
	var b [16]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	n.Links, n.Size = 1, int64(le.Uint32(b[12:]))
	n.priv = &sqfsFilePos{start: uint64(le.Uint32(b[:])), frag: le.Uint32(b[4:]), fragOffset: le.Uint32(b[8:]), blocks: *c}
	return nil
}

// readSqfsLongFile reads the rest of struct squashfs_lreg_inode.
func readSqfsLongFile(n *Node, c *sqfsCursor) error {
	var b [40]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	n.Size, n.Links = int64(le.Uint64(b[8:])), le.Uint32(b[24:])
	if n.Size < 0 {
		return damaged("inode %d has %d bytes", n.Ino, le.Uint64(b[8:]))
	}
	sparse := le.Uint64(b[16:])
	if sparse > uint64(n.Size) {
		return damaged("inode %d has %d bytes, %d of them in holes", n.Ino, n.Size, sparse)
	}
	n.priv = &sqfsFilePos{start: le.Uint64(b[:]), frag: le.Uint32(b[28:]), fragOffset: le.Uint32(b[32:]), blocks: *c}
	return nil
}

// readSqfsSymlink reads the rest of struct squashfs_symlink_inode.
func readSqfsSymlink(n *Node, c *sqfsCursor) error {
	var b [8]byte
	if err := c.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	n.Links = le.Uint32(b[:])
	length := le.Uint32(b[4:])
	if length == 0 || length > 65535 {
		return damaged("symlink inode %d has a target of %d bytes", n.Ino, length)
	}
	target := make([]byte, length)
	err := c.read(target)
	n.Target = string(target)
	return err
}
