package ext4

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/internal/filesum"
)

// builder turns operations into inodes, directory entries and placed data, as
// they come. It holds, for each file: 24 bytes of inode, 12 for each extent,
// its name and 11 bytes more for the entry, and 32 for its key, 20 more in its
// unit; for each symlink its target.
type builder struct {
	opts  Options
	space space    // where data goes
	stay  *staying // which data may stay where it is; nil if none
	batch *batch

	root    inode
	inodes  list[inode] // number i is at i - firstIno
	extents list[extent]
	dirs    list[directory]
	links   list[uint32] // symlinks whose targets take a block
	names   arena
	digests digestTable
	stack   []int // open directories, as indices into dirs

	file    openFile
	content *filesum.Hash
	sums    image.FileSums // of the unit that is open
	sum     hash.Hash      // of everything that came
	scratch []byte

	layout image.Layout
	inUnit bool
	own    spans // of the unit that is open
}

// openFile is the regular file whose data comes.
type openFile struct {
	op     op
	blocks int64 // its size
	next   int64 // its block that comes next
	extent int   // its first extent
	pieces int   // how many the batch had before it, with so many bytes
	keep   int
}

func newBuilder(opts Options) (*builder, error) {
	b := &builder{opts: opts, space: &line{next: opts.dataStart}, content: filesum.New(), sum: sha256.New()}
	b.root.mode = modeDir
	b.addInode(inode{mode: modeLostFound})
	b.addDir(rootIno, rootIno)
	b.stack = []int{0}
	b.addDir(lostFoundIno, rootIno)
	b.dirs.at(0).add(&b.names, lostFoundIno, fileTypeDir, lostFound)
	return b, nil
}

func (b *builder) addInode(n inode) uint32 {
	return uint32(b.inodes.add(n)) + firstIno
}

// inodeCount is how many inodes are in use, the reserved ones included.
func (b *builder) inodeCount() int64 { return int64(firstIno - 1 + b.inodes.n) }

// inode returns the root's inode, or the one with a number from firstIno on.
func (b *builder) inode(ino uint32) *inode {
	if ino == rootIno {
		return &b.root
	}
	return b.inodes.at(int(ino - firstIno))
}

func (b *builder) addDir(ino, parent uint32) int {
	return b.dirs.add(directory{ino: ino, parent: parent})
}

// run does what a batch says, and moves the data to keep to its front.
func (b *builder) run(in *batch) error {
	b.batch = in
	b.file.pieces, b.file.keep = 0, 0
	pos := 0
	for i := range in.ops {
		o := &in.ops[i]
		var err error
		switch o.kind {
		case opUnit:
			b.unit(o.name)
		case opEntry:
			pos, err = b.create(o, pos)
		case opData:
			err = b.data(in.data[pos : pos+int(o.n)])
			pos += int(o.n)
		case opZeros:
			b.file.next += o.n
			b.content.Zeros(o.n)
			err = b.endFile()
		case opRelease:
			in.pieces = append(in.pieces, piece{release: o.release})
		case opLeave, opUnsort:
			err = b.leave(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unit ends the unit before and starts one. Data that is in none is as metadata
// is.
func (b *builder) unit(name string) {
	if !b.inUnit {
		b.layout.Metadata = append(b.layout.Metadata, b.own.extents()...)
	} else {
		last := &b.layout.Units[len(b.layout.Units)-1]
		last.Sums, last.Extents = slices.Clone(b.sums), b.own.extents()
		last.Data = last.Sums.Sum()
	}
	b.sums, b.own = b.sums[:0], b.own[:0]
	b.inUnit = name != ""
	if b.inUnit {
		b.layout.Units = append(b.layout.Units, image.Unit{Name: name})
	}
}

// create makes an entry; pos is where its data in the batch starts, and after
// it what follows does.
func (b *builder) create(o *op, pos int) (int, error) {
	if b.inodes.n >= 1<<32-1-firstIno {
		return pos, errTooManyInodes
	}
	switch o.entry {
	case store.Directory:
		b.layout.Dirs++
		b.createDir(o)
	case store.Symlink:
		b.layout.Symlinks++
		b.createSymlink(o)
	case store.Regular:
		b.createFile(o)
		if o.kept != nil {
			return pos, b.enterFile(o.kept.Sum)
		}
		return pos, b.endFile()
	}
	return pos, nil
}

func (b *builder) createDir(o *op) {
	parent := b.dirs.at(b.stack[len(b.stack)-1])
	ino := b.addInode(inode{mode: modeDir})
	b.note(o, nil)
	parent.add(&b.names, ino, fileTypeDir, o.name)
	b.stack = append(b.stack, b.addDir(ino, parent.ino))
}

func (b *builder) createSymlink(o *op) {
	at, text := b.names.alloc(len(o.target))
	copy(text, o.target)
	b.note(o, text)
	ino := b.addInode(inode{mode: modeSymlink, size: int64(len(text)), links: 1, ref: at})
	if len(text) >= fastSymlinkSize {
		b.links.add(ino)
	}
	b.enter(ino, fileTypeLink, o.name)
}

func (b *builder) enter(ino uint32, fileType byte, name string) {
	b.dirs.at(b.stack[len(b.stack)-1]).add(&b.names, ino, fileType, name)
}

// leave ends the directory that is open last.
func (b *builder) leave(o *op) error {
	dir := b.dirs.at(b.stack[len(b.stack)-1])
	b.stack = b.stack[:len(b.stack)-1]
	b.note(o, nil)
	if o.kind == opUnsort {
		if name, twice := dir.twice(&b.names); twice {
			return fmt.Errorf("%q in %q: %w", name, clip("/"+o.name), errTwice)
		}
	}
	return nil
}

func (b *builder) createFile(o *op) {
	b.layout.Files++
	b.layout.DataBytes += o.n
	if b.inUnit {
		unit := &b.layout.Units[len(b.layout.Units)-1]
		unit.Files++
		unit.Bytes += o.n
	}
	b.file = openFile{
		op: *o, blocks: ceilDiv(o.n, blockSize), extent: b.extents.n,
		pieces: len(b.batch.pieces), keep: b.batch.keep,
	}
	b.space.open(b.file.blocks)
}

// data places blocks of the open file, all but those that are zero.
func (b *builder) data(p []byte) error {
	for len(p) > 0 {
		n := 0
		for n < len(p) && bytes.Equal(p[n:n+blockSize], zeroBlock[:]) {
			n += blockSize
		}
		b.file.next += int64(n / blockSize)
		b.content.Zeros(int64(n / blockSize))
		p = p[n:]
		n = 0
		for n < len(p) && !bytes.Equal(p[n:n+blockSize], zeroBlock[:]) {
			n += blockSize
		}
		if err := b.place(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return b.endFile()
}

// place puts blocks of the open file where there is room for them.
func (b *builder) place(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	b.content.Blocks(p[:min(int64(len(p)), b.file.op.n-b.file.next*blockSize)])
	for len(p) > 0 {
		start, blocks, err := b.take(int64(len(p) / blockSize))
		if err != nil {
			return err
		}
		n := blocks * blockSize
		b.keep(start, p[:n])
		p = p[n:]
	}
	return nil
}

// take finds room for up to n blocks of the open file, and maps them there.
func (b *builder) take(n int64) (start, blocks int64, err error) {
	start, blocks, err = b.space.take(n)
	if err != nil {
		return 0, 0, fmt.Errorf("%q: %w", clip(b.file.op.name), err)
	}
	b.addExtents(b.file.extent, b.file.next, start, blocks)
	b.file.next += blocks
	return start, blocks, nil
}

// keep sends p to the image, to block start and the next.
func (b *builder) keep(start int64, p []byte) {
	in := b.batch
	to := in.data[in.keep : in.keep+len(p)]
	if &to[0] != &p[0] {
		copy(to, p)
	}
	in.keep += len(p)
	in.pieces = append(in.pieces, piece{at: start, blocks: int64(len(p) / blockSize)})
}

// takeBack takes back what was placed of the open file. What of it has been
// written will be overwritten, or be in no file.
func (b *builder) takeBack() {
	b.space.back()
	b.extents.truncate(b.file.extent)
	b.batch.pieces, b.batch.keep = b.batch.pieces[:b.file.pieces], b.file.keep
}

// endFile gives the open file an inode once all of it has come.
func (b *builder) endFile() error {
	f := &b.file
	if f.next < f.blocks {
		return nil
	}
	return b.enterFile(b.content.End(f.op.n))
}

// enterFile gives the open file an inode: that of an identical file if there
// is one.
func (b *builder) enterFile(sum image.FileSum) error {
	f := &b.file
	if f.op.n > 0 {
		b.sums = append(b.sums, sum)
	}
	key := newContentKey(sum, f.op.exec)
	ino := b.digests.find(&key)
	isNew := *ino == 0
	if isNew {
		b.layout.UniqueBytes += f.op.n
	}
	if isNew || b.inode(*ino).links == linkMax {
		if err := b.placeKept(f.op.kept, key, *ino); err != nil {
			return err
		}
		*ino = b.addInode(b.fileInode())
		b.ownFile()
	} else {
		b.takeBack()
		b.inode(*ino).links++
	}
	b.note(&f.op, key[:])
	b.enter(*ino, fileTypeReg, f.op.name)
	if b.opts.Size != 0 && b.space.end()*blockSize > b.opts.Size {
		return fmt.Errorf("%q and what came before it do not fit into the image's size of %d bytes", f.op.name, b.opts.Size)
	}
	return nil
}

// ownFile makes the blocks of the open file the unit's.
func (b *builder) ownFile() {
	for i := b.file.extent; i < b.extents.n; i++ {
		x := b.extents.at(i)
		b.own.add(x.start(), int64(x.len))
	}
}

func (b *builder) fileInode() inode {
	n := inode{mode: modeFile, size: b.file.op.n, links: 1}
	if b.file.op.exec {
		n.mode = modeExecutable
	}
	n.ref = int64(b.file.extent)
	n.extents = uint32(b.extents.n - b.file.extent)
	return n
}

// note takes an operation into the sum of everything that came. Every field
// has a length before it or a fixed one.
func (b *builder) note(o *op, content []byte) {
	if o.kind != opEntry {
		b.sum.Write([]byte{byte(opLeave)})
		return
	}
	text := append(b.scratch[:0], byte(opEntry), byte(o.entry))
	text = binary.LittleEndian.AppendUint32(text, uint32(len(o.name)))
	text = append(text, o.name...)
	text = binary.LittleEndian.AppendUint32(text, uint32(len(content)))
	text = append(text, content...)
	b.sum.Write(text)
	b.scratch = text
}
