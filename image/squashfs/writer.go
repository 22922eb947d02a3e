package squashfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/internal/filesum"
)

var _ image.Writer = (*Writer)(nil)

// Errors of a Writer that is not used as [image.Writer] asks.
var (
	ErrClosed       = errors.New("the writer is closed")
	ErrWriteTooLong = errors.New("more bytes than the file's size")
)

// maxHeld is how many bytes of a file are held back until all of it has come
// and it is known whether an identical file is in the image already. A longer
// file is written at once, and written over if it turns out to be known.
const maxHeld = 16 << 20

// maxFileBlocks bounds the whole blocks of a file, whose sizes are kept until
// its inode is written: 64 TiB in blocks of 1 MiB.
const maxFileBlocks = 1 << 26

// Writer writes one squashfs image. Data is compressed and written while
// entries are still coming; only the metadata waits for Close, in compressed
// form.
//
// What it holds in memory is a fixed number of buffers, about 51 bytes for each
// different file, 20 for each file of a unit, 8 for every inode, and the entries of the directories that
// are not finished.
type Writer struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  *errgroup.Group
	work   chan *block
	steps  chan step
	back   *backEnd

	blockBufs, outBufs *buffers
	fragments          fragments

	open   []*directory // from the root down
	inodes uint32       // numbers given
	file   *incoming    // nil unless bytes are still to come
	reuse  incoming     // what file points to
	seen   seenFiles
	hash   *filesum.Hash
	sums   image.FileSums // of the unit that is open
	err    error
	closed bool

	layout image.Layout // the counters in it are the front end's
	inUnit bool         // entries belong to the last of its units
	used   []*image.KeptUnit
}

// incoming is the regular file whose bytes are being written.
type incoming struct {
	name      string
	size      int64
	remaining int64
	at        *child
	buf       []byte   // of the block that is filling
	held      [][]byte // full blocks that wait for the file's end; nil for one of zeros
	streaming bool     // too long to be held
	loc       *location
	next      int // block index
}

// NewWriter starts an image in f, whose offset does not matter. The image is
// valid only after Close has returned nil. Ending ctx ends the writer.
func NewWriter(ctx context.Context, f File, opts Options) (*Writer, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	back, err := newBackEnd(f, opts)
	if err != nil {
		return nil, err
	}
	w := &Writer{opts: opts, back: back, hash: filesum.New()}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.group, w.ctx = errgroup.WithContext(ctx)
	back.ctx, back.out.ctx = w.ctx, w.ctx

	ahead := opts.blocksAhead()
	w.work = make(chan *block, ahead)
	w.steps = make(chan step, ahead)
	w.outBufs = newBuffers(ahead+opts.Jobs, opts.BlockSize+opts.BlockSize/8+512)
	w.blockBufs = newBuffers(maxHeld/opts.BlockSize+ahead+2, opts.BlockSize)
	back.free = func(k *block) {
		w.blockBufs.put(k.data)
		if k.out != nil {
			w.outBufs.put(k.out)
		}
	}
	for range opts.Jobs {
		w.group.Go(func() error { return w.compressBlocks(w.ctx, w.work) })
	}
	w.group.Go(func() error { return back.run(w.steps) })

	w.inodes = 1
	w.open = []*directory{{number: 1}}
	return w, nil
}

// fail keeps the first error, and the error that stopped the workers before
// one that only follows from it: that has nothing to do with the entry which
// is being written.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		if stopped := context.Cause(w.ctx); stopped != nil {
			err = stopped
		}
		w.err = err
		w.cancel(err)
	}
	return w.err
}

func (w *Writer) ready() error {
	if w.closed {
		return ErrClosed
	}
	if w.err != nil {
		return w.err
	}
	if w.file != nil {
		return w.fail(&image.EntryError{Path: w.file.name, Err: fmt.Errorf("%d bytes are missing: %w", w.file.remaining, io.ErrUnexpectedEOF)})
	}
	return nil
}

// Begin starts a unit: the data of its files is laid out together, fragment
// blocks included.
func (w *Writer) Begin(unit string) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.flushFragment(); err != nil {
		return w.fail(err)
	}
	if err := w.endUnit(); err != nil {
		return w.fail(err)
	}
	if w.inUnit = unit != ""; w.inUnit {
		w.layout.Units = append(w.layout.Units, image.Unit{Name: unit})
	}
	if !w.inUnit {
		return nil
	}
	if err := w.queue(unitStart{}); err != nil {
		return w.fail(err)
	}
	return nil
}

// endUnit keeps the sums of the unit that is open, if one is.
func (w *Writer) endUnit() error {
	if !w.inUnit {
		return nil
	}
	sums := slices.Clone(w.sums)
	w.layout.Units[len(w.layout.Units)-1].Sums = sums
	w.sums, w.inUnit = w.sums[:0], false
	return cmp.Or(w.queue(unitEnd(sums)), w.releaseUsed())
}

func (w *Writer) noteSum(sum image.FileSum) {
	if w.inUnit {
		w.sums = append(w.sums, sum)
	}
}

// Create adds an entry, as [image.Writer] says.
func (w *Writer) Create(e *store.Entry) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.create(e); err != nil {
		return w.fail(&image.EntryError{Path: e.Path, Err: err})
	}
	return nil
}

func (w *Writer) create(e *store.Entry) error {
	c, err := w.addChild(e)
	if err == nil && e.Kind == store.Regular {
		err = w.beginFile(e, c)
	}
	return err
}

// addChild makes an entry of its directory. What it returns stays where it is
// until the next entry comes.
func (w *Writer) addChild(e *store.Entry) (*child, error) {
	dir, name, err := w.enter(e.Path)
	if err != nil {
		return nil, err
	}
	if w.inodes == math.MaxUint32-1 {
		return nil, fmt.Errorf("more than %d inodes", uint32(math.MaxUint32-1))
	}
	w.inodes++
	c := child{name: strings.Clone(name), number: w.inodes, kind: e.Kind}
	switch e.Kind {
	case store.Directory:
		c.dir = &directory{path: e.Path, number: c.number, parent: dir.number}
		dir.subdirs++
		w.open = append(w.open, c.dir)
		w.layout.Dirs++
	case store.Symlink:
		if len(e.Target) == 0 || len(e.Target) > math.MaxUint16 || strings.IndexByte(e.Target, 0) >= 0 {
			return nil, fmt.Errorf("a symlink's target has 1 to %d bytes and no NUL, not %.40q", math.MaxUint16, e.Target)
		}
		c.target = strings.Clone(e.Target)
		w.layout.Symlinks++
	case store.Regular:
		if e.Size < 0 || e.Size/int64(w.opts.BlockSize) > maxFileBlocks {
			return nil, fmt.Errorf("a file has 0 to %d blocks, not %d bytes", maxFileBlocks, e.Size)
		}
		c.size, c.executable = e.Size, e.Executable
		w.layout.Files++
		w.layout.DataBytes += e.Size
	default:
		return nil, fmt.Errorf("kind %d is not one that an image can hold", e.Kind)
	}
	dir.children = append(dir.children, c)
	return &dir.children[len(dir.children)-1], nil
}

// enter finds the open directory that path's last component belongs in, and
// ends the directories that path is not below.
func (w *Writer) enter(path string) (dir *directory, name string, err error) {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	if strings.HasPrefix(path, "/") {
		return nil, "", errors.New("the path is not relative to the image's root")
	}
	if name == "" || name == "." || name == ".." || len(name) > maxNameLen || strings.IndexByte(name, 0) >= 0 {
		return nil, "", fmt.Errorf("%q is not a name of 1 to %d bytes", name, maxNameLen)
	}
	for i := len(w.open) - 1; i >= 0; i-- {
		if w.open[i].path == parent {
			return w.open[i], name, w.leave(i + 1)
		}
	}
	return nil, "", fmt.Errorf("the directory %q is not open: entries come depth first, directories before what they hold", parent)
}

// leave ends the directories deeper than depth: their inodes can be written
// once the blocks queued so far have their places.
func (w *Writer) leave(depth int) error {
	for len(w.open) > depth {
		last := len(w.open) - 1
		if err := w.queue(w.open[last]); err != nil {
			return err
		}
		w.open = w.open[:last]
	}
	return nil
}

func (w *Writer) beginFile(e *store.Entry, c *child) error {
	w.reuse = incoming{
		name: e.Path, size: e.Size, remaining: e.Size,
		at: c, held: w.reuse.held[:0], streaming: e.Size > maxHeld,
		loc: w.seen.next(),
	}
	*w.reuse.loc = location{fragment: noFragment}
	w.file = &w.reuse
	if n := e.Size / int64(w.opts.BlockSize); n > 0 {
		w.file.loc.blocks = &blockList{sizes: make([]uint32, n)}
	}
	w.countFile(e)
	if e.Size == 0 {
		return w.endFile()
	}
	return nil
}

func (w *Writer) countFile(e *store.Entry) {
	if n := len(w.layout.Units); w.inUnit {
		w.layout.Units[n-1].Files++
		w.layout.Units[n-1].Bytes += e.Size
	}
}

// Write adds bytes to the file created last.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, ErrClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	f := w.file
	if f == nil {
		return 0, w.fail(ErrWriteTooLong)
	}
	if int64(len(p)) > f.remaining {
		return 0, w.fail(&image.EntryError{Path: f.name, Err: ErrWriteTooLong})
	}
	f.remaining -= int64(len(p))
	for rest := p; len(rest) > 0; {
		n, err := w.fill(f, rest)
		if err != nil {
			return len(p) - len(rest), w.fail(&image.EntryError{Path: f.name, Err: err})
		}
		rest = rest[n:]
	}
	if f.remaining == 0 {
		if err := w.endFile(); err != nil {
			return len(p), w.fail(&image.EntryError{Path: f.name, Err: err})
		}
	}
	return len(p), nil
}

// fill copies some of p into the block or tail that is filling, and ends the
// block if that makes it whole.
func (w *Writer) fill(f *incoming, p []byte) (int, error) {
	tail := f.next == len(f.sizes())
	if f.buf == nil {
		var err error
		if tail {
			f.buf, err = w.reserve(int(f.size % int64(w.opts.BlockSize)))
		} else {
			f.buf, err = w.blockBufs.get(w.ctx)
		}
		if err != nil {
			return 0, err
		}
	}
	n := min(len(p), w.opts.BlockSize-len(f.buf))
	f.buf = append(f.buf, p[:n]...)
	if !tail && len(f.buf) == w.opts.BlockSize {
		return n, w.endBlock(f)
	}
	return n, nil
}

func (f *incoming) sizes() []uint32 {
	if f.loc.blocks == nil {
		return nil
	}
	return f.loc.blocks.sizes
}

// endBlock sends a full block on its way, or holds it back.
func (w *Writer) endBlock(f *incoming) error {
	buf, index := f.buf, f.next
	w.hash.Write(buf)
	f.buf = nil
	f.next++
	if isZero(buf) {
		f.loc.blocks.sparse += int64(len(buf))
		w.blockBufs.put(buf)
		if !f.streaming {
			f.held = append(f.held, nil)
		}
		return nil
	}
	if !f.streaming {
		f.held = append(f.held, buf)
		return nil
	}
	return w.queueBlock(&block{data: buf, file: f.loc, index: index, undone: true})
}

// endFile decides where the file lies, now that all of it is known.
func (w *Writer) endFile() error {
	f := w.file
	w.file = nil
	if f.size == 0 {
		f.at.loc = &location{fragment: noFragment}
		return nil
	}
	if f.buf != nil {
		w.hash.Write(f.buf) // the tail
	}
	key := w.hash.End(f.size)
	w.noteSum(key)
	if known := w.seen.find(key); known != nil {
		f.at.loc = known
		return w.drop(f)
	}
	f.at.loc = f.loc
	w.seen.add(key)
	w.layout.UniqueBytes += f.size
	for i, buf := range f.held {
		if buf == nil {
			continue
		}
		if err := w.queueBlock(&block{data: buf, file: f.loc, index: i}); err != nil {
			return err
		}
	}
	if f.buf == nil {
		return nil
	}
	tail := f.buf
	f.buf = nil
	return w.keep(tail, f.loc)
}

// drop frees what a file took that turned out to be known.
func (w *Writer) drop(f *incoming) error {
	for _, buf := range f.held {
		if buf != nil {
			w.blockBufs.put(buf)
		}
	}
	if f.streaming {
		w.seen.abandon()
		return w.queue(rewind{f.loc})
	}
	return nil
}

// isZero reports whether every byte of p is 0.
func isZero(p []byte) bool {
	return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

// Close ends the data, writes the tables and, last of all, the superblock. It
// does not sync the file.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	if w.ready() == nil {
		w.open[0].parent = w.inodes + 1 // the root has none: mksquashfs gives it this number
		if err := cmp.Or(w.flushFragment(), w.endUnit(), w.leave(0)); err != nil {
			w.fail(err)
		}
	}
	w.closed = true
	close(w.work)
	close(w.steps)
	if w.err != nil {
		w.cancel(w.err)
	}
	if err := w.group.Wait(); err != nil {
		w.err = err // the first one; what the front end saw may only follow from it
	}
	if w.err == nil {
		w.err = w.back.finish(w.inodes)
	}
	w.releaseAll()
	w.back.close()
	w.cancel(ErrClosed)
	return w.err
}

// Layout describes the image once Close has returned nil.
func (w *Writer) Layout() *image.Layout {
	if !w.closed || w.err != nil {
		return nil
	}
	l := w.layout
	l.Size = w.back.size
	for i := range l.Units {
		l.Units[i].Extents = w.back.units[i].extents
		l.Units[i].Data = w.back.units[i].sum
	}
	l.Metadata = w.back.metadata()
	return &l
}
