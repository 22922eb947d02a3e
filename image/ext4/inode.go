package ext4

import "encoding/binary"

// inode is what is kept of an inode until the inode tables are written.
type inode struct {
	size    int64  // bytes
	ref     int64  // the first extent, or a fast symlink's target in names
	extents uint32 // how many
	links   uint16 // of what is not a directory
	mode    uint16 // i_mode
}

func (n *inode) isDir() bool { return n.mode&modeFormat == modeFormatDir }

// putInode writes struct ext4_inode with its checksum to raw, which is zero.
func (f *finisher) putInode(raw []byte, ino uint32, n *inode, links uint16) error {
	le := binary.LittleEndian
	seed := inodeSeed(f.seed, ino)
	le.PutUint16(raw[inodeMode:], n.mode)
	le.PutUint16(raw[inodeUIDLo:], uint16(f.opts.UID))
	le.PutUint16(raw[inodeUIDHi:], uint16(f.opts.UID>>16))
	le.PutUint16(raw[inodeGIDLo:], uint16(f.opts.GID))
	le.PutUint16(raw[inodeGIDHi:], uint16(f.opts.GID>>16))
	le.PutUint32(raw[inodeSizeLo:], uint32(n.size))
	le.PutUint32(raw[inodeSizeHi:], uint32(n.size>>32))
	for _, at := range [...]int{inodeAtime, inodeCtime, inodeMtime, inodeCrtime} {
		le.PutUint32(raw[at:], canonicalTime)
	}
	le.PutUint16(raw[inodeLinks:], links)
	le.PutUint16(raw[inodeExtraIsize:], extraIsize)
	if n.mode == modeSymlink && n.extents == 0 {
		copy(raw[inodeBlock:], f.b.names.from(n.ref)[:n.size])
	} else {
		le.PutUint32(raw[inodeFlags:], n.flags())
		if err := f.extentTree(raw[inodeBlock:inodeBlock+inodeBlockLen], n, seed); err != nil {
			return err
		}
	}
	sectors := f.inodeBlocks(n) * (blockSize / 512)
	le.PutUint32(raw[inodeBlocksLo:], uint32(sectors))
	le.PutUint16(raw[inodeBlocksHi:], uint16(sectors>>32))
	putInodeChecksum(raw, seed)
	return nil
}

func putInodeChecksum(raw []byte, seed uint32) {
	sum := crc32c(seed, raw)
	binary.LittleEndian.PutUint16(raw[inodeChecksumLo:], uint16(sum))
	binary.LittleEndian.PutUint16(raw[inodeChecksumHi:], uint16(sum>>16))
}

func (n *inode) flags() uint32 {
	if n.isDir() && n.size > blockSize {
		return flagExtents | flagIndex
	}
	return flagExtents
}

// inodeBlocks is how many blocks belong to an inode, those of its extent tree
// included.
func (f *finisher) inodeBlocks(n *inode) int64 {
	blocks := treeBlocks(int64(n.extents))
	for i := range int64(n.extents) {
		blocks += int64(f.b.extents.at(int(n.ref + i)).len)
	}
	return blocks
}
