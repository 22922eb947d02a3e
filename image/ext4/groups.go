package ext4

import "encoding/binary"

// groups writes the bitmaps and descriptors of all groups. The bitmaps of a
// group that has nothing in them are not written: its flags say so.
func (f *finisher) groups() error {
	descs := newBlockWriter(f.front, 1)
	inodes := newBlockWriter(f.file, f.geo.inodeBitmap(0))
	f.meta.seek(f.geo.blockBitmap(0))
	var block []byte
	for group := range f.geo.groups {
		at := int(group%descsPerBlock) * descSize
		if at == 0 {
			if err := f.ctx.Err(); err != nil {
				return err
			}
			block = descs.block()
		}
		d := groupDesc{
			blockBitmap: f.geo.blockBitmap(group),
			inodeBitmap: f.geo.inodeBitmap(group),
			inodeTable:  f.geo.inodeTable(group),
			usedDirs:    int64(f.dirs[group]),
			flags:       groupInodeZeroed,
		}
		f.groupBlocks(&d, group)
		f.groupInodes(&d, group, inodes)
		f.putDesc(block[at:at+descSize], &d, group)
	}
	for _, w := range []*blockWriter{f.meta, inodes, descs} {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// groupBlocks writes a group's block bitmap. The last group's is always
// written, for what is past the image's end.
func (f *finisher) groupBlocks(d *groupDesc, group int64) {
	size := f.geo.groupBlocks(group)
	f.scratch = f.geo.usedIn(group, f.scratch[:0])
	d.freeBlocks = size - f.scratch.blocks()
	if d.freeBlocks == blocksPerGroup && group != f.geo.groups-1 {
		d.flags |= groupBlockUninit
		return
	}
	f.meta.seek(d.blockBitmap)
	bitmap := f.meta.block()
	for _, used := range f.scratch {
		setBits(bitmap, used.start, used.end)
	}
	setBits(bitmap, size, blocksPerGroup)
	d.blockBitmapCsum = crc32c(f.seed, bitmap)
}

// groupInodes writes a group's inode bitmap to w. The inodes in use are the
// image's first.
func (f *finisher) groupInodes(d *groupDesc, group int64, w *blockWriter) {
	size := f.geo.groupInodes
	used := f.b.inodeCount() - group*size
	used = min(max(used, 0), size)
	d.freeInodes, d.itableUnused = size-used, size-used
	if used == 0 {
		d.flags |= groupInodeUninit
		return
	}
	w.seek(d.inodeBitmap)
	bitmap := w.block()
	setBits(bitmap, 0, used)
	setBits(bitmap, size, maxGroupInodes)
	d.inodeBitmapCsum = crc32c(f.seed, bitmap[:size/8])
}

// putDesc writes a descriptor with its checksum.
func (f *finisher) putDesc(b []byte, d *groupDesc, group int64) {
	d.put(b)
	sum := crc32c(crc32cUint32(f.seed, uint32(group)), b)
	binary.LittleEndian.PutUint16(b[descChecksum:], uint16(sum))
}

// setBits sets bits [from, to).
func setBits(bitmap []byte, from, to int64) {
	for ; from < to && from%8 != 0; from++ {
		bitmap[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		bitmap[from/8] = 0xFF
	}
	for ; from < to; from++ {
		bitmap[from/8] |= 1 << (from % 8)
	}
}
