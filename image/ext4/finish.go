package ext4

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"bigdisk/image"
)

// finisher writes all that follows the data.
type finisher struct {
	ctx   context.Context
	b     *builder
	opts  Options
	file  File
	front File // superblock and group descriptors

	uuid     [16]byte
	hashSeed [4]uint32
	seed     uint32 // of every checksum of metadata: the UUID's
	largeDir bool   // an index has three levels

	meta *blockWriter // directories and symlinks; later bitmaps, tables, descriptors
	tree *blockWriter // blocks of extent trees
	geo  geometry
	dirs []uint16 // directories in each group

	metaBlocks spans // of directories and symlinks
	scratch    spans
}

// finish writes the metadata in the order of the layout, the superblock last.
func (w *Writer) finish() error {
	b := w.build
	b.unit("")
	f := &finisher{ctx: w.ctx, b: b, opts: w.opts, file: w.file, front: w.file}
	f.identity()
	if w.update != nil {
		return w.update.finish(f)
	}
	// What was placed and taken back may lie after the data.
	cursor := b.space.end()
	if err := w.file.Truncate(cursor * blockSize); err != nil {
		return fmt.Errorf("cutting the image file after its data: %w", err)
	}
	f.meta = newBlockWriter(w.file, cursor)
	if err := f.run(f.directories, f.symlinks, f.place, f.inodes, f.groups, f.superblock); err != nil {
		return err
	}
	front, back := f.geo.used[0], f.geo.used[1]
	b.layout.Size = f.geo.blocks * blockSize
	b.layout.Metadata = append(b.layout.Metadata,
		image.Extent{Offset: front.start * blockSize, Length: front.blocks() * blockSize},
		image.Extent{Offset: cursor * blockSize, Length: (back.end - cursor) * blockSize},
	)
	w.layout = &b.layout
	return nil
}

func (f *finisher) run(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// identity derives the UUID and the hash seed from what came and from the
// options.
func (f *finisher) identity() {
	o := &f.opts
	sum := sha256.New()
	fmt.Fprintf(sum, "ext4 %d:%d %q %d %d %t\n", o.UID, o.GID, o.Label, o.Size, o.RoundTo, o.Writable)
	sum.Write(f.b.sum.Sum(nil))
	id := sum.Sum(nil)
	copy(f.uuid[:], id)
	f.uuid[6] = f.uuid[6]&0x0F | 0x80 // RFC 9562, version 8: made our own way
	f.uuid[8] = f.uuid[8]&0x3F | 0x80
	for i := range f.hashSeed {
		f.hashSeed[i] = binary.LittleEndian.Uint32(id[16+4*i:])
	}
	f.hashSeed[0] |= 1 // all zero would mean none
	f.seed = crc32c(^uint32(0), f.uuid[:])
}

// place decides the geometry, now that all but the groups' bitmaps and inode
// tables have their blocks, and makes the file as long as the image.
func (f *finisher) place() error {
	if err := f.meta.flush(); err != nil {
		return err
	}
	f.tree = newBlockWriter(f.file, f.meta.next())
	end := f.meta.next() + f.allTreeBlocks()
	var err error
	if f.geo, err = plan(f.opts, f.b.inodeCount(), end); err != nil {
		return err
	}
	if err := f.file.Truncate(f.geo.blocks * blockSize); err != nil {
		return fmt.Errorf("making the image file %d bytes long: %w", f.geo.blocks*blockSize, err)
	}
	return nil
}

// allTreeBlocks is how many blocks the extent trees of all inodes take.
func (f *finisher) allTreeBlocks() int64 {
	blocks := treeBlocks(int64(f.b.root.extents))
	for i := range f.b.inodes.n {
		blocks += treeBlocks(int64(f.b.inodes.at(i).extents))
	}
	return blocks
}

// inodes writes the inode tables, which together are one array, up to the
// last inode in use; the rest stays a hole. Extent trees go where there is
// room for them on the way.
func (f *finisher) inodes() error {
	f.dirs = make([]uint16, f.geo.groups)
	f.meta.take = nil
	dir := 0 // the directories have their inodes in order
	var block []byte
	last := uint32(f.b.inodeCount())
	for ino := uint32(1); ino <= last; ino++ {
		at := int(ino-1) % inodesPerBlock * inodeSize
		if at == 0 {
			if err := f.ctx.Err(); err != nil {
				return err
			}
			f.meta.seek(f.geo.inodeTables.at(int64(ino-1) / inodesPerBlock))
			block = f.meta.block()
		}
		raw := block[at : at+inodeSize]
		if ino != rootIno && ino < firstIno {
			continue // reserved, and zero
		}
		n := f.b.inode(ino)
		links := n.links
		if n.isDir() {
			links = f.b.dirs.at(dir).links()
			f.dirs[int64(ino-1)/f.geo.groupInodes]++
			dir++
		}
		if err := f.putInode(raw, ino, n, links); err != nil {
			return err
		}
	}
	return f.tree.flush()
}
