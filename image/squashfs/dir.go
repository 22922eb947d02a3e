package squashfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"bigdisk/bundle/store"
)

// directory is a directory whose entries are still coming, or whose files are
// still on their way to the disk. Once written, only number and ref matter.
type directory struct {
	path     string // in the image; "" is the root
	children []child
	number   uint32 // of its inode
	parent   uint32 // its parent's
	subdirs  uint32
	ref      ref // of its inode, once written
}

// child is one name in a directory.
type child struct {
	name       string
	number     uint32
	kind       store.Kind
	executable bool
	size       int64      // Regular
	loc        *location  // Regular
	dir        *directory // Directory
	target     string     // Symlink
}

// commit writes the inodes of the directory's files, its listing and its own
// inode. Everything below it has been written before.
func (d *directory) commit(b *backEnd) error {
	slices.SortFunc(d.children, func(x, y child) int { return cmp.Compare(x.name, y.name) })
	for i := range d.children {
		if i > 0 && d.children[i].name == d.children[i-1].name {
			return fmt.Errorf("%s: the name %q is there twice", d.shown(), d.children[i].name)
		}
	}
	refs := make([]ref, len(d.children))
	for i := range d.children {
		switch c := &d.children[i]; c.kind {
		case store.Directory:
			refs[i] = c.dir.ref
		case store.Symlink:
			refs[i] = b.inodes.addSymlink(c, b.gidIndex)
		default:
			refs[i] = b.inodes.addFile(c, b.gidIndex)
		}
	}
	l, err := b.listings.add(d, refs)
	if err != nil {
		return err
	}
	d.ref = b.inodes.addDir(d, l, b.gidIndex)
	d.children = nil
	return cmp.Or(b.inodes.meta.err, b.listings.meta.err)
}

func (d *directory) shown() string { return "/" + d.path }

// dirTable writes directory listings.
type dirTable struct {
	meta *metaWriter
	buf  []byte
}

// listing is where one directory's listing lies, and the index into it.
type listing struct {
	block  int64 // of its first metadata block in the directory table
	offset int   // in that block
	size   int64 // bytes
	index  []indexEntry
}

// indexEntry is struct squashfs_dir_index: where in the listing a header lies
// that the kernel may jump to, and the first name after it.
type indexEntry struct {
	at    uint32 // from the listing's first byte
	block uint32 // metadata block that holds it
	name  string
}

func (x *indexEntry) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, x.at)
	b = le.AppendUint32(b, x.block)
	b = le.AppendUint32(b, uint32(len(x.name)-1))
	return append(b, x.name...)
}

// add writes the listing of d, whose children are sorted and have their inodes
// at refs. A listing is runs of entries (struct squashfs_dir_entry), each run
// behind a header (struct squashfs_dir_header) that says where their inodes
// lie and which number theirs count from.
func (t *dirTable) add(d *directory, refs []ref) (*listing, error) {
	l := &listing{}
	l.block, l.offset = t.meta.pos()
	every := indexEvery(d.children)
	lastIndexed := l.block
	blocksSince := 0
	for from := 0; from < len(d.children); {
		block, _ := t.meta.pos()
		if block != lastIndexed {
			lastIndexed = block
			if blocksSince++; blocksSince >= every {
				blocksSince = 0
				l.index = append(l.index, indexEntry{uint32(l.size), uint32(block), d.children[from].name})
			}
		}
		n := t.addRun(d.children[from:], refs[from:])
		l.size += n.bytes
		from += n.entries
		if l.size > math.MaxUint32-3 {
			return nil, fmt.Errorf("%s: its listing is over 4 GiB", d.shown())
		}
	}
	if len(l.index) > math.MaxUint16 {
		return nil, fmt.Errorf("%s: its index has over %d entries", d.shown(), math.MaxUint16)
	}
	return l, nil
}

type run struct {
	entries int
	bytes   int64
}

// addRun writes one header and the entries that can stand behind it: at most
// 256, with inodes in one metadata block and near numbers, and none that
// begins in a metadata block after the header's.
func (t *dirTable) addRun(children []child, refs []ref) run {
	const headerLen, entryLen = 12, 8
	le := binary.LittleEndian
	_, room := t.meta.pos()
	room = metadataSize - room
	base := children[0].number
	n, size := 0, headerLen
	for n < len(children) && n < maxDirHeader {
		delta := int64(children[n].number) - int64(base)
		if refs[n].block() != refs[0].block() || delta < math.MinInt16 || delta > math.MaxInt16 {
			break
		}
		if n > 0 && size >= room {
			break
		}
		size += entryLen + len(children[n].name)
		n++
	}
	b := t.buf[:0]
	b = le.AppendUint32(b, uint32(n-1))
	b = le.AppendUint32(b, refs[0].block())
	b = le.AppendUint32(b, base)
	for i := range n {
		c := &children[i]
		b = le.AppendUint16(b, refs[i].offset())
		b = le.AppendUint16(b, uint16(int16(int64(c.number)-int64(base))))
		b = le.AppendUint16(b, entryType(c.kind))
		b = le.AppendUint16(b, uint16(len(c.name)-1))
		b = append(b, c.name...)
	}
	t.meta.write(b)
	t.buf = b
	return run{n, int64(len(b))}
}

// indexEvery returns how many metadata blocks of a listing one index entry
// should cover. The kernel looks a name up by reading the index from its start
// and then the listing from the place found; for a listing of b blocks both
// together are shortest when the index has about the square root of b blocks'
// worth of entries left to read.
func indexEvery(children []child) int {
	var size float64
	for i := range children {
		size += float64(8 + len(children[i].name))
	}
	if len(children) == 0 {
		return 1
	}
	blocks := size / metadataSize
	entry := 12 + size/float64(len(children)) - 8 // bytes of one index entry
	return max(1, int(math.Sqrt(blocks*entry/metadataSize)))
}
