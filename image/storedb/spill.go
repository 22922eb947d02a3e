package storedb

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"bigdisk/bundle/store/tempfile"
)

const spillBuffer = 1 << 20

// spill keeps the references of every path, by number, in a temporary file
// that has no name: four bytes each, after their count.
type spill struct {
	file *os.File
	w    *bufio.Writer
	word [4]byte
}

func newSpill(dir string) (*spill, error) {
	f, err := tempfile.New(dir)
	if err != nil {
		return nil, err
	}
	return &spill{file: f, w: bufio.NewWriterSize(f, spillBuffer)}, nil
}

func (s *spill) close() error { return s.file.Close() }

// add keeps the references of the next path.
func (s *spill) add(refs []uint32) error {
	if err := s.put(uint32(len(refs))); err != nil {
		return err
	}
	for _, r := range refs {
		if err := s.put(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *spill) put(v uint32) error {
	binary.LittleEndian.PutUint32(s.word[:], v)
	if _, err := s.w.Write(s.word[:]); err != nil {
		return fmt.Errorf("keep references in a temporary file: %w", err)
	}
	return nil
}

// each calls f for every reference, with its referrer, in the order in which
// they were added.
func (s *spill) each(ctx context.Context, f func(referrer, reference uint32) error) error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("keep references in a temporary file: %w", err)
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s.file, spillBuffer)
	for referrer := uint32(1); ; referrer++ {
		if referrer%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := s.get(r)
		if err == io.EOF {
			return nil
		}
		for ; n > 0 && err == nil; n-- {
			var reference uint32
			if reference, err = s.get(r); err == nil {
				err = f(referrer, reference)
			}
		}
		if err != nil {
			return fmt.Errorf("references of path %d: %w", referrer, err)
		}
	}
}

func (s *spill) get(r *bufio.Reader) (uint32, error) {
	if _, err := io.ReadFull(r, s.word[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(s.word[:]), nil
}
