package read

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// Flags of struct ext4_group_desc: its bitmap was never written.
const (
	extInodeUninit = 1
	extBlockUninit = 2
)

// sweep checks the bitmaps' checksums and the backups of the superblock and
// the group descriptors. Inodes, directories and extents are checked as they are read.
func (fs *ext4) sweep(ctx context.Context, found func(error)) error {
	for g := range fs.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		if fs.hasCsum() {
			if err := fs.sweepBitmaps(g, found); err != nil {
				return err
			}
		}
		if g > 0 && fs.hasSuper(uint64(g)) {
			if err := fs.sweepBackup(uint64(g), found); err != nil {
				return err
			}
		}
	}
	return nil
}

func (fs *ext4) sweepBitmaps(g int, found func(error)) error {
	d := &fs.groups[g]
	check := func(what string, at uint64, n int64, want uint32) error {
		b, err := fs.block(at)
		if err != nil {
			found(fmt.Errorf("group %d: %s: %w", g, what, err))
			return nil
		}
		got := crc32c(fs.seed, b[:n])
		if fs.descSize < 64 {
			got &= 0xffff
		}
		if got != want {
			found(damaged("group %d: the checksum of the %s is %#08x, but it says %#08x", g, what, got, want))
		}
		return nil
	}
	if d.flags&extBlockUninit == 0 {
		if err := check("block bitmap", d.blockBitmap, int64(fs.perGroup/8), d.blockCsum); err != nil {
			return err
		}
	}
	if d.flags&extInodeUninit == 0 {
		return check("inode bitmap", d.inodeBitmap, int64(fs.inodesPer/8), d.inodeCsum)
	}
	return nil
}

// sweepBackup holds a group's copy of the superblock and descriptors against
// the originals, where they must agree.
func (fs *ext4) sweepBackup(g uint64, found func(error)) error {
	start := fs.firstBlock + g*fs.perGroup
	b, err := fs.metadata(int64(start)*fs.blockSize, extSuperSize)
	if err != nil {
		found(fmt.Errorf("group %d: backup superblock: %w", g, err))
		return nil
	}
	if fs.hasCsum() {
		if got, want := crc32c(^uint32(0), b[:0x3fc]), binary.LittleEndian.Uint32(b[0x3fc:]); got != want {
			found(damaged("group %d: the checksum of the backup superblock is %#08x, but it says %#08x", g, got, want))
		}
	}
	for _, at := range [][2]int{{0, 0xc}, {0x14, 0x2c}, {0x38, 0x3a}, {0x54, 0x5a}, {0x5c, 0x78}} {
		if !bytes.Equal(b[at[0]:at[1]], fs.super[at[0]:at[1]]) {
			found(damaged("group %d: the backup superblock differs from the first at byte %#x or soon after", g, at[0]))
		}
	}
	return fs.sweepDescriptors(g, start, found)
}

// sweepDescriptors checks the copies of the group descriptors behind a backup
// superblock by where they say the tables are; with meta_bg they are elsewhere.
func (fs *ext4) sweepDescriptors(g, start uint64, found func(error)) error {
	if fs.incompat&extIncompatMetaBG != 0 {
		return nil
	}
	per := uint64(fs.blockSize / fs.descSize)
	for i := uint64(0); i < uint64(len(fs.groups)); i += per {
		b, err := fs.block(start + 1 + i/per)
		if err != nil {
			found(fmt.Errorf("group %d: backup descriptors: %w", g, err))
			return nil
		}
		for j := i; j < min(i+per, uint64(len(fs.groups))); j++ {
			d, err := fs.parseGroup(j, b[int64(j-i)*fs.descSize:][:fs.descSize])
			if err == nil && d.inodeTable != fs.groups[j].inodeTable {
				err = damaged("its inode table is at block %d, not %d", d.inodeTable, fs.groups[j].inodeTable)
			}
			if err != nil {
				found(fmt.Errorf("group %d: backup descriptor of group %d: %w", g, j, err))
				return nil
			}
		}
	}
	return nil
}

// hasSuper reports whether a group starts with a copy of the superblock
// (ext4_bg_has_super).
func (fs *ext4) hasSuper(g uint64) bool {
	switch {
	case g == 0:
		return true
	case fs.compat&extCompatSparseSuper2 != 0:
		return g == uint64(fs.backups[0]) || g == uint64(fs.backups[1])
	case g <= 1 || fs.roCompat&extRoSparseSuper == 0:
		return true
	}
	return isPower(g, 3) || isPower(g, 5) || isPower(g, 7)
}

func isPower(n, of uint64) bool {
	for n%of == 0 {
		n /= of
	}
	return n == 1
}
