package squashfs

// Files that an earlier image holds.
//
// What a file contributes to an image depends on the options and its bytes
// alone, but for two things: whether an identical file is in the image
// already, and which other ends of files share its fragment block. The first
// is asked anew for each file. For the second, a fragment block is followed as
// long as the ends come that are in it, in its order; if exactly these came
// when it is full, its bytes are taken as they are. Otherwise its parts are
// unpacked, and packed again with what came.

import (
	"fmt"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

var _ image.KeptWriter = (*Writer)(nil)

// CreateKept adds a regular file that an earlier image holds, as
// [image.KeptWriter] says.
func (w *Writer) CreateKept(e *store.Entry, k *image.Kept) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.createKept(e, k); err != nil {
		return w.fail(&image.EntryError{Path: e.Path, Err: err})
	}
	return nil
}

func (w *Writer) createKept(e *store.Entry, k *image.Kept) error {
	blocks, tail := e.Size/int64(w.opts.BlockSize), int(e.Size%int64(w.opts.BlockSize))
	if e.Kind != store.Regular || e.Size == 0 || int64(len(k.Place.Blocks)) != blocks || (k.Place.Tail != nil) != (tail > 0) {
		return fmt.Errorf("a %s of %d bytes is not %d blocks in an earlier image", e.Kind, e.Size, len(k.Place.Blocks))
	}
	c, err := w.addChild(e)
	if err != nil {
		return err
	}
	w.countFile(e)
	w.noteSum(k.Sum)
	w.use(k.Unit)
	if known := w.seen.find(k.Sum); known != nil {
		c.loc = known
		return nil
	}
	if k.Check != nil {
		if err := k.Check(); err != nil {
			return w.fail(err)
		}
	}
	loc := w.seen.next()
	*loc = location{fragment: noFragment}
	c.loc = loc
	w.seen.add(k.Sum)
	w.layout.UniqueBytes += e.Size
	if blocks > 0 {
		loc.blocks = &blockList{sizes: make([]uint32, blocks)}
		for _, size := range k.Place.Blocks {
			if size == 0 {
				loc.blocks.sparse += int64(w.opts.BlockSize)
			}
		}
		if err := w.queue(keptBlocks{loc, k}); err != nil {
			return err
		}
	}
	if tail > 0 {
		return w.keepTail(tail, k, loc)
	}
	return nil
}

// keptBlocks are the whole blocks of a file.
type keptBlocks struct {
	file *location
	*image.Kept
}

func (k keptBlocks) commit(b *backEnd) error {
	at := k.Place.Start
	for i, size := range k.Place.Blocks {
		if size == 0 {
			continue
		}
		n := int64(size &^ blockStored)
		k.file.noteBlock(i, b.out.pos, size)
		if err := b.out.copy(k.Unit, at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// followed is a fragment block of an earlier image, as far as the ends of
// files have come that lie in it. It takes the place of fragments.block.
type followed struct {
	unit *image.KeptUnit
	at   image.TailPlace // of its first end
	size int             // bytes that have come
	ends []keptEnd
}

type keptEnd struct {
	*image.Kept
	size int
}

// keepTail gives the end of a file, size bytes, its place.
func (w *Writer) keepTail(size int, k *image.Kept, loc *location) error {
	fr := &w.fragments
	if fr.used() > 0 && fr.used()+size > w.opts.BlockSize {
		if err := w.flushFragment(); err != nil {
			return err
		}
	}
	at := k.Place.Tail
	switch f := fr.followed; {
	case fr.used() == 0 && at.Length > 0 && at.Offset == 0:
		fr.followed = &followed{unit: k.Unit, at: *at, size: size, ends: []keptEnd{{k, size}}}
		loc.fragment, loc.offset = fr.count, 0
		return nil
	case f != nil && k.Unit == f.unit && at.Start == f.at.Start && int(at.Offset) == f.size:
		loc.fragment, loc.offset = fr.count, uint32(f.size)
		f.size += size
		f.ends = append(f.ends, keptEnd{k, size})
		return nil
	}
	buf, err := w.reserve(size)
	if err != nil {
		return err
	}
	if err := k.ReadTail(buf[:size]); err != nil {
		return w.fail(err)
	}
	return w.keep(buf[:size], loc)
}

// used is how many bytes of the fragment block that is filling are taken.
func (fr *fragments) used() int {
	if fr.followed != nil {
		return fr.followed.size
	}
	return len(fr.block)
}

// unfollow makes an ordinary block of the one that is followed.
func (w *Writer) unfollow() error {
	fr := &w.fragments
	f := fr.followed
	if f == nil {
		return nil
	}
	buf, err := w.blockBufs.get(w.ctx)
	if err != nil {
		return err
	}
	for _, end := range f.ends {
		n := len(buf)
		buf = buf[:n+end.size]
		if err := end.ReadTail(buf[n:]); err != nil {
			return w.fail(err)
		}
	}
	fr.followed, fr.block = nil, buf
	return nil
}

// keptFragment is a fragment block taken as it is.
type keptFragment struct{ *followed }

func (k keptFragment) commit(b *backEnd) error {
	b.fragments = append(b.fragments, fragment{b.out.pos, k.at.Size})
	return b.out.copy(k.unit, k.at.Start, int64(k.at.Size&^blockStored))
}

// use notes an earlier image's unit, to release it.
func (w *Writer) use(u *image.KeptUnit) {
	if u.Release != nil && (len(w.used) == 0 || w.used[len(w.used)-1] != u) {
		w.used = append(w.used, u)
	}
}

// releaseUsed has what was used so far released when its data has been taken.
func (w *Writer) releaseUsed() error {
	if len(w.used) == 0 {
		return nil
	}
	r := release(w.used)
	w.used = nil
	return w.queue(r)
}

type release []*image.KeptUnit

func (r release) commit(b *backEnd) error {
	if err := b.out.endCopy(); err != nil {
		return err
	}
	for _, u := range r {
		u.Release()
	}
	return nil
}

// releaseAll releases what a failure kept from being taken.
func (w *Writer) releaseAll() {
	left := w.used
	for s := range w.steps {
		if r, ok := s.(release); ok {
			left = append(left, r...)
		}
	}
	for _, u := range left {
		u.Release()
	}
}
