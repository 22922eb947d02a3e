// Package directio writes large files past the page cache. What is written is
// read again much later, if at all, and is to be on the disk before the file
// gets its name: so a copy of it in memory takes time to make, and takes the
// place of the files that are read at the same time.
package directio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Align is what O_DIRECT wants everything to be a multiple of, in bytes: where
// the data lies in memory and in the file, and how much it is. Hardly a
// filesystem or disk asks for more; those that do refuse such writes.
const Align = 4096

// least is how much is written past the page cache, in bytes. Less is better
// gathered there.
const least = 64 << 10

// Writer writes to a file. Writes that are large enough, and a multiple of
// [Align] in all respects, go past the page cache where the filesystem lets
// them; all others do not. The two may be mixed, and done by several
// goroutines, like those of an *os.File.
type Writer struct {
	file   *os.File
	direct writer // the same file, opened with O_DIRECT; nil if that failed
	// refused is set once the filesystem has refused such a write.
	refused atomic.Bool
}

type writer interface {
	io.WriterAt
	io.Closer
}

// New returns a Writer for f, which stays the caller's. A filesystem without
// O_DIRECT is no error. Close the Writer before f.
func New(f *os.File) *Writer {
	w := &Writer{file: f}
	// Opened anew, since O_DIRECT belongs to an open file and not to a
	// descriptor: f is to be read and written as before.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err == nil {
		w.direct = os.NewFile(uintptr(fd), f.Name())
	}
	return w
}

// Direct reports whether writes that are large and aligned go past the page
// cache, as far as is known.
func (w *Writer) Direct() bool { return w.direct != nil && !w.refused.Load() }

// WriteAt is that of an [io.WriterAt]. It reports whether p went past the page
// cache.
func (w *Writer) WriteAt(p []byte, at int64) (n int, past bool, err error) {
	if !w.Direct() || len(p) < least || !aligned(p, at) {
		n, err = w.file.WriteAt(p, at)
		return n, false, err
	}
	n, err = w.direct.WriteAt(p, at)
	if errors.Is(err, unix.EINVAL) {
		// Refused is the whole, or what was left to write after a part that
		// ended at an odd place.
		w.refused.Store(true)
		rest, err := w.file.WriteAt(p[n:], at+int64(n))
		return n + rest, false, err
	}
	return n, true, err
}

func aligned(p []byte, at int64) bool {
	return (uintptr(unsafe.Pointer(unsafe.SliceData(p)))|uintptr(len(p))|uintptr(at))%Align == 0
}

// Close ends the writing. The file stays open.
func (w *Writer) Close() error {
	if w.direct == nil {
		return nil
	}
	return w.direct.Close()
}
