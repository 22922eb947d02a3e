// Package spool keeps bytes between the one who receives them and the one who
// uses them, so that they can be checked as a whole before any of them counts.
//
// In flows a stream through [Spool.Write], out flows the same stream, once,
// through [Spool.Read]. What is short stays in memory, within a [Budget] that
// the whole run shares; the rest goes to a temporary file without a name, of
// which nothing is left whatever happens to the process.
package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"bigdisk/bundle/store/tempfile"
)

// ErrScratch is wrapped by every error of the scratch directory: it is full,
// missing, or broken. Getting the bytes from somewhere else does not help.
var ErrScratch = errors.New("scratch directory")

// chunkSize is how much memory a spool takes at a time.
const chunkSize = 256 << 10

// Area is where spools lie. It is safe for concurrent use.
type Area struct {
	dir       string
	memory    *Budget
	maxMemory int64
	chunks    sync.Pool
	create    func(dir string) (file, error)
}

// file is what a spool needs of its temporary file.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

// NewArea returns an area with temporary files in dir ("": the system's
// directory for them). A spool of up to maxMemory bytes is kept in memory as
// long as there is some left of the budget.
func NewArea(dir string, memory *Budget, maxMemory int64) *Area {
	if dir == "" {
		dir = os.TempDir()
	}
	a := &Area{dir: dir, memory: memory, maxMemory: maxMemory, create: func(dir string) (file, error) { return tempfile.New(dir) }}
	a.chunks.New = func() any { return new([chunkSize]byte) }
	return a
}

// Spool is written first and then read, once. It is not safe for concurrent
// use. It must be closed.
type Spool struct {
	area   *Area
	hint   int64
	size   int64 // bytes written
	chunks [][]byte
	// taken is the part of the budget that is held; used is how far the last
	// chunk (when writing) or the first (when reading) is.
	taken   int64
	used    int
	file    file
	off     int64 // next byte to read
	err     error
	reading bool
}

// New returns an empty spool that expects size bytes (0: unknown). Nothing is
// reserved for bytes that do not come.
func (a *Area) New(size int64) *Spool { return &Spool{area: a, hint: size} }

// Write adds bytes. Its errors wrap [ErrScratch], and are kept.
func (s *Spool) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.reading {
		return 0, errors.New("spool: written after it was read")
	}
	written := 0
	for s.file == nil && len(p) > 0 {
		if !s.room(len(p)) {
			if err := s.spill(); err != nil {
				s.err = err
				return written, err
			}
			break
		}
		last := s.chunks[len(s.chunks)-1]
		n := copy(last[s.used:], p)
		p = p[n:]
		s.used += n
		s.size += int64(n)
		written += n
	}
	if len(p) == 0 {
		return written, nil
	}
	n, err := s.writeFile(p)
	s.err = err
	return written + n, err
}

func (s *Spool) writeFile(p []byte) (int, error) {
	n, err := s.file.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, s.area.fail(err)
	}
	return n, nil
}

// room makes sure that the last chunk has room, for the bytes at hand and those
// that are expected. It reports whether memory could be had.
func (s *Spool) room(need int) bool {
	if len(s.chunks) > 0 && s.used < len(s.chunks[len(s.chunks)-1]) {
		return true
	}
	if s.hint > s.area.maxMemory || s.size >= s.area.maxMemory {
		return false
	}
	want := min(max(int64(need), s.hint-s.size, s.size), chunkSize)
	if !s.area.memory.TryAcquire(want) {
		return false
	}
	s.taken += want
	s.used = 0
	if want == chunkSize {
		s.chunks = append(s.chunks, s.area.chunks.Get().(*[chunkSize]byte)[:])
	} else {
		s.chunks = append(s.chunks, make([]byte, want))
	}
	return true
}

// spill moves what is in memory to a temporary file.
func (s *Spool) spill() error {
	f, err := s.area.create(s.area.dir)
	if err != nil {
		return s.area.fail(err)
	}
	s.file = f
	for i, c := range s.chunks {
		if i == len(s.chunks)-1 {
			c = c[:s.used]
		}
		if _, err := f.Write(c); err != nil {
			return s.area.fail(err)
		}
	}
	s.dropChunks()
	return nil
}

// fail says what is wrong with the scratch directory.
func (a *Area) fail(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w %s is full: make room there, or use another one: %w", ErrScratch, a.dir, err)
	}
	return fmt.Errorf("%w %s: %w", ErrScratch, a.dir, err)
}

// Size is the number of bytes written.
func (s *Spool) Size() int64 { return s.size }

// Read gives the bytes back in order; after the last comes io.EOF. Memory goes
// back to the budget as it is read.
func (s *Spool) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if !s.reading {
		s.reading, s.used = true, 0
	}
	if s.off == s.size {
		return 0, io.EOF
	}
	if int64(len(p)) > s.size-s.off {
		p = p[:s.size-s.off]
	}
	if s.file == nil {
		return s.readChunk(p), nil
	}
	n, err := s.file.ReadAt(p, s.off)
	s.off += int64(n)
	if n == len(p) {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.err = s.area.fail(err)
	return n, s.err
}

func (s *Spool) readChunk(p []byte) int {
	n := copy(p, s.chunks[0][s.used:])
	s.used += n
	s.off += int64(n)
	if s.used == len(s.chunks[0]) || s.off == s.size {
		s.dropChunk(s.chunks[0])
		s.chunks, s.used = s.chunks[1:], 0
	}
	return n
}

// dropChunk gives one chunk back.
func (s *Spool) dropChunk(c []byte) {
	s.area.memory.Release(int64(len(c)))
	s.taken -= int64(len(c))
	if len(c) == chunkSize {
		s.area.chunks.Put((*[chunkSize]byte)(c))
	}
}

func (s *Spool) dropChunks() {
	for _, c := range s.chunks {
		s.dropChunk(c)
	}
	s.chunks, s.used = nil, 0
}

// Close gives everything back: memory to the budget, the file to the disk.
func (s *Spool) Close() error {
	s.dropChunks()
	var err error
	if s.file != nil {
		err = s.file.Close()
		s.file = nil
	}
	if s.err == nil {
		s.err = fmt.Errorf("spool: %w", os.ErrClosed)
	}
	return err
}
