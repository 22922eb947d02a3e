package squashfs

// How blocks get onto the disk.
//
// What is asked of it: the bytes are those that one thread would write; the
// blocks of a file follow each other; workers only compress, they neither read
// nor write files; memory is bounded by a number of buffers.
//
// The front end (the caller's goroutine, in writer.go) cuts files into blocks
// and decides which are needed. Whatever has to happen in order is a step: the
// front end queues steps, the back end performs them one by one. A block is
// handed to the workers when it is queued, and its step waits until one of
// them is done with it. A full queue, or no free buffer, makes the front end
// wait.

import "context"

// step is something the back end does in its turn.
type step interface {
	commit(b *backEnd) error
}

// block is a data block or a fragment block on its way.
type block struct {
	data  []byte // before compression, in a buffer of the pool
	out   []byte // after compression, in a buffer of the pool; nil: as it is
	err   error
	ready chan struct{} // closed once out and err are set

	// Where the result is noted: block index of file, or, if file is nil,
	// fragment block index.
	file  *location
	index int
	// undone is set if all of the file's blocks may be taken back.
	undone bool
}

// commit writes the block and notes where it went.
func (k *block) commit(b *backEnd) error {
	select {
	case <-k.ready:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	if k.err != nil {
		return k.err
	}
	data, size := k.out, uint32(len(k.out))
	if data == nil {
		data, size = k.data, uint32(len(k.data))|blockStored
	}
	if k.undone && !k.file.blocks.written {
		if err := b.out.endCopy(); err != nil {
			return err
		}
		b.out.mark()
	}
	start := b.out.pos
	if err := b.out.write(data); err != nil {
		return err
	}
	if k.file == nil {
		b.fragments = append(b.fragments, fragment{start, size})
	} else {
		k.file.noteBlock(k.index, start, size)
	}
	b.free(k)
	return nil
}

// buffers is a bounded pool of byte slices of one capacity.
type buffers struct {
	size  int
	slots chan []byte // nil entries are buffers not made yet
}

func newBuffers(n, size int) *buffers {
	p := &buffers{size: size, slots: make(chan []byte, n)}
	for range n {
		p.slots <- nil
	}
	return p
}

// get waits for a buffer. It is empty.
func (p *buffers) get(ctx context.Context) ([]byte, error) {
	select {
	case b := <-p.slots:
		if b == nil {
			b = make([]byte, 0, p.size)
		}
		return b[:0], nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *buffers) put(b []byte) { p.slots <- b[:0] }

// compressBlocks is a worker: it compresses what it is sent until there is no
// more, or ctx ends.
func (w *Writer) compressBlocks(ctx context.Context, work <-chan *block) error {
	comp, err := w.opts.Compression.newCompressor(w.opts.BlockSize)
	if err != nil {
		return err
	}
	for {
		var k *block
		select {
		case next, ok := <-work:
			if !ok {
				return nil
			}
			k = next
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		buf, err := w.outBufs.get(ctx)
		if err != nil {
			return err
		}
		if k.out, k.err = comp.compress(buf, k.data); k.out == nil {
			w.outBufs.put(buf)
		}
		close(k.ready)
	}
}

// queue adds a step for the back end.
func (w *Writer) queue(s step) error {
	select {
	case w.steps <- s:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// queueBlock adds a block for the workers, and the step that writes it.
func (w *Writer) queueBlock(k *block) error {
	k.ready = make(chan struct{})
	if err := w.queue(k); err != nil {
		return err
	}
	select {
	case w.work <- k:
		return nil
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}
