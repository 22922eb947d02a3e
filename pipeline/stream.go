package pipeline

import (
	"context"
	"io"

	"bigdisk/bundle/store"
)

// stream gives a path's batches back as contents. The reader has seen them
// whole before the last Next says so.
type stream struct {
	ctx     context.Context
	batches <-chan *batch
	now     *batch
	left    int64 // bytes of the current file still to come
}

// more moves on to the next batch.
func (s *stream) more() error {
	if s.now != nil {
		s.now.free()
		s.now = nil
	}
	select {
	case b, ok := <-s.batches:
		if ok {
			s.now = b
			return nil
		}
		// A failed reader closes its batches too, but says so first.
		if err := s.ctx.Err(); err != nil {
			return err
		}
		return io.EOF
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Next returns the next entry, see [store.Contents].
func (s *stream) Next() (*store.Entry, error) {
	for {
		if s.left > 0 {
			if _, err := s.WriteTo(io.Discard); err != nil {
				return nil, err
			}
		}
		if s.now != nil {
			if e := s.now.next(); e != nil {
				s.left = e.Size
				return e, nil
			}
		}
		if err := s.more(); err != nil {
			return nil, err
		}
	}
}

// Read reads from the current file, see [store.Contents].
func (s *stream) Read(p []byte) (int, error) {
	data, err := s.data()
	n := copy(p, data)
	s.advance(n)
	return n, err
}

// WriteTo writes what is left of the current file from where it lies.
func (s *stream) WriteTo(w io.Writer) (written int64, err error) {
	for {
		data, err := s.data()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := w.Write(data)
		s.advance(n)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
}

// data returns some of the current file's bytes; io.EOF means that there are
// no more.
func (s *stream) data() ([]byte, error) {
	if s.left == 0 {
		return nil, io.EOF
	}
	for s.now == nil || len(s.now.unread) == 0 {
		err := s.more()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return s.now.unread[:min(int64(len(s.now.unread)), s.left)], nil
}

// advance passes over n bytes that data gave.
func (s *stream) advance(n int) {
	if n > 0 {
		s.now.unread = s.now.unread[n:]
		s.left -= int64(n)
	}
}

// drain reads what is left.
func (s *stream) drain() error {
	for {
		_, err := s.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Close does nothing: what reads ahead owns the contents.
func (s *stream) Close() error { return nil }
