package squashfs

import (
	"context"
	"fmt"

	"github.com/zeebo/blake3"

	"bigdisk/image"
)

// output is the image file as a sequence of writes, and copies from other
// images. Small writes are gathered, and so are copies that go on where the one
// before ended. While a sum is open, it takes in every byte.
type output struct {
	ctx context.Context // ends copies early
	f   File
	pos int64 // where the next byte goes
	buf []byte

	sum     *blake3.Hasher // nil while none is open
	start   int64          // where the sum began
	marked  *blake3.Hasher // the sum as it was when mark was called
	copies  copying
	spare   *blake3.Hasher
	copyBuf []byte
}

// copying is a copy that has been asked for but not made: n bytes from offset
// from on are to go to where the output was then.
type copying struct {
	unit    *image.KeptUnit
	from, n int64
}

// gather is how many bytes an output collects before it writes them.
const gather = 1 << 20

func (o *output) write(p []byte) error {
	if err := o.endCopy(); err != nil {
		return err
	}
	if o.sum != nil {
		o.sum.Write(p)
	}
	return o.put(p)
}

func (o *output) put(p []byte) error {
	direct := len(p) >= gather/2
	if direct || len(o.buf)+len(p) > gather {
		if err := o.flushBuf(); err != nil {
			return err
		}
	}
	o.pos += int64(len(p))
	if direct {
		return o.writeAt(p, o.pos-int64(len(p)))
	}
	if o.buf == nil {
		o.buf = make([]byte, 0, gather)
	}
	o.buf = append(o.buf, p...)
	return nil
}

// Write is write for an io.Writer's users.
func (o *output) Write(p []byte) (int, error) {
	if err := o.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// copy makes n bytes of the unit's image, from offset from on, come next.
func (o *output) copy(unit *image.KeptUnit, from, n int64) error {
	c := &o.copies
	if c.unit != unit || c.from+c.n != from {
		if err := o.endCopy(); err != nil {
			return err
		}
		*c = copying{unit: unit, from: from}
	}
	c.n += n
	o.pos += n
	return nil
}

// endCopy makes the copy that has been asked for.
func (o *output) endCopy() error {
	c := o.copies
	if c.unit == nil {
		return nil
	}
	o.copies = copying{}
	o.pos -= c.n
	for c.n > 0 {
		if err := o.ctx.Err(); err != nil {
			return err
		}
		if o.copyBuf == nil {
			o.copyBuf = make([]byte, gather)
		}
		p := o.copyBuf[:min(c.n, gather)]
		if err := image.ReadFull(c.unit.Image, p, c.from); err != nil {
			return fmt.Errorf("the earlier image: %w", err)
		}
		if o.sum != nil {
			o.sum.Write(p)
		}
		if err := o.put(p); err != nil {
			return err
		}
		c.from += int64(len(p))
		c.n -= int64(len(p))
	}
	return nil
}

// copyWhole makes a copy of all that lies in its image for its unit, when that
// is all that was written since the sum was begun. The sum is then known, and
// the bytes need not come through here.
func (o *output) copyWhole() (*image.DataSum, error) {
	c := &o.copies
	if c.unit == nil || c.n != o.pos-o.start || c.unit.DataSum == nil ||
		len(c.unit.Data) != 1 || c.unit.Data[0] != (image.Extent{Offset: c.from, Length: c.n}) {
		return nil, nil
	}
	if err := o.flushBuf(); err != nil {
		return nil, err
	}
	done := *c
	*c = copying{}
	return done.unit.DataSum, image.CopyRange(o.ctx, o.f, o.start, done.unit.Image, done.from, done.n)
}

// startSum begins a sum of what comes next.
func (o *output) startSum() {
	if o.spare == nil {
		o.spare = blake3.New()
	}
	o.sum, o.start = o.spare, o.pos
	o.sum.Reset()
}

// endSum ends the sum, with those of the files, and returns it.
func (o *output) endSum(files image.FileSums) (*image.DataSum, error) {
	defer func() { o.sum, o.marked = nil, nil }()
	if whole, err := o.copyWhole(); whole != nil || err != nil {
		return whole, err
	}
	if err := o.endCopy(); err != nil {
		return nil, err
	}
	for i := range files {
		o.sum.Write(files[i][:])
	}
	var sum image.DataSum
	o.sum.Sum(sum[:0])
	return &sum, nil
}

// mark makes the place where the output is one to rewind to.
func (o *output) mark() {
	if o.sum != nil {
		o.marked = o.sum.Clone()
	}
}

// rewind makes what comes next overwrite what lies at pos, where mark was
// called last, and after it.
func (o *output) rewind(pos int64) error {
	if err := o.flush(); err != nil {
		return err
	}
	if o.sum != nil {
		o.sum = o.marked
	}
	o.pos = pos
	return nil
}

func (o *output) flush() error {
	if err := o.endCopy(); err != nil {
		return err
	}
	return o.flushBuf()
}

func (o *output) flushBuf() error {
	p := o.buf
	o.buf = o.buf[:0]
	at := o.pos - o.copies.n - int64(len(p))
	return o.writeAt(p, at)
}

func (o *output) writeAt(p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := o.f.WriteAt(p, at); err != nil {
		return fmt.Errorf("image at byte %d: %w", at, err)
	}
	return nil
}
