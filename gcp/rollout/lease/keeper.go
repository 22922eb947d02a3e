package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"bigdisk/gcp/rollout/state"
)

// writePeriod is the least time between two writes of the document: Cloud
// Storage takes about one a second for one object.
const writePeriod = time.Second

// Keeper holds the lease and the document. It may be used from many goroutines.
type Keeper struct {
	store   Store
	service string
	owner   string
	ttl     time.Duration

	mu         sync.Mutex
	doc        *state.Document
	generation int64
	renewed    time.Time // when the last write that succeeded was begun
	wall       time.Time // the same by the clock on the wall, which goes on while a machine sleeps
	edits      int64     // counts Update
	durable    int64     // edits that are written
	lost       error
	waiters    []chan struct{} // closed at every write

	wake    chan struct{} // an edit waits to be written
	changed chan struct{} // a request came in
	gone    chan struct{} // closed when the lease is lost
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the writer has stopped
}

func newKeeper(store Store, service string, d *state.Document, generation int64, renewed time.Time, ttl time.Duration) *Keeper {
	return &Keeper{
		store: store, service: service, owner: d.Lease.Owner, ttl: ttl, doc: d, generation: generation, renewed: renewed, wall: renewed.Round(0),
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), gone: make(chan struct{}), ended: make(chan struct{}),
	}
}

// start runs the writer until ctx ends, Close is called or the lease is lost.
func (k *Keeper) start(ctx context.Context) {
	ctx, k.cancel = context.WithCancel(ctx)
	go func() {
		defer close(k.ended)
		k.run(ctx)
	}()
}

// run writes edits, at most one a second, and heartbeats.
func (k *Keeper) run(ctx context.Context) {
	beat := time.NewTicker(k.ttl / beatsPerTTL)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.gone:
			return
		case <-beat.C:
		case <-k.wake:
		}
		began := time.Now()
		k.write(ctx)
		if Sleep(ctx, k.pause()-time.Since(began)) != nil {
			return
		}
	}
}

// pause is the time between two writes: less than a heartbeat's.
func (k *Keeper) pause() time.Duration { return min(writePeriod, k.ttl/beatsPerTTL) }

// write writes the document with a new heartbeat. Where somebody else wrote in
// between, it takes over what they ask for and leaves the writing to the next
// turn.
func (k *Keeper) write(ctx context.Context) {
	began := time.Now()
	data, generation, edits, err := k.encode(began)
	if err != nil {
		k.lose(err)
		return
	}
	tryCtx, cancel := context.WithTimeout(ctx, k.ttl/2)
	defer cancel()
	written, err := k.store.Write(tryCtx, data, generation)
	switch {
	case err == nil:
		k.wrote(written, edits, began)
	case errors.Is(err, ErrConflict):
		k.merge(tryCtx)
		k.poke()
	case ctx.Err() == nil:
		k.expire(err)
		k.poke()
	}
}

// encode is the document as it is to be written now.
func (k *Keeper) encode(now time.Time) (data []byte, generation, edits int64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doc.Lease.Renewed = now
	k.doc.Lease.Beat++
	data, err = k.doc.Encode()
	return data, k.generation, k.edits, err
}

func (k *Keeper) wrote(generation, edits int64, began time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.generation, k.durable, k.renewed, k.wall = generation, edits, began, began.Round(0)
	for _, w := range k.waiters {
		close(w)
	}
	k.waiters = nil
}

// merge reads what somebody else wrote: a request, or their own lease. A write
// of our own whose answer was lost looks like the former.
func (k *Keeper) merge(ctx context.Context) {
	d, generation, err := Read(ctx, k.store, k.service)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			k.expire(err)
		}
		return
	}
	if d.Lease == nil || d.Lease.Owner != k.owner {
		who := "nobody"
		if d.Lease != nil {
			who = Held(d.Lease)
		}
		k.lose(fmt.Errorf("it is held by %s now", who))
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.generation = generation
	if d.Request != nil && (k.doc.Request == nil || k.doc.Request.ID != d.Request.ID) && !k.answered(d.Request.ID) {
		k.doc.Request = d.Request
		signal(k.changed)
	}
}

// answered reports whether a request was dealt with and not yet taken out of
// what is written.
func (k *Keeper) answered(id string) bool { return k.doc.Answered == id }

// expire loses the lease if it could not be renewed in time.
func (k *Keeper) expire(err error) {
	if k.Fresh() != nil {
		k.lose(fmt.Errorf("it could not be renewed: %w", err))
	}
}

func (k *Keeper) lose(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost == nil {
		k.lost = fmt.Errorf("%w: %w", ErrLost, err)
		close(k.gone)
	}
}

// Fresh returns nil as long as nobody else can have the lease: it is to be
// asked right before every change to a host. Otherwise the error wraps
// [ErrLost].
func (k *Keeper) Fresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost != nil {
		return k.lost
	}
	if age := max(time.Since(k.renewed), time.Since(k.wall)); age > k.ttl*safeQuarters/4 {
		return fmt.Errorf("%w: its last heartbeat is %s old", ErrLost, age.Round(time.Millisecond))
	}
	return nil
}

// Lost is closed when the lease is lost.
func (k *Keeper) Lost() <-chan struct{} { return k.gone }

// Changed has a value when a request came in.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Look calls f with the document, which f must neither change nor keep.
func (k *Keeper) Look(f func(*state.Document)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.doc)
}

// Update changes the document. It is written within about a second, together
// with other changes.
func (k *Keeper) Update(f func(*state.Document)) {
	k.mu.Lock()
	f(k.doc)
	k.edits++
	k.mu.Unlock()
	k.poke()
}

// Flush returns when all changes so far are written.
func (k *Keeper) Flush(ctx context.Context) error {
	k.mu.Lock()
	want := k.edits
	k.mu.Unlock()
	for {
		k.mu.Lock()
		done := k.durable >= want
		wrote := make(chan struct{})
		k.waiters = append(k.waiters, wrote)
		k.mu.Unlock()
		if done {
			return nil
		}
		k.poke()
		select {
		case <-wrote:
		case <-k.gone:
			return k.Fresh()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close stops the heartbeat, writes the document and gives the lease back, so
// that the next controller need not wait. It is fine to call it after the lease
// was lost: then it only stops.
func (k *Keeper) Close(ctx context.Context) error {
	k.cancel()
	<-k.ended
	if k.Fresh() != nil {
		return nil
	}
	for try := 0; ; try++ {
		k.mu.Lock()
		lease := k.doc.Lease
		k.doc.Lease = nil
		data, err := k.doc.Encode()
		generation := k.generation
		k.doc.Lease = lease
		k.mu.Unlock()
		if err != nil {
			return err
		}
		_, err = k.store.Write(ctx, data, generation)
		if err == nil || try == editTries {
			return err
		}
		if errors.Is(err, ErrConflict) {
			k.merge(ctx)
		}
		if k.Fresh() != nil {
			return err
		}
		if err := Sleep(ctx, editPause); err != nil {
			return err
		}
	}
}

func (k *Keeper) poke() { signal(k.wake) }

// signal puts a value into c unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Touch is Update for what people may read a little later: if f says that it
// changed something, that is written with the next heartbeat.
func (k *Keeper) Touch(f func(*state.Document) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f(k.doc) {
		k.edits++
	}
}
