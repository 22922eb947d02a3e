package read

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// Place tells where a regular file's data lies, in bytes from the filesystem's
// start, or in its blocks.
func (im *Image) Place(n *Node) (image.FilePlace, error) {
	if n.Kind != store.Regular {
		return image.FilePlace{}, fmt.Errorf("inode %d is not a regular file", n.Ino)
	}
	return im.fs.place(n)
}

// ReadTail fills p with the last bytes of a file, all of which lie in one
// fragment block of a squashfs image.
func (im *Image) ReadTail(n *Node, p []byte) error {
	fs, ok := im.fs.(*squashfs)
	pos, isFile := n.priv.(*sqfsFilePos)
	if !ok || !isFile || pos.frag == sqfsNoFrag || pos.frag >= fs.sb.Fragments {
		return fmt.Errorf("inode %d has no end in a fragment", n.Ino)
	}
	b, err := fs.frags.get(int64(pos.frag))
	if err != nil {
		return err
	}
	from := int64(pos.fragOffset)
	if from+int64(len(p)) > int64(len(b)) {
		return damaged("bytes %d to %d of fragment %d, which has %d", from, from+int64(len(p)), pos.frag, len(b))
	}
	copy(p, b[from:])
	return nil
}

func (fs *squashfs) place(n *Node) (image.FilePlace, error) {
	pos := *n.priv.(*sqfsFilePos)
	p := image.FilePlace{Start: int64(pos.start)}
	blocks := (n.Size + int64(fs.sb.BlockSize) - 1) / int64(fs.sb.BlockSize)
	if pos.frag != sqfsNoFrag {
		if pos.frag >= fs.sb.Fragments {
			return p, damaged("inode %d is in fragment %d of %d", n.Ino, pos.frag, fs.sb.Fragments)
		}
		blocks = n.Size / int64(fs.sb.BlockSize)
		b, err := fs.tableEntry(fs.fragIndex, uint64(pos.frag), 16)
		if err != nil {
			return p, fmt.Errorf("fragment table: %w", err)
		}
		p.Tail = &image.TailPlace{
			Start: int64(binary.LittleEndian.Uint64(b)), Size: binary.LittleEndian.Uint32(b[8:]), Offset: pos.fragOffset,
		}
	}
	var b [4]byte
	for range blocks {
		if err := pos.blocks.read(b[:]); err != nil {
			return p, fmt.Errorf("inode %d: block list: %w", n.Ino, err)
		}
		size := binary.LittleEndian.Uint32(b[:])
		if blockBytes(size) > fs.sb.BlockSize {
			return p, damaged("inode %d has a block of %d bytes, where the block size is %d", n.Ino, blockBytes(size), fs.sb.BlockSize)
		}
		p.Blocks = append(p.Blocks, size)
	}
	return p, nil
}

func (fs *ext4) place(n *Node) (image.FilePlace, error) {
	var p image.FilePlace
	if n.Size == 0 {
		return p, nil
	}
	x, err := fs.extents(n.Ino, n.priv.(*extPos))
	if err != nil {
		return p, err
	}
	for {
		e, err := x.next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		if e.unwritten {
			continue
		}
		p.Runs = append(p.Runs, image.BlockRun{Logical: int64(e.logical), Physical: int64(e.physical), Length: int64(e.count)})
	}
}
