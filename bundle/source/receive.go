package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
)

// errClosed is what contents say after Close.
var errClosed = fmt.Errorf("contents: %w", os.ErrClosed)

// receive gets an archive, decompresses it, and returns it when it is known to
// be the one that info promises. What is short of it, over it or different is
// gone when receive returns.
func (c *Cache) receive(ctx context.Context, info *store.PathInfo, a archive) (*spool.Spool, error) {
	for attempt := 1; ; attempt++ {
		s, err := c.receiveOnce(ctx, info, a)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errRestart) || attempt >= c.opts.Attempts {
			return nil, err
		}
		c.opts.Logger.Warn("archive must be received again", "path", info.Path, "error", err)
		if err := sleep(ctx, backoff(c.opts.RetryDelay, attempt)); err != nil {
			return nil, err
		}
	}
}

func (c *Cache) receiveOnce(ctx context.Context, info *store.PathInfo, a archive) (*spool.Spool, error) {
	body := c.down.open(ctx, a.url, a.size)
	defer body.Close()
	packed := newPacked(body, a)
	dec, err := c.decoders.open(ctx, a.compression, packed)
	if err != nil {
		return nil, packed.explain(err)
	}
	defer dec.Close()
	s := c.area.New(info.NarSize)
	buf := c.copies.Get().(*[copySize]byte)
	defer c.copies.Put(buf)
	if err := fill(s, dec, buf[:], info); err != nil {
		s.Close()
		return nil, packed.explain(err)
	}
	if err := packed.finish(dec.src); err != nil {
		s.Close()
		return nil, packed.explain(err)
	}
	return s, nil
}

// fill copies the archive into the spool, and no byte more than info says.
func fill(s *spool.Spool, src io.Reader, buf []byte, info *store.PathInfo) error {
	h := sha256.New()
	for {
		n, err := src.Read(buf)
		if int64(n) > info.NarSize-s.Size() {
			return fmt.Errorf("%w: it is longer than the %d bytes of its NarSize", ErrMismatch, info.NarSize)
		}
		h.Write(buf[:n])
		if _, err := s.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if s.Size() != info.NarSize {
		return fmt.Errorf("%w: it is %d bytes long, its NarSize is %d", ErrMismatch, s.Size(), info.NarSize)
	}
	return checkHash(h, info.NarHash, "NAR")
}

// copySize is how many bytes go from a decoder into a spool at a time.
const copySize = 128 << 10

// checkHash compares what was hashed with what was promised.
func checkHash(h hash.Hash, want store.Hash, what string) error {
	var got store.Hash
	h.Sum(got[:0])
	if got != want {
		return fmt.Errorf("%w: its %s hash is %s, not %s", ErrMismatch, what, got, want)
	}
	return nil
}

// packed is the compressed archive on its way to a decoder: hashed if its hash
// is known, and cut short where it should have ended.
type packed struct {
	body *download
	a    archive
	hash hash.Hash // nil if there is nothing to compare with
	got  int64
	err  error
}

func newPacked(body *download, a archive) *packed {
	p := &packed{body: body, a: a}
	if !a.hash.IsZero() {
		p.hash = sha256.New()
	}
	return p
}

// Read implements io.Reader.
func (p *packed) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.body.Read(b)
	p.got += int64(n)
	if p.hash != nil {
		p.hash.Write(b[:n])
	}
	if p.a.size > 0 && p.got > p.a.size {
		n, err = 0, fmt.Errorf("%w: the file is longer than the %d bytes of its FileSize", ErrMismatch, p.a.size)
	}
	p.err = err
	return n, err
}

// finish checks the file once the decoder has read what it wants of rest.
func (p *packed) finish(rest io.ByteReader) error {
	if _, err := rest.ReadByte(); err == nil {
		return fmt.Errorf("%w: bytes follow the end of the archive", ErrMismatch)
	} else if err != io.EOF {
		return err
	}
	if p.a.size > 0 && p.got != p.a.size {
		return fmt.Errorf("%w: the file is %d bytes long, its FileSize is %d", ErrMismatch, p.got, p.a.size)
	}
	if p.hash == nil {
		return nil
	}
	return checkHash(p.hash, p.a.hash, "file")
}

// explain adds to a failure what it is about. What the connection said comes
// before what the decoder made of it. A file that ends too early, of a length
// that nobody knew, may be whole another time.
func (p *packed) explain(err error) error {
	switch {
	case p.err != nil && p.err != io.EOF:
		err = p.err
	case errors.Is(err, io.ErrUnexpectedEOF) && p.body.whole() <= 0:
		err = fmt.Errorf("%w (%w)", err, errRestart)
	}
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("it ends too early, after %d bytes: %w", p.got, err)
	}
	if errors.Is(err, ErrNotFound) {
		// The path is there, its archive is not: another source may do.
		return fmt.Errorf("%s: the narinfo's archive is missing (%v)", clip(p.a.url), err)
	}
	if errors.Is(err, spool.ErrScratch) {
		return err
	}
	return fmt.Errorf("%s: %w", clip(p.a.url), err)
}
