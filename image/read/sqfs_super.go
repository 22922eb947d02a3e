package read

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// Facts of the format: struct squashfs_super_block and friends in the
// kernel's fs/squashfs/squashfs_fs.h, version 4.0.
const (
	sqfsMagic     = "hsqs"
	sqfsSuperSize = 96
	sqfsMetaSize  = 8192       // a metadata block, unpacked
	sqfsNone      = ^uint64(0) // a table that is not there
	sqfsNoFrag    = ^uint32(0) // a file without a fragment
	sqfsMaxBlock  = 1 << 20
	sqfsOptions   = 0x400 // flag: the compressor's options follow the superblock
)

// sqfsCompressors are the names of the superblock's compression numbers.
var sqfsCompressors = [...]string{1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

// sqfsSuper is struct squashfs_super_block.
type sqfsSuper struct {
	Magic          [4]byte
	Inodes         uint32
	MkfsTime       uint32
	BlockSize      uint32
	Fragments      uint32
	Compression    uint16
	BlockLog       uint16
	Flags          uint16
	IDs            uint16
	Major, Minor   uint16
	RootInode      uint64
	BytesUsed      uint64
	IDTable        uint64
	XattrTable     uint64
	InodeTable     uint64
	DirectoryTable uint64
	FragmentTable  uint64
	ExportTable    uint64
}

// squashfs reads one squashfs filesystem.
type squashfs struct {
	r    io.ReaderAt
	size int64 // bytes there are
	sb   sqfsSuper

	ids       []uint32
	fragIndex []uint64 // where the fragment table's metadata blocks are
	export    []uint64 // the same for the export table; nil if there is none

	unpack *unpacker
	meta   *cache[sqfsMeta] // by position in the image
	frags  *cache[[]byte]   // by fragment number
	bufs   bufPool
}

const (
	sqfsMetaCache = 2048     // metadata blocks: 16 MiB
	sqfsFragCache = 48 << 20 // bytes
)

func openSquashfs(r io.ReaderAt, size int64) (filesystem, error) {
	fs := &squashfs{r: r, size: size}
	if err := fs.readSuper(); err != nil {
		return nil, err
	}
	var err error
	if fs.unpack, err = newUnpacker(int(fs.sb.Compression)); err != nil {
		return nil, err
	}
	fs.bufs.size = int(fs.sb.BlockSize)
	fs.meta = newCache(sqfsMetaCache, fs.loadMeta)
	fs.frags = newCache(max(4, sqfsFragCache/int(fs.sb.BlockSize)), fs.loadFragment)
	if err := fs.readTables(); err != nil {
		return nil, err
	}
	return fs, nil
}

func (fs *squashfs) readSuper() error {
	if err := binary.Read(io.NewSectionReader(fs.r, 0, sqfsSuperSize), binary.LittleEndian, &fs.sb); err != nil {
		return damaged("superblock: %w", err)
	}
	sb := &fs.sb
	switch {
	case sb.Major != 4 || sb.Minor != 0:
		return fmt.Errorf("%w: squashfs version %d.%d", ErrUnsupported, sb.Major, sb.Minor)
	case sb.BlockSize < 4096 || sb.BlockSize > sqfsMaxBlock || bits.OnesCount32(sb.BlockSize) != 1:
		return damaged("superblock: block size %d", sb.BlockSize)
	case 1<<sb.BlockLog != sb.BlockSize:
		return damaged("superblock: block size %d, but its logarithm is %d", sb.BlockSize, sb.BlockLog)
	case sb.BytesUsed > uint64(fs.size):
		return damaged("superblock: %d bytes used, but the image has only %d: it has been cut short", sb.BytesUsed, fs.size)
	case sb.BytesUsed < sqfsSuperSize:
		return damaged("superblock: %d bytes used", sb.BytesUsed)
	case sb.InodeTable < sqfsSuperSize || sb.InodeTable >= sb.DirectoryTable || sb.DirectoryTable >= sb.BytesUsed:
		return damaged("superblock: inode table at %d, directory table at %d of %d bytes", sb.InodeTable, sb.DirectoryTable, sb.BytesUsed)
	}
	return nil
}

// readTables reads the ids and the indexes of the other tables, from the last
// in the image to the first, and wants each to end where the next begins, as
// squashfs_fill_super in the kernel's fs/squashfs/super.c does.
func (fs *squashfs) readTables() error {
	if fs.sb.Flags&sqfsOptions != 0 {
		if _, err := fs.loadMeta(sqfsSuperSize); err != nil {
			return fmt.Errorf("the compressor's options: %w", err)
		}
	}
	next, err := fs.endOfTables()
	if err != nil {
		return err
	}
	index, err := fs.tableIndex("id", fs.sb.IDTable, next, uint64(fs.sb.IDs), 4)
	if err != nil {
		return err
	}
	for i := range int(fs.sb.IDs) {
		b, err := fs.tableEntry(index, uint64(i), 4)
		if err != nil {
			return fmt.Errorf("id table: %w", err)
		}
		fs.ids = append(fs.ids, binary.LittleEndian.Uint32(b))
	}
	next = index[0]
	if fs.sb.ExportTable != sqfsNone {
		if fs.export, err = fs.tableIndex("export", fs.sb.ExportTable, next, uint64(fs.sb.Inodes), 8); err != nil {
			return err
		}
		next = fs.export[0]
	}
	if fs.sb.Fragments > 0 {
		if fs.fragIndex, err = fs.tableIndex("fragment", fs.sb.FragmentTable, next, uint64(fs.sb.Fragments), 16); err != nil {
			return err
		}
		next = fs.fragIndex[0]
	}
	if fs.sb.DirectoryTable > next {
		return damaged("directory table at %d, after the tables at %d", fs.sb.DirectoryTable, next)
	}
	return nil
}

// endOfTables is where the id table has to end: at the table of extended
// attributes, which are not read, or at the filesystem's end.
func (fs *squashfs) endOfTables() (uint64, error) {
	const header = 16 // struct squashfs_xattr_id_table, behind which is the index
	at, used := fs.sb.XattrTable, fs.sb.BytesUsed
	if at == sqfsNone {
		return used, nil
	}
	if at > used || used-at < header {
		return 0, damaged("table of extended attributes at %d of %d bytes", at, used)
	}
	var b [header]byte
	if _, err := fs.r.ReadAt(b[:], int64(at)); err != nil {
		return 0, fmt.Errorf("table of extended attributes: %w", err)
	}
	start, ids := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint32(b[8:])
	if _, err := fs.tableIndex("extended attributes'", at+header, used, uint64(ids), 16); err != nil {
		return 0, err
	}
	if start >= at {
		return 0, damaged("extended attributes at %d, after their table at %d", start, at)
	}
	return start, nil
}

// tableIndex reads the positions of the metadata blocks of a table with count
// entries of size bytes. Its index ends where the next table starts.
func (fs *squashfs) tableIndex(name string, at, next, count, size uint64) ([]uint64, error) {
	blocks := (count*size + sqfsMetaSize - 1) / sqfsMetaSize
	if blocks == 0 || at > next || blocks*8 != next-at {
		return nil, damaged("%s table: %d entries at %d, and what comes next at %d", name, count, at, next)
	}
	b := make([]byte, blocks*8)
	if _, err := fs.r.ReadAt(b, int64(at)); err != nil {
		return nil, fmt.Errorf("%s table: %w", name, err)
	}
	index := make([]uint64, blocks)
	for i := range index {
		index[i] = binary.LittleEndian.Uint64(b[i*8:])
		if index[i] >= at {
			return nil, damaged("%s table: block %d at %d, after its index at %d", name, i, index[i], at)
		}
	}
	return index, nil
}

// tableEntry returns entry i, of size bytes, of a table.
func (fs *squashfs) tableEntry(index []uint64, i, size uint64) ([]byte, error) {
	block := i * size / sqfsMetaSize
	if block >= uint64(len(index)) {
		return nil, damaged("entry %d is past the end", i)
	}
	m, err := fs.meta.get(int64(index[block]))
	if err != nil {
		return nil, err
	}
	off := i * size % sqfsMetaSize
	if off+size > uint64(len(m.data)) {
		return nil, damaged("entry %d is past the end of its block", i)
	}
	return m.data[off : off+size], nil
}

func (fs *squashfs) info() Info {
	return Info{
		Format:      Squashfs,
		Length:      int64(fs.sb.BytesUsed),
		BlockSize:   int64(fs.sb.BlockSize),
		Compression: sqfsCompressors[fs.sb.Compression],
		Inodes:      int64(fs.sb.Inodes),
		Time:        int64(fs.sb.MkfsTime),
	}
}

// sweep looks at what follows the filesystem: padding to 4 KiB, and it is zero.
func (fs *squashfs) sweep(ctx context.Context, found func(error)) error {
	pad := -int64(fs.sb.BytesUsed) & 4095
	b := make([]byte, min(pad, fs.size-int64(fs.sb.BytesUsed)))
	if _, err := fs.r.ReadAt(b, int64(fs.sb.BytesUsed)); err != nil && err != io.EOF {
		return fmt.Errorf("padding: %w", err)
	}
	for i, c := range b {
		if c != 0 {
			found(damaged("padding: byte %d is %#x, not zero", int64(fs.sb.BytesUsed)+int64(i), c))
			break
		}
	}
	return ctx.Err()
}
