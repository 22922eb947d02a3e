package ext4

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// directory is a directory's inode number, its parent's, and its names, which
// are chained through an arena that only ever grows at its end, however many
// directories are open at a time.
type directory struct {
	last    int64 // the name that came last: its place in the arena + 1; 0 is none
	ino     uint32
	parent  uint32
	entries uint32
	subdirs uint32
}

// A name in the arena: inode number (4 bytes), file type, length, the
// directory's last before it (5 bytes), and the name's bytes.
const nameHeader = 11

func (d *directory) add(a *arena, ino uint32, fileType byte, name string) {
	at, b := a.alloc(nameHeader + len(name))
	binary.LittleEndian.PutUint32(b, ino)
	b[4], b[5] = fileType, byte(len(name))
	binary.LittleEndian.PutUint32(b[6:], uint32(d.last))
	b[10] = byte(d.last >> 32)
	copy(b[nameHeader:], name)
	d.last = at + 1
	d.entries++
	if fileType == fileTypeDir {
		d.subdirs++
	}
}

// named is one name of a directory.
type named struct {
	hash, minor uint32 // when the directory has an index
	at          int64  // in the arena
}

func (n named) name(a *arena) []byte {
	b := a.from(n.at)
	return b[nameHeader : nameHeader+int(b[5])]
}

// list appends the directory's names to into, the last first, and returns
// with them how many bytes their entries take.
func (d *directory) list(a *arena, into []named) ([]named, int64) {
	bytes := int64(0)
	for at := d.last; at != 0; {
		b := a.from(at - 1)
		into = append(into, named{at: at - 1})
		bytes += int64(direntSize(int(b[5])))
		at = int64(binary.LittleEndian.Uint32(b[6:])) | int64(b[10])<<32
	}
	return into, bytes
}

// twice returns a name that the directory has more than once.
func (d *directory) twice(a *arena) (string, bool) {
	names, _ := d.list(a, nil)
	sortNames(a, names)
	for i := 1; i < len(names); i++ {
		if name := names[i].name(a); string(name) == string(names[i-1].name(a)) {
			return string(name), true
		}
	}
	return "", false
}

func sortNames(a *arena, names []named) {
	slices.SortFunc(names, func(x, y named) int {
		return slices.Compare(x.name(a), y.name(a))
	})
}

// sortHashes orders names as an index does; what is equal in it, by name.
func sortHashes(a *arena, names []named) {
	slices.SortFunc(names, func(x, y named) int {
		if c := cmp.Compare(x.hash, y.hash); c != 0 {
			return c
		}
		if c := cmp.Compare(x.minor, y.minor); c != 0 {
			return c
		}
		return slices.Compare(x.name(a), y.name(a))
	})
}

// links is a directory's link count: its name, its "." and its
// subdirectories' "..".
func (d *directory) links() uint16 {
	if d.subdirs > linkMax-2 {
		return 1
	}
	return uint16(2 + d.subdirs)
}

// direntSize is rec_len of an entry whose name has n bytes.
func direntSize(n int) int { return (direntHeader + n + 3) &^ 3 }

// direntWriter fills one directory block with entries.
type direntWriter struct {
	block []byte // all of it, zero
	used  int
	last  int // where the last entry starts
}

func (w *direntWriter) add(ino uint32, fileType byte, name []byte) {
	b := w.block[w.used:]
	size := direntSize(len(name))
	binary.LittleEndian.PutUint32(b, ino)
	binary.LittleEndian.PutUint16(b[4:], uint16(size))
	b[6], b[7] = byte(len(name)), fileType
	copy(b[direntHeader:], name)
	w.last = w.used
	w.used += size
}

func (w *direntWriter) addNamed(a *arena, n named) {
	w.add(binary.LittleEndian.Uint32(a.from(n.at)), a.from(n.at)[4], n.name(a))
}

// end stretches the last entry up to the tail, and writes the tail with the
// block's checksum. seed is the directory's inode's.
func (w *direntWriter) end(seed uint32) {
	le := binary.LittleEndian
	le.PutUint16(w.block[w.last+4:], uint16(dirBlockRoom-w.last))
	tail := w.block[dirBlockRoom:]
	le.PutUint16(tail[4:], direntTail)
	tail[7] = direntTailFT
	le.PutUint32(tail[8:], crc32c(seed, w.block[:dirBlockRoom]))
}

// directories writes every directory, and gives each inode its extents. names
// is kept from one to the next.
func (f *finisher) directories() error {
	var names []named
	for i := range f.b.dirs.n {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		d := f.b.dirs.at(i)
		var bytes int64
		names, bytes = d.list(&f.b.names, names[:0])
		f.meta.runs = f.meta.runs[:0]
		var err error
		if bytes+dotEntriesLen <= dirBlockRoom {
			f.smallDirectory(d, names)
		} else {
			err = f.indexedDirectory(d, names)
		}
		if err == nil {
			err = f.meta.err
		}
		if err != nil {
			return err
		}
		n := f.b.inode(d.ino)
		n.size = f.placeBlocks(n) * blockSize
	}
	return nil
}

// placeBlocks gives a directory or symlink the blocks that were just written.
func (f *finisher) placeBlocks(n *inode) (blocks int64) {
	n.ref = int64(f.b.extents.n)
	for _, r := range f.meta.runs {
		f.b.addExtents(int(n.ref), blocks, r.start, r.blocks())
		f.metaBlocks.add(r.start, r.blocks())
		blocks += r.blocks()
	}
	n.extents = uint32(f.b.extents.n - int(n.ref))
	return blocks
}

// symlinks writes the targets that do not fit into their inodes, a block each.
// They are not among the data, since no file's sum covers them.
func (f *finisher) symlinks() error {
	for i := range f.b.links.n {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		n := f.b.inode(*f.b.links.at(i))
		f.meta.runs = f.meta.runs[:0]
		copy(f.meta.block(), f.b.names.from(n.ref)[:n.size])
		if err := f.meta.err; err != nil {
			return err
		}
		f.placeBlocks(n)
	}
	return nil
}

// smallDirectory writes a directory that fits into a block, in the names'
// order.
func (f *finisher) smallDirectory(d *directory, names []named) {
	sortNames(&f.b.names, names)
	w := direntWriter{block: f.meta.block()}
	w.add(d.ino, fileTypeDir, []byte("."))
	w.add(d.parent, fileTypeDir, []byte(".."))
	for _, n := range names {
		w.addNamed(&f.b.names, n)
	}
	w.end(inodeSeed(f.seed, d.ino))
}
