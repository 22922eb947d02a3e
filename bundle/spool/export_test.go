package spool

import (
	"io"
	"syscall"
)

// NewFullArea returns an area on a disk with room for so many bytes.
func NewFullArea(dir string, memory *Budget, maxMemory, room int64) *Area {
	a := NewArea(dir, memory, maxMemory)
	a.create = func(string) (file, error) { return &fullFile{room: room}, nil }
	return a
}

// Size is the whole budget in bytes.
func (b *Budget) Size() int64 { return b.size }

// InMemory reports whether no temporary file is used.
func (s *Spool) InMemory() bool { return s.file == nil }

type fullFile struct{ room int64 }

func (f *fullFile) Write(p []byte) (int, error) {
	if int64(len(p)) > f.room {
		n := int(f.room)
		f.room = 0
		return n, syscall.ENOSPC
	}
	f.room -= int64(len(p))
	return len(p), nil
}

func (f *fullFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

func (f *fullFile) Close() error { return nil }
