package ext4

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// CreateKept adds a regular file that an earlier image holds; see
// [image.KeptWriter]. Which of its blocks are holes is believed too.
func (w *Writer) CreateKept(e *store.Entry, k *image.Kept) error {
	if err := w.ready(); err != nil {
		return err
	}
	if err := w.createKept(e, k); err != nil {
		return w.fail(w.about(e.Path, err))
	}
	return nil
}

func (w *Writer) createKept(e *store.Entry, k *image.Kept) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if e.Kind != store.Regular || e.Size == 0 {
		return fmt.Errorf("a %s of %d bytes has no data in an earlier image", e.Kind, e.Size)
	}
	if err := checkRuns(k.Place.Runs, ceilDiv(e.Size, blockSize)); err != nil {
		return err
	}
	name, err := w.enter(e.Path)
	if err != nil {
		return err
	}
	w.current, w.size, w.left = e.Path, e.Size, 0
	w.use(k.Unit)
	return w.add(op{kind: opEntry, entry: e.Kind, exec: e.Executable, name: name, n: e.Size, kept: k})
}

// checkRuns checks where the data of a file of so many blocks is said to lie.
func checkRuns(runs []image.BlockRun, blocks int64) error {
	next := int64(0)
	for _, r := range runs {
		switch {
		case r.Length <= 0 || r.Logical < next || r.Logical > blocks || r.Length > blocks-r.Logical:
			return fmt.Errorf("the earlier image has blocks %d to %d of a file of %d, after block %d", r.Logical, r.Logical+r.Length, blocks, next)
		case r.Physical <= 0 || r.Physical > maxBlocks-r.Length:
			return fmt.Errorf("the earlier image has blocks at block %d", r.Physical)
		}
		next = r.Logical + r.Length
	}
	return nil
}

// placeKept places the data of the open file if an earlier image has it. twin
// is the inode that already has the same, if there is one.
func (b *builder) placeKept(k *image.Kept, key contentKey, twin uint32) error {
	if k == nil {
		return nil
	}
	if k.Check != nil {
		if err := k.Check(); err != nil {
			return err
		}
	}
	if stays, err := b.stays(k, key, twin); err != nil || stays {
		return err
	}
	for _, r := range k.Place.Runs {
		b.file.next = r.Logical
		for from, left := r.Physical, r.Length; left > 0; {
			start, blocks, err := b.take(left)
			if err != nil {
				return err
			}
			b.batch.pieces = append(b.batch.pieces, piece{at: start, blocks: blocks, from: k.Unit.Image, source: from})
			from, left = from+blocks, left-blocks
		}
	}
	return nil
}

// stays leaves the data of the open file where it is, if it may.
func (b *builder) stays(k *image.Kept, key contentKey, twin uint32) (bool, error) {
	if b.stay == nil {
		return false, nil
	}
	at := int64(0)
	if twin != 0 && b.inode(twin).extents > 0 {
		at = b.extents.at(int(b.inode(twin).ref)).start()
	}
	free, err := b.stay.claim(k.Place.Runs, key, twin == 0, at)
	if err != nil || !free {
		return false, err
	}
	for _, r := range k.Place.Runs {
		b.addExtents(b.file.extent, r.Logical, r.Physical, r.Length)
	}
	return true, nil
}

// dataWriter writes batches' pieces. It joins copies that go on where the one
// before ended.
type dataWriter struct {
	ctx  context.Context // ends copies early
	file File
	copy piece
}

// maxCopy is how many blocks are copied at once: 64 MiB.
const maxCopy = 64 << 20 / blockSize

func (d *dataWriter) write(b *batch) error {
	data := b.data[:b.keep]
	for i := 0; i < len(b.pieces); {
		p := b.pieces[i]
		i++
		if p.release != nil {
			if err := d.endCopy(); err != nil {
				return err
			}
			p.release.call()
			continue
		}
		if p.from != nil {
			if err := d.addCopy(p); err != nil {
				return err
			}
			continue
		}
		for ; i < len(b.pieces) && b.pieces[i].isData() && b.pieces[i].at == p.at+p.blocks; i++ {
			p.blocks += b.pieces[i].blocks
		}
		n := p.blocks * blockSize
		if _, err := d.file.WriteAt(data[:n], p.at*blockSize); err != nil {
			return fmt.Errorf("writing data: %w", err)
		}
		data = data[n:]
	}
	return nil
}

func (d *dataWriter) addCopy(p piece) error {
	c := &d.copy
	if c.from == p.from && c.at+c.blocks == p.at && c.source+c.blocks == p.source && c.blocks < maxCopy {
		c.blocks += p.blocks
		return nil
	}
	if err := d.endCopy(); err != nil {
		return err
	}
	d.copy = p
	return nil
}

// endCopy makes the copy that has been put together.
func (d *dataWriter) endCopy() error {
	c := d.copy
	d.copy = piece{}
	if c.from == nil {
		return nil
	}
	err := image.CopyRange(d.ctx, d.file, c.at*blockSize, c.from, c.source*blockSize, c.blocks*blockSize)
	if err != nil {
		return fmt.Errorf("data of the earlier image: %w", err)
	}
	return nil
}

var errNoRoom = errors.New("no room is left")

// release is the units of earlier images that a unit of the new one was made
// from, to be released once.
type release struct {
	units []*image.KeptUnit
	done  atomic.Bool
}

func (r *release) call() {
	if r.done.Swap(true) {
		return
	}
	for _, u := range r.units {
		u.Release()
	}
}

// use notes an earlier image's unit, to release it.
func (w *Writer) use(u *image.KeptUnit) {
	if u.Release != nil && (len(w.used) == 0 || w.used[len(w.used)-1] != u) {
		w.used = append(w.used, u)
	}
}

// releaseUsed has what was used so far released as soon as it has been copied,
// for which somebody may be waiting.
func (w *Writer) releaseUsed() error {
	if len(w.used) == 0 {
		return nil
	}
	for len(w.releases) > 0 && w.releases[0].done.Load() {
		w.releases = w.releases[1:]
	}
	r := &release{units: w.used}
	w.used, w.releases = nil, append(w.releases, r)
	if err := w.add(op{kind: opRelease, release: r}); err != nil {
		return err
	}
	return w.flush()
}

// releaseAll releases what a failure kept from being copied.
func (w *Writer) releaseAll() {
	for _, r := range append(w.releases, &release{units: w.used}) {
		r.call()
	}
	w.releases, w.used = nil, nil
}
