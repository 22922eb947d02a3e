package pipeline

import (
	"fmt"
	"io"
	"sync"

	"bigdisk/bundle/store"
)

// batchSize is the memory of a full batch in bytes, and leastBatch that of the
// smallest: a tiny path must not hold a full one.
const (
	batchSize  = 256 << 10
	leastBatch = 1 << 10
)

// entryCost is what an entry takes in memory besides its strings, in bytes.
const entryCost = 128

// batch is a piece of a path's contents in memory: the rest of a file that an
// earlier batch started, then whole entries, each file's data after the one
// before it. The last file may go on in the next batch.
type batch struct {
	size    int // bytes of memory, for entries and data together
	used    int // bytes of it taken
	entries []store.Entry
	data    []byte
	unread  []byte // what is left of data
	release func() // gives the memory back
	// kept is set in the only batch of a path that is not read.
	kept *keptPath
}

// batchCapacity is the size of the batch that suits left more bytes of NAR: a
// NAR spends more bytes on an entry than a batch does, but for short ones.
func batchCapacity(left int64) int {
	return int(min(max(2*left, leastBatch), batchSize))
}

// fullBatches recycles the data of full batches. How many there are at a time
// is up to who admits them.
var fullBatches = sync.Pool{New: func() any { return new([batchSize]byte) }}

// next returns the next entry, nil after the last.
func (b *batch) next() *store.Entry {
	if len(b.entries) == 0 {
		return nil
	}
	e := &b.entries[0]
	b.entries = b.entries[1:]
	return e
}

// free gives back data and memory. The batch must not be used after.
func (b *batch) free() {
	if cap(b.data) == batchSize {
		fullBatches.Put((*[batchSize]byte)(b.data[:batchSize]))
	}
	b.data, b.unread, b.entries = nil, nil, nil
	if b.release != nil {
		b.release()
	}
}

// room is how many more bytes the batch takes.
func (b *batch) room() int { return b.size - b.used }

// filler cuts contents into batches.
type filler struct {
	contents store.Contents
	ahead    *store.Entry // an entry that did not fit
	left     int64        // bytes of the current file still to come
}

// fill fills b and reports whether the contents ended, whole.
func (f *filler) fill(b *batch) (last bool, err error) {
	if b.size == batchSize {
		b.data = fullBatches.Get().(*[batchSize]byte)[:0]
	} else {
		b.data = make([]byte, 0, b.size)
	}
	for err == nil && b.room() > 0 {
		if f.left > 0 {
			err = f.readData(b)
			continue
		}
		var fits bool
		if fits, err = f.addEntry(b); err == nil && !fits {
			break
		}
	}
	b.unread = b.data
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// addEntry adds the next entry, if it fits; io.EOF means that there is none.
func (f *filler) addEntry(b *batch) (bool, error) {
	if f.ahead == nil {
		e, err := f.contents.Next()
		if err != nil {
			return false, err
		}
		if e.Size < 0 || e.Kind != store.Regular && e.Size > 0 {
			return false, fmt.Errorf("%s: a %s of %d bytes", e.Path, e.Kind, e.Size)
		}
		kept := *e
		f.ahead = &kept
	}
	cost := entryCost + len(f.ahead.Path) + len(f.ahead.Target)
	if cost > b.room() && b.used > 0 {
		return false, nil
	}
	b.entries = append(b.entries, *f.ahead)
	b.used += cost
	f.left = f.ahead.Size
	f.ahead = nil
	return true, nil
}

// readData reads once into what is left of the batch.
func (f *filler) readData(b *batch) error {
	at := len(b.data)
	n, err := f.contents.Read(b.data[at : at+int(min(f.left, int64(b.room())))])
	b.data = b.data[:at+n]
	b.used += n
	f.left -= int64(n)
	if err == io.EOF {
		err = nil
		if f.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}
