package source

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"bigdisk/bundle/spool"
)

const (
	// maxWindow is the most that a decoder may look back, in bytes: what zstd
	// --long and xz -9 need at most.
	maxWindow = 128 << 20
	// keptWindow is the largest of a decoder that is kept for the next archive:
	// what a decoder without a say in its header must do with.
	keptWindow = 8 << 20
	// decoderMemory bounds all windows of a cache together.
	decoderMemory = maxWindow + 4*keptWindow
	// decoderBase is what a decoder holds besides its window.
	decoderBase = 1 << 20
	// peekSize has room for the headers that name the window.
	peekSize = 64 << 10
)

// ErrCompression is wrapped when an archive's compression is one that is not
// read here.
var ErrCompression = errors.New("compression is none of none, zstd, xz, gzip, bzip2")

// decoders decompress archives, each in the goroutine that reads it and in
// bounded memory. It is safe for concurrent use.
type decoders struct {
	memory  *spool.Budget
	zstd    sync.Pool
	xz      sync.Pool
	gzip    sync.Pool
	buffers sync.Pool
}

func newDecoders() *decoders {
	d := &decoders{memory: spool.NewBudget(decoderMemory)}
	d.buffers.New = func() any { return bufio.NewReaderSize(nil, peekSize) }
	return d
}

// decoder is one archive being decompressed. Its src must be read to its end
// after it.
type decoder struct {
	io.Reader
	src   *bufio.Reader
	close func()
}

// open starts on the archive in src. The context is for the wait for memory.
func (d *decoders) open(ctx context.Context, compression string, src io.Reader) (*decoder, error) {
	buf := d.buffers.Get().(*bufio.Reader)
	buf.Reset(src)
	dec, err := d.start(ctx, compression, buf)
	if err != nil {
		d.putBuffer(buf)
		return nil, err
	}
	return dec, nil
}

func (d *decoders) putBuffer(buf *bufio.Reader) {
	buf.Reset(nil)
	d.buffers.Put(buf)
}

func (d *decoders) start(ctx context.Context, compression string, buf *bufio.Reader) (*decoder, error) {
	switch compression {
	case "none", "":
		return d.with(buf, buf, nil, 0), nil
	case "zstd":
		return d.startZstd(ctx, buf)
	case "xz":
		return d.startXz(ctx, buf)
	case "gzip":
		return d.startGzip(buf)
	case "bzip2":
		return d.with(bzip2.NewReader(buf), buf, nil, 0), nil
	}
	return nil, fmt.Errorf("%w: it is %q", ErrCompression, clip(compression))
}

// with joins what makes a decoder; put gives r back for the next.
func (d *decoders) with(r io.Reader, buf *bufio.Reader, put func(), held int64) *decoder {
	return &decoder{Reader: r, src: buf, close: func() {
		if put != nil {
			put()
		}
		d.memory.Release(held)
		d.putBuffer(buf)
	}}
}

// Close gives everything back for the next archive.
func (d *decoder) Close() { d.close() }

// window waits for a decoder's memory. What is over the most is an error that
// says so, for otherwise one archive could take all there is.
func (d *decoders) window(ctx context.Context, size uint64) (held int64, err error) {
	if size > maxWindow {
		return 0, fmt.Errorf("it takes a window of %d bytes to decompress, over %d", size, maxWindow)
	}
	return d.memory.Acquire(ctx, int64(size)+decoderBase)
}

func (d *decoders) startZstd(ctx context.Context, buf *bufio.Reader) (*decoder, error) {
	head, err := peek(buf, zstd.HeaderMaxSize)
	if err != nil {
		return nil, err
	}
	window := uint64(keptWindow)
	var h zstd.Header
	if h.Decode(head) == nil && !h.Skippable {
		if h.SingleSegment {
			window = max(window, h.FrameContentSize)
		}
		window = max(window, h.WindowSize)
	}
	held, err := d.window(ctx, window)
	if err != nil {
		return nil, err
	}
	r, _ := d.zstd.Get().(*zstd.Decoder)
	if r == nil {
		// With a concurrency of 1 there are no goroutines.
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	}
	if err == nil {
		err = r.ResetWithOptions(buf, zstd.WithDecoderMaxWindow(window))
	}
	if err != nil {
		d.memory.Release(held)
		return nil, err
	}
	return d.with(r, buf, func() {
		if window <= keptWindow && r.Reset(nil) == nil {
			d.zstd.Put(r)
		}
	}, held), nil
}

func (d *decoders) startXz(ctx context.Context, buf *bufio.Reader) (*decoder, error) {
	head, err := peek(buf, xzHeadSize)
	if err != nil {
		return nil, err
	}
	dict := max(keptWindow, xzDictionary(head))
	held, err := d.window(ctx, dict)
	if err != nil {
		return nil, err
	}
	var r *xz.Reader
	if dict <= keptWindow {
		r, _ = d.xz.Get().(*xz.Reader)
	}
	if r != nil {
		err = r.Reset(buf)
	} else {
		r, err = xz.NewReader(buf, uint32(dict))
	}
	if err != nil {
		d.memory.Release(held)
		return nil, err
	}
	return d.with(xzReader{r}, buf, func() {
		if dict <= keptWindow {
			d.xz.Put(r)
		}
	}, held), nil
}

func (d *decoders) startGzip(buf *bufio.Reader) (*decoder, error) {
	r, _ := d.gzip.Get().(*gzip.Reader)
	if r == nil {
		r = new(gzip.Reader)
	}
	if err := r.Reset(buf); err != nil {
		return nil, truncated(err)
	}
	return d.with(r, buf, func() { d.gzip.Put(r) }, 0), nil
}

// peek returns the first n bytes, or all if there are fewer.
func peek(buf *bufio.Reader, n int) ([]byte, error) {
	head, err := buf.Peek(n)
	if err == io.EOF {
		err = nil
	}
	return head, err
}

// truncated makes io.EOF, where more must come, the error that says so.
func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
