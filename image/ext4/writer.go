package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// File is where an image goes; an [*os.File] opened for writing will do. What
// Truncate makes longer must read as zeros.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Writer writes an ext4 image. It implements [image.KeptWriter].
//
// The caller's goroutine checks entries and gathers them into batches; a
// second one hashes, places and numbers them, in the order in which they
// came; a third writes. So what comes out depends on the entries and options
// alone.
type Writer struct {
	file   File
	opts   Options
	ctx    context.Context // of the whole work
	cancel context.CancelFunc
	failed <-chan struct{} // closed once a stage has failed, or ctx has ended
	group  *errgroup.Group
	build  *builder // the builder stage's until wait has returned
	batch  *batch
	work   chan *batch // to the builder
	free   chan *batch // from the disk

	stack   []level // the directories that are open; the root first
	current string  // path of the regular file being written
	size    int64   // its size
	left    int64   // its bytes still to come
	ending  bool    // the stages have been told to end

	used     []*image.KeptUnit // by the unit that is open
	releases []*release        // of the units before

	closed bool
	err    error
	layout *image.Layout
	update *Update // of the image that is changed in place; else nil
}

var _ image.KeptWriter = (*Writer)(nil)

// level is a directory that may still get entries.
type level struct {
	path     string
	last     string // the name that came last
	unsorted bool   // a name came after a greater one
}

var errClosed = errors.New("the ext4 image is closed")

// NewWriter starts an image in f, which it empties. The image is whole after
// Close and not before: its superblock is written last. Close must be called,
// whatever happens; ctx ends the work early.
func NewWriter(ctx context.Context, f File, opts Options) (*Writer, error) {
	opts, err := opts.check()
	if err != nil {
		return nil, err
	}
	build, err := newBuilder(opts)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("emptying the image file: %w", err)
	}
	return newWriter(ctx, f, opts, build), nil
}

// newWriter starts the stages.
func newWriter(ctx context.Context, f File, opts Options, build *builder) *Writer {
	ctx, cancel := context.WithCancel(ctx)
	group, stages := errgroup.WithContext(ctx)
	w := &Writer{
		file: f, opts: opts, ctx: ctx, cancel: cancel, group: group, failed: stages.Done(),
		build: build,
		batch: newBatch(),
		work:  make(chan *batch, 1),
		free:  make(chan *batch, batchCount),
		stack: []level{{}},
	}
	for range batchCount - 1 {
		w.free <- newBatch()
	}
	disk := make(chan *batch, 1)
	group.Go(func() error { return w.buildBatches(disk) })
	group.Go(func() error { return w.writeBatches(stages, disk) })
	return w
}

// buildBatches is the second stage.
func (w *Writer) buildBatches(disk chan<- *batch) error {
	defer close(disk)
	for {
		var b *batch
		select {
		case b = <-w.work:
		case <-w.failed:
			return w.ctx.Err()
		}
		if b == nil {
			return nil
		}
		if err := w.build.run(b); err != nil {
			return err
		}
		select {
		case disk <- b:
		case <-w.failed:
			return w.ctx.Err()
		}
	}
}

// writeBatches is the third stage.
func (w *Writer) writeBatches(ctx context.Context, disk <-chan *batch) error {
	out := dataWriter{ctx: ctx, file: w.file}
	for b := range disk {
		if err := out.write(b); err != nil {
			return err
		}
		b.reset()
		w.free <- b
	}
	return out.endCopy()
}

// Begin starts a unit of layout; see [image.Writer].
func (w *Writer) Begin(unit string) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.releaseUsed(); err != nil {
		return w.fail(err)
	}
	return w.fail(w.add(op{kind: opUnit, name: unit}))
}

// Create adds an entry; see [image.Writer]. A name that comes twice in a
// directory is found here when the names come in byte order, and else when
// the directory is left. "lost+found" in the root is the filesystem's own.
func (w *Writer) Create(e *store.Entry) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.create(e); err != nil {
		return w.fail(w.about(e.Path, err))
	}
	return nil
}

func (w *Writer) create(e *store.Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	name, err := w.enter(e.Path)
	if err != nil {
		return err
	}
	entry := op{kind: opEntry, entry: e.Kind, exec: e.Executable, name: name, target: e.Target}
	switch e.Kind {
	case store.Directory:
		w.stack = append(w.stack, level{path: e.Path})
	case store.Regular:
		entry.n = e.Size
		w.current, w.size, w.left = e.Path, e.Size, e.Size
	}
	return w.add(entry)
}

// enter leaves directories until the one that path is in is the last, and
// returns the name in it.
func (w *Writer) enter(path string) (string, error) {
	slash := strings.LastIndexByte(path, '/')
	parent, name := path[:max(slash, 0)], path[slash+1:]
	if err := checkName(name); err != nil {
		return "", err
	}
	if slash == 0 {
		return "", errors.New("the path is not relative")
	}
	if parent == "" && name == lostFound {
		return "", errors.New("the name belongs to the filesystem's own directory")
	}
	for len(w.stack) > 1 && w.stack[len(w.stack)-1].path != parent {
		if err := w.leave(); err != nil {
			return "", err
		}
	}
	top := &w.stack[len(w.stack)-1]
	if top.path != parent {
		return "", errors.New("the directory it is in has not come yet, or has been left")
	}
	if name == top.last {
		return "", errTwice
	}
	top.unsorted = top.unsorted || name < top.last
	top.last = name
	return name, nil
}

// leave ends the directory that is open last.
func (w *Writer) leave() error {
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	kind := opLeave
	if top.unsorted {
		kind = opUnsort
	}
	return w.add(op{kind: kind, name: top.path})
}

// Write adds bytes to the regular file created last; see [image.Writer].
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.room(int64(len(p))); err != nil {
		return 0, err
	}
	return w.write(p)
}

func (w *Writer) write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if w.batch.full() {
			if err := w.flush(); err != nil {
				return done, w.fail(err)
			}
		}
		n := w.batch.addData(p[done:])
		done += n
		w.left -= int64(n)
	}
	if w.left == 0 {
		w.batch.pad()
	}
	return done, nil
}

// WriteZeros adds n zero bytes to the regular file created last, like Write
// but in no time: whole blocks of them become a hole.
func (w *Writer) WriteZeros(n int64) error {
	if err := w.room(n); err != nil {
		return err
	}
	head := min(n, int64(-len(w.batch.data)&(blockSize-1)))
	if _, err := w.write(zeroBlock[:head]); err != nil {
		return err
	}
	n -= head
	if blocks := n / blockSize; blocks > 0 {
		if err := w.add(op{kind: opZeros, n: blocks}); err != nil {
			return w.fail(err)
		}
		w.left -= blocks * blockSize
	}
	_, err := w.write(zeroBlock[:n%blockSize])
	return err
}

// room checks that n more bytes may be written.
func (w *Writer) room(n int64) error {
	switch {
	case w.err != nil:
		return w.err
	case w.closed:
		return errClosed
	case n < 0 || n > w.left:
		return w.fail(&image.EntryError{Path: clip(w.current), Err: fmt.Errorf("more than the %d bytes of its size", w.size)})
	}
	return nil
}

// ready checks that the file created last is whole.
func (w *Writer) ready() error {
	switch {
	case w.err != nil:
		return w.err
	case w.closed:
		return errClosed
	case w.left > 0:
		return w.fail(&image.EntryError{Path: clip(w.current), Err: fmt.Errorf("%d of %d bytes: %w", w.size-w.left, w.size, io.ErrUnexpectedEOF)})
	}
	return nil
}

// add puts an operation into the batch.
func (w *Writer) add(o op) error {
	if len(w.batch.ops) >= batchOps {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.batch.ops = append(w.batch.ops, o)
	return nil
}

// flush sends the batch on and takes an empty one.
func (w *Writer) flush() error {
	select {
	case w.work <- w.batch:
	case <-w.failed:
		return w.wait()
	}
	select {
	case w.batch = <-w.free:
		return nil
	case <-w.failed:
		return w.wait()
	}
}

// wait ends the stages once they have done what they were sent, and returns
// the first failure.
func (w *Writer) wait() error {
	if !w.ending {
		w.ending = true
		close(w.work)
	}
	if err := w.group.Wait(); err != nil {
		return err
	}
	return w.ctx.Err()
}

// about says that err is about the entry at path, unless a stage has failed:
// that has nothing to do with the entry which is being written.
func (w *Writer) about(path string, err error) error {
	select {
	case <-w.failed:
		if stopped := w.wait(); stopped != nil {
			return stopped
		}
	default:
	}
	return &image.EntryError{Path: clip(path), Err: err}
}

// fail keeps the first failure.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// Close finishes the image; see [image.Writer]. A second call returns what
// the first one did.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	w.fail(w.ready())
	w.closed = true
	if w.err == nil {
		w.fail(w.end())
	}
	if w.err != nil {
		w.cancel()
	}
	w.fail(w.wait())
	w.releaseAll()
	w.batch, w.free = nil, nil
	if w.err == nil {
		w.fail(w.finish())
	}
	w.cancel()
	w.build = nil
	return w.err
}

// end leaves every directory and sends the last batch.
func (w *Writer) end() error {
	for len(w.stack) > 0 {
		if err := w.leave(); err != nil {
			return err
		}
	}
	select {
	case w.work <- w.batch:
	case <-w.failed:
	}
	return nil
}

// Layout describes the finished image; nil before a successful Close.
func (w *Writer) Layout() *image.Layout { return w.layout }
