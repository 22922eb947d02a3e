package squashfs

// fragment is struct squashfs_fragment_entry: a block that holds the ends of
// several files.
type fragment struct {
	start int64
	size  uint32 // with blockStored
}

// fragments packs the ends of files, in the order they come, into fragment
// blocks. That is the order of the tree, so like already lies beside like:
// sorting by kind, size or name of the file moved the size of a 2.4 GB store's
// image by less than 0.1 %, for better or worse.
//
// It belongs to the front end.
type fragments struct {
	count uint32 // of blocks queued
	block []byte // the one that is filling; nil if there is none
	next  []byte // one begun because a tail does not fit into block
	// followed is there instead of block while nothing but kept files' ends
	// came.
	followed *followed
}

// reserve returns where a tail of size bytes is to be written. It is free again
// unless keep follows.
func (w *Writer) reserve(size int) ([]byte, error) {
	fr := &w.fragments
	if fr.used() > 0 && fr.used()+size <= w.opts.BlockSize {
		if err := w.unfollow(); err != nil {
			return nil, err
		}
		return fr.block[len(fr.block):], nil
	}
	if fr.next == nil {
		b, err := w.blockBufs.get(w.ctx)
		if err != nil {
			return nil, err
		}
		fr.next = b
	}
	return fr.next, nil
}

// keep gives the tail, written to what reserve returned last, its place.
func (w *Writer) keep(tail []byte, loc *location) error {
	fr := &w.fragments
	if fr.used() == 0 || fr.used()+len(tail) > w.opts.BlockSize {
		if err := w.flushFragment(); err != nil {
			return err
		}
		fr.block, fr.next = fr.next, nil
	}
	loc.fragment, loc.offset = fr.count, uint32(len(fr.block))
	fr.block = fr.block[:len(fr.block)+len(tail)]
	return nil
}

// flushFragment queues the fragment block that is filling, if there is one.
func (w *Writer) flushFragment() error {
	fr := &w.fragments
	if f := fr.followed; f != nil && f.size == int(f.at.Length) {
		fr.followed = nil
		fr.count++
		return w.queue(keptFragment{f})
	}
	if err := w.unfollow(); err != nil || fr.block == nil {
		return err
	}
	b := fr.block
	fr.block = nil
	fr.count++
	return w.queueBlock(&block{data: b})
}
