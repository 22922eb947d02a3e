package rawtar

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// holes tells which ranges of a file are holes, for ranges in rising order. Two
// may look at one file at the same time. A file system that knows of none, like
// a block device, says that all is data.
type holes struct {
	file *os.File // nil has no holes
	// The data found last, and what was looked at to find it: [from, start) is
	// a hole.
	from, start, end int64
}

// cover says whether n bytes at off are in a hole.
func (h *holes) cover(off, n int64) bool {
	if h.file == nil {
		return false
	}
	if off >= h.end {
		h.look(off)
	}
	return off >= h.from && off+n <= h.start
}

// look finds the data at or after off.
func (h *holes) look(off int64) {
	fd := int(h.file.Fd())
	h.from = off
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		h.start, h.end = math.MaxInt64, math.MaxInt64
		return
	case err != nil:
		h.start, h.end = off, math.MaxInt64
		return
	}
	h.start = start
	if h.end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
		h.end = math.MaxInt64
	}
}
