// Package blockcopy makes a block device equal to an image file and writes only
// what differs, so that a copy that was interrupted goes on where it was, and a
// clone of an earlier image takes little.
package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// pieceSize is what one worker takes at a time.
	pieceSize = 4 << 20
	// blockSize is what is compared and written, if it differs, as one.
	blockSize = 64 << 10
)

// Stats counts bytes of the image.
type Stats struct {
	Same    int64 // were there already
	Written int64
}

// Copy makes the first size bytes of dst equal to those of src, with so many
// workers of 8 MiB of memory each. Holes of src are not read. add, if it is not
// nil, is told of every byte that is right, by several goroutines. What was
// written is on the device when Copy returns without an error.
func Copy(ctx context.Context, dst, src *os.File, size int64, jobs int, add func(int64)) (Stats, error) {
	if err := checkSize(dst, size); err != nil {
		return Stats{}, err
	}
	c := &copier{dst: dst, src: src, size: size, add: add}
	group, ctx := errgroup.WithContext(ctx)
	for range max(1, jobs) {
		group.Go(func() error { return c.work(ctx) })
	}
	err := group.Wait()
	if err == nil {
		err = dst.Sync()
	}
	return Stats{Same: c.same.Load(), Written: c.written.Load()}, err
}

// checkSize sees to it that what is written to is large enough: a device does
// not grow.
func checkSize(dst *os.File, size int64) error {
	room, err := dst.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if room < size {
		return fmt.Errorf("%s has %d bytes, and the image has %d", dst.Name(), room, size)
	}
	return nil
}

type copier struct {
	dst, src *os.File
	size     int64
	add      func(int64)

	next          atomic.Int64 // the piece that nobody has taken
	same, written atomic.Int64
}

func (c *copier) work(ctx context.Context) error {
	want, have := make([]byte, pieceSize), make([]byte, pieceSize)
	for {
		at := (c.next.Add(1) - 1) * pieceSize
		if at >= c.size {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(pieceSize, c.size-at)
		if err := c.piece(want[:n], have[:n], at); err != nil {
			return err
		}
		if c.add != nil {
			c.add(n)
		}
	}
}

func (c *copier) piece(want, have []byte, at int64) error {
	if c.isHole(at, int64(len(want))) {
		clear(want)
	} else if _, err := c.src.ReadAt(want, at); err != nil {
		return fmt.Errorf("the image has changed: %w", noEOF(err))
	}
	if _, err := c.dst.ReadAt(have, at); err != nil {
		return noEOF(err)
	}
	for from := 0; from < len(want); {
		to, differs := run(want, have, from)
		if differs {
			if _, err := c.dst.WriteAt(want[from:to], at+int64(from)); err != nil {
				return err
			}
			c.written.Add(int64(to - from))
		} else {
			c.same.Add(int64(to - from))
		}
		from = to
	}
	return nil
}

// run is where the blocks from on end that all differ, or are all the same.
func run(want, have []byte, from int) (to int, differs bool) {
	for to = from; to < len(want); {
		end := min(to+blockSize, len(want))
		d := !bytes.Equal(want[to:end], have[to:end])
		if to == from {
			differs = d
		} else if d != differs {
			break
		}
		to = end
	}
	return to, differs
}

// isHole reports whether the file holds nothing from at on for n bytes. Where
// the filesystem does not tell, there are no holes.
func (c *copier) isHole(at, n int64) bool {
	data, err := unix.Seek(int(c.src.Fd()), at, unix.SEEK_DATA)
	return errors.Is(err, unix.ENXIO) || err == nil && data >= at+n
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Open waits for a device to appear and opens it for reading and writing. A
// device that is mounted, or held by another program of this kind, is busy.
func Open(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	for deadline := time.Now().Add(patience); ; {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the device did not appear in %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
