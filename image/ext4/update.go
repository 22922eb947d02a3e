package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"

	"bigdisk/image"
)

// ErrUnfinished is wrapped by the errors about an image whose change in place
// was interrupted.
var ErrUnfinished = errors.New("a change in place has not been finished")

// Update turns the image on a disk into another one. It is an
// [image.KeptWriter]: kept files are those of the image itself and keep their
// blocks; everything else goes into blocks that are free in the image as it
// was. The new image begins with [Update.Switch]; up to then the old one can be
// had back, which Close after a failure and [Update.Abandon] do.
//
// An Update that was killed leaves a disk that is no filesystem to anybody. A
// new Update starts again from the old image; but once Switch has begun,
// [Finish] ends what it began.
type Update struct {
	*Writer
	disk  *tracked
	old   *existing
	space *freeSpace
	punch bool // free blocks are made zeros
	same  bool
	ended bool // by Switch or Abandon

	front memory // of the new image: superblock and group descriptors
	geo   geometry
	next  switchRecord
}

// NewUpdate starts to change the image on d. Options are those of
// [NewWriter]; the image keeps at least the size that it has. Close must be
// called, whatever happens.
func NewUpdate(ctx context.Context, d Disk, opts Options) (*Update, error) {
	opts, err := opts.check()
	if err != nil {
		return nil, err
	}
	s, old, err := openExisting(d)
	if err != nil {
		return nil, err
	}
	most := min(d.Room()/blockSize, maxBlocks)
	if opts.Size != 0 {
		most = min(most, opts.Size/blockSize)
	}
	if most < old.blocks {
		return nil, fmt.Errorf("the image has %d bytes, it cannot be made one of %d", old.blocks*blockSize, most*blockSize)
	}
	build, err := newBuilder(opts)
	if err != nil {
		return nil, err
	}
	u := &Update{disk: &tracked{Disk: d}, old: old, space: newFreeSpace(old.free, old.blocks, most)}
	build.space, build.stay = u.space, &staying{old: old, twins: make(map[contentKey][]int64)}
	if err := u.begin(s); err != nil {
		return nil, err
	}
	u.Writer = newWriter(ctx, u.disk, opts, build)
	u.Writer.update = u
	return u, nil
}

// openExisting reads the filesystem that is to be changed, or was before an
// update began.
func openExisting(d io.ReaderAt) (state, *existing, error) {
	s, err := readState(d)
	if err != nil {
		return s, nil, err
	}
	raw := make([]byte, 1024)
	switch {
	case s.next != nil:
		return s, nil, fmt.Errorf("%w: it has to be before another", ErrUnfinished)
	case s.begun != nil:
		copy(raw, s.begun.Super[:])
	case s.marked:
		return s, nil, fmt.Errorf("%w, and what the image was is lost", ErrUnfinished)
	default:
		if err := image.ReadFull(d, raw, superOffset); err != nil {
			return s, nil, fmt.Errorf("superblock: %w", err)
		}
	}
	old, err := readExisting(d, raw)
	return s, old, err
}

// begin makes sure that nobody takes the image for whole from now on.
func (u *Update) begin(s state) error {
	if s.begun == nil {
		r := begunRecord{Magic: [magicLen]byte([]byte(updateMagic)), Super: [1024]byte(u.old.raw)}
		if err := writeRecord(u.disk, &r, begunOffset, begunSize); err != nil {
			return err
		}
		if err := u.disk.Sync(); err != nil {
			return err
		}
	}
	if _, err := u.disk.WriteAt(marker(), superOffset); err != nil {
		return fmt.Errorf("marking the image: %w", err)
	}
	if err := u.disk.Sync(); err != nil {
		return err
	}
	if len(u.old.free) > 0 {
		u.punch = u.disk.Punch(u.old.free[0].start*blockSize, blockSize) == nil
	}
	return nil
}

// Written is how many bytes have been written to the disk.
func (u *Update) Written() int64 { return u.disk.bytes }

// Unchanged reports, after Close, that the image was already what it should
// become. It is then as it was, and there is no Layout and nothing to switch.
func (u *Update) Unchanged() bool { return u.same }

// Close writes all of the new image but what makes it the image; see
// [image.Writer]. After a failure the old image is there again, if the disk
// lets that be done.
func (u *Update) Close() error {
	if u.Writer.closed {
		return u.Writer.Close()
	}
	err := u.Writer.Close()
	if err != nil {
		return errors.Join(err, u.Abandon())
	}
	return nil
}

// Abandon makes the disk hold the old image again. On a block device that does
// not make zeros it stays unfinished if anything was written: what is free
// would not be what it was. Abandon does nothing after Switch was called.
func (u *Update) Abandon() error {
	if u.ended || !u.punch && u.disk.data {
		return nil
	}
	u.ended = true
	if u.punch {
		if err := punch(u.disk, u.old.free); err != nil {
			return err
		}
		if err := u.disk.Resize(u.old.blocks * blockSize); err != nil {
			return err
		}
	}
	return u.disk.inOrder(
		ordered{u.old.raw, superOffset},
		ordered{make([]byte, begunSize), begunOffset},
	)
}

// punch makes spans zeros.
func punch(d Disk, free spans) error {
	for _, x := range free {
		if err := d.Punch(x.start*blockSize, x.blocks()*blockSize); err != nil {
			return fmt.Errorf("making %d free blocks zeros: %w", x.blocks(), err)
		}
	}
	return nil
}

// Switch makes the new image the one on the disk. Token says what belongs to it:
// if Switch is interrupted, [Finish] gives it back. between is called when
// there is no way back any more, before anybody sees the new image.
func (u *Update) Switch(token [32]byte, between func() error) error {
	if u.layout == nil || u.ended {
		return errors.New("there is no image to switch to")
	}
	u.ended = true
	u.next.Token = token
	if err := writeRecord(u.disk, &u.next, switchOffset, switchSize); err != nil {
		return err
	}
	if err := u.disk.Sync(); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	return finishSwitch(u.disk, &u.next)
}

// Finish ends a Switch that was interrupted on d, if there was one. between is
// as for Switch, with the token that Switch was given.
func Finish(d Disk, between func(token [32]byte) error) (finished bool, err error) {
	s, err := readState(d)
	if err != nil || s.next == nil {
		return false, err
	}
	if err := between(s.next.Token); err != nil {
		return false, err
	}
	return true, finishSwitch(&tracked{Disk: d}, s.next)
}

// finishSwitch puts superblock and descriptors where they belong, and makes
// zeros of what the new image does not need. It may be interrupted anywhere and
// be called again.
func finishSwitch(d *tracked, r *switchRecord) error {
	if r.Done == 0 {
		front, err := r.readCopy(d)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnfinished, err)
		}
		if err := d.inOrder(ordered{make([]byte, begunSize), begunOffset}, ordered{front[blockSize:], blockSize}); err != nil {
			return err
		}
		if r.Punch != 0 {
			if err := punchFree(d, front, r.copySpans()); err != nil {
				return err
			}
		}
		if err := d.inOrder(ordered{front[superOffset : superOffset+1024], superOffset}); err != nil {
			return err
		}
		r.Done = 1
		if err := writeRecord(d, r, switchOffset, switchSize); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
	}
	if r.Punch != 0 {
		if err := punch(d, r.copySpans()); err != nil {
			return err
		}
	}
	if err := d.Resize(r.Size); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	return d.inOrder(ordered{make([]byte, switchSize), switchOffset})
}

// punchFree makes zeros of what is free in the image with that front, all but
// some blocks.
func punchFree(d *tracked, front []byte, but spans) error {
	x, err := readExisting(d, front[superOffset:superOffset+1024])
	if err != nil {
		return err
	}
	frontEnd := int64(len(front)) / blockSize
	used := append(x.free.gaps(firstData, x.blocks), span{0, frontEnd})
	used = append(used, but...)
	used.normal()
	if err := punch(d, used.gaps(0, x.blocks)); err != nil {
		return err
	}
	return d.Sync()
}
