package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxDelay is the longest wait before another attempt, in case the server
	// does not ask for a longer one.
	maxDelay = 30 * time.Second
	// maxRetryAfter is the longest that a server may ask us to wait.
	maxRetryAfter = 2 * time.Minute
	// progress is how many bytes make up for the failures before them.
	progress = 1 << 20
	// downTime is how long a server that cannot be reached is left alone.
	downTime = time.Minute
)

// downloader makes of single attempts what is worth having: objects whole, a
// bounded number at a time, whatever the connections do.
type downloader struct {
	fetcher fetcher
	slots   *semaphore.Weighted
	opts    *Options
	down    atomic.Pointer[outage]
}

// outage is that a server could not be reached.
type outage struct {
	err   error
	until time.Time
}

func newDownloader(f fetcher, opts *Options) *downloader {
	return &downloader{fetcher: f, slots: semaphore.NewWeighted(int64(opts.Requests)), opts: opts}
}

// small returns an object of at most so many bytes.
func (d *downloader) small(ctx context.Context, name string, most int64) ([]byte, error) {
	r := d.open(ctx, name, 0)
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is over %d bytes", clip(name), most)
	}
	return data, nil
}

// open returns an object, whose size is 0 if unknown. Nothing is asked for
// before the first Read.
func (d *downloader) open(ctx context.Context, name string, size int64) *download {
	limit := d.opts.Timeout + time.Duration(min(size/slowest, 1<<30))*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not received within %s", limit))
	return &download{d: d, ctx: ctx, cancel: cancel, name: name, expected: size, size: -1}
}

// download reads one object. When its connection fails it makes another and
// goes on where it was.
type download struct {
	d      *downloader
	ctx    context.Context
	cancel context.CancelFunc
	name   string
	// expected is what the narinfo says of the size, 0 if nothing.
	expected int64

	body    io.ReadCloser
	size    int64 // what the server says, -1 if nothing
	version string
	got     int64
	// pending is what the last Read of body said besides its bytes.
	pending error
	// failures is how many attempts failed since got was mark.
	failures int
	mark     int64
	err      error
}

// Read implements io.Reader.
func (r *download) Read(p []byte) (int, error) {
	for r.err == nil {
		n, err := r.attempt(p)
		if n > 0 {
			r.got += int64(n)
			return n, nil
		}
		if err == io.EOF {
			r.err = err
		} else if err != nil {
			r.err = r.retry(err)
		}
	}
	return 0, r.err
}

// attempt reads from the connection there is, or makes one.
func (r *download) attempt(p []byte) (int, error) {
	if r.body == nil {
		if err := r.connect(); err != nil {
			return 0, err
		}
	}
	n, err := 0, r.pending
	if err == nil {
		n, err = r.body.Read(p)
	}
	if n > 0 {
		r.pending = err
		return n, nil
	}
	if err == io.EOF && r.got < r.whole() {
		return 0, &transientError{err: fmt.Errorf("%d of %d bytes: %w", r.got, r.whole(), io.ErrUnexpectedEOF)}
	}
	return 0, err
}

// whole is the object's size as far as it is known: the server's word on what
// it sends counts before the narinfo's.
func (r *download) whole() int64 {
	if r.size >= 0 {
		return r.size
	}
	return r.expected
}

func (r *download) connect() error {
	if o := r.d.down.Load(); o != nil && time.Now().Before(o.until) {
		return fmt.Errorf("not tried again after: %w", o.err)
	}
	if err := r.d.slots.Acquire(r.ctx, 1); err != nil {
		return err
	}
	o, err := r.d.fetcher.fetch(r.ctx, r.name, position{r.got, r.version})
	if err != nil {
		r.d.slots.Release(1)
		return err
	}
	r.body = o.body
	return r.resume(o)
}

// resume goes on in o where the last connection ended.
func (r *download) resume(o *object) error {
	first := r.got == 0
	switch {
	case first:
		r.size, r.version = o.size, o.version
	case r.size >= 0 && o.size >= 0 && r.size != o.size,
		r.version != "" && o.version != "" && r.version != o.version:
		return errChanged
	}
	switch o.offset {
	case r.got:
		return nil
	case 0:
		if _, err := io.CopyN(io.Discard, o.body, r.got); err == io.EOF {
			return errChanged
		} else if err != nil {
			return err
		}
		return nil
	}
	return fmt.Errorf("asked for %s from byte %d, the server sends it from byte %d", clip(r.name), r.got, o.offset)
}

// retry returns nil when it is time for another attempt, or why there is none.
func (r *download) retry(err error) error {
	r.release()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	transient := (*transientError)(nil)
	if !errors.As(err, &transient) {
		return err
	}
	if r.got-r.mark >= progress {
		r.failures = 0
	}
	r.mark = r.got
	r.failures++
	if r.failures >= r.d.opts.Attempts {
		if transient.unreachable {
			r.d.down.Store(&outage{err, time.Now().Add(downTime)})
		}
		if r.failures > 1 {
			return fmt.Errorf("%w (%d attempts)", err, r.failures)
		}
		return err
	}
	delay := max(backoff(r.d.opts.RetryDelay, r.failures), min(transient.after, maxRetryAfter))
	r.d.opts.Logger.Warn("download failed, trying again", slog.String("object", r.name),
		slog.Any("error", err), slog.Int("attempt", r.failures), slog.Duration("wait", delay))
	return sleep(r.ctx, delay)
}

// backoff is the wait after so many failures: twice as long each time, give or
// take a half, so that not all come back at once.
func backoff(first time.Duration, failures int) time.Duration {
	d := min(first<<min(failures-1, 20), maxDelay)
	return d/2 + rand.N(d+1)
}

// sleep waits, or returns why the context is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// release ends the connection, so that another may have its place.
func (r *download) release() {
	r.pending = nil
	if r.body != nil {
		r.body.Close()
		r.body = nil
		r.d.slots.Release(1)
	}
}

// Close ends the download.
func (r *download) Close() error {
	r.release()
	r.cancel()
	if r.err == nil {
		r.err = errors.New("download closed")
	}
	return nil
}
