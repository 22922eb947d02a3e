package pipeline

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"bigdisk/bundle/store"
)

// ahead reads the contents of many store paths before they are needed, so that
// the one who needs them, in order, one after the other, waits for none that
// could be there.
//
// Requirements. What is used comes in order, whatever the timing. One slow
// path keeps no other from being downloaded. What is in flight is bounded: paths
// by window, bytes in memory by memory, bytes on disk by spool. No order of
// arrival can block it: the path being used, the head, has memory that no
// other path may take.
//
// The scheme. One goroutine admits the paths in order, as window and spool let
// it. Openers open what is admitted, many at a time, since opening waits for
// the network. Readers take opened paths in order and turn each into batches,
// a few at a time, since reading decompresses and hashes. The user takes paths
// in order and empties their batches.
//
// Why it cannot block: paths are admitted, opened and read in order, so the
// head is admitted when nothing before it is left, and has an opener and a
// reader as soon as it is. Its reader takes from memory what is free and, once
// that is gone, from a reserve that is for the head alone. So either the reserve
// has room, or the head has batches that the user is about to empty.
type ahead struct {
	openers, readers int
	// window is the number of paths admitted and not yet used.
	window int
	// memory is in bytes, for all batches, the reserve included.
	memory int64
	// spool is in bytes, of the NARs of opened paths. A larger NAR passes alone.
	spool int64
	// size tells the length of path i's NAR in bytes.
	size func(i int) int64
	// open starts path i. What it gives is read and closed on one goroutine; a
	// *keptPath goes to its use as it is.
	open func(ctx context.Context, i int) (store.Contents, error)
	// blame says of an error in opening or reading that it is about path i.
	blame func(i int, err error) error
}

// item is one path on its way from admission to use.
type item struct {
	index  int
	size   int64
	opened chan opened // gets exactly one value once the item is admitted
	// batches is closed after the last one.
	batches chan *batch
	// waits ends when the item becomes the head.
	waits context.Context
	head  context.CancelFunc
}

type opened struct {
	contents store.Contents
	err      error
}

// aheadRun is the state of one each.
type aheadRun struct {
	*ahead
	ctx     context.Context
	fail    context.CancelCauseFunc
	spooled *semaphore.Weighted
	shared  *semaphore.Weighted
	reserve *semaphore.Weighted
	opening chan struct{}
	toRead  chan *item
	toUse   chan *item
	running sync.WaitGroup
}

// queuedBatches is how many batches of one path may wait for their use.
const queuedBatches = 64

// each calls use with the contents of path 0 to n-1, in order, on one
// goroutine. What use leaves unread is read and checked all the same. The
// first error of any path ends it all, and is returned once everything that
// was started has ended. One of use is returned as it is.
func (a *ahead) each(ctx context.Context, n int, use func(i int, c store.Contents) error) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	reserve := max(a.memory/4, 2*batchSize)
	r := &aheadRun{
		ahead:   a,
		ctx:     ctx,
		fail:    fail,
		spooled: semaphore.NewWeighted(a.spool),
		shared:  semaphore.NewWeighted(max(a.memory-reserve, 2*batchSize)),
		reserve: semaphore.NewWeighted(reserve),
		opening: make(chan struct{}, a.openers),
		toRead:  make(chan *item, a.window),
		toUse:   make(chan *item, a.window),
	}
	r.running.Go(func() { r.admit(n) })
	for range a.readers {
		r.running.Go(r.readAll)
	}
	r.useAll(use)
	r.running.Wait()
	return context.Cause(ctx)
}

// admit lets the paths in, in order, and sees that each is opened.
func (r *aheadRun) admit(n int) {
	defer close(r.toUse)
	defer close(r.toRead)
	for i := range n {
		it := &item{index: i, size: r.size(i), opened: make(chan opened, 1), batches: make(chan *batch, queuedBatches)}
		it.waits, it.head = context.WithCancel(r.ctx)
		select {
		case r.toUse <- it:
		case <-r.ctx.Done():
			it.head()
			return
		}
		if r.spooled.Acquire(r.ctx, r.spoolCost(it)) != nil {
			return
		}
		select {
		case r.opening <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		r.running.Go(func() {
			c, err := r.open(r.ctx, i)
			it.opened <- opened{c, err}
			<-r.opening
		})
		r.toRead <- it // readers take what is there even after a failure
	}
}

func (r *aheadRun) spoolCost(it *item) int64 { return max(0, min(it.size, r.ahead.spool)) }

// readAll reads paths until none is left. After a failure it only closes them.
func (r *aheadRun) readAll() {
	for it := range r.toRead {
		o := <-it.opened
		err := o.err
		if err == nil {
			err = errors.Join(r.read(it, o.contents), o.contents.Close())
		}
		if err != nil {
			r.failed(r.blame(it.index, err))
		}
		r.spooled.Release(r.spoolCost(it))
		close(it.batches)
	}
}

// read turns the contents of a path into batches.
func (r *aheadRun) read(it *item, c store.Contents) error {
	if k, ok := c.(*keptPath); ok {
		it.batches <- &batch{kept: k} // the first: there is room
		return nil
	}
	left := it.size
	f := filler{contents: c}
	for r.ctx.Err() == nil {
		b := &batch{size: batchCapacity(left)}
		if err := r.acquire(it, b); err != nil {
			return err
		}
		last, err := f.fill(b)
		if err != nil {
			return err
		}
		left -= int64(b.used)
		select {
		case it.batches <- b:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		if last {
			return nil
		}
	}
	return r.ctx.Err()
}

// acquire waits until the batch's memory may be taken: from what all share or,
// when the path is the head, from the reserve.
func (r *aheadRun) acquire(it *item, b *batch) error {
	n := int64(b.size)
	if r.shared.TryAcquire(n) || r.shared.Acquire(it.waits, n) == nil {
		b.release = func() { r.shared.Release(n) }
		return nil
	}
	if err := r.reserve.Acquire(r.ctx, n); err != nil {
		return err
	}
	b.release = func() { r.reserve.Release(n) }
	return nil
}

// failed ends it all unless err is nil. After a failure others only follow.
func (r *aheadRun) failed(err error) {
	if err != nil && r.ctx.Err() == nil {
		r.fail(err)
	}
}

// useAll makes the paths the head in turn. After a failure nothing is used.
func (r *aheadRun) useAll(use func(i int, c store.Contents) error) {
	for it := range r.toUse {
		it.head()
		if r.ctx.Err() != nil {
			continue
		}
		r.failed(r.use(it, use))
	}
}

func (r *aheadRun) use(it *item, use func(i int, c store.Contents) error) error {
	s := &stream{ctx: r.ctx, batches: it.batches}
	if err := s.more(); err != nil && err != io.EOF {
		return err
	}
	if s.now != nil && s.now.kept != nil {
		return use(it.index, s.now.kept)
	}
	if err := use(it.index, s); err != nil {
		return err
	}
	return s.drain()
}
