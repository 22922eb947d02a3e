package ext4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk holds an image that is changed in place.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all that was written will still be there after a crash.
	Sync() error
	// Punch makes n bytes zeros, without writing them; it is an error if that
	// cannot be done.
	Punch(at, n int64) error
	// Resize sets the length, which can be at most Room. It does nothing to a
	// block device.
	Resize(size int64) error
	// Room is how many bytes there can be.
	Room() int64
}

// ErrBusy is wrapped by the error of [OpenDisk] when somebody else changes the
// image, or the kernel uses the device.
var ErrBusy = errors.New("it is in use")

// FileDisk is a file or block device that nobody else changes.
type FileDisk struct {
	*os.File
	device bool
	room   int64
}

// OpenDisk opens and locks a file or block device until it is closed.
func OpenDisk(name string) (*FileDisk, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	d, flags := &FileDisk{room: maxBlocks * blockSize}, os.O_RDWR
	switch {
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		d.device = true
		flags |= unix.O_EXCL
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a block device", name)
	}
	if loop := loopOn(st); loop != "" {
		return nil, fmt.Errorf("%s: %w: it is what %s shows", name, ErrBusy, loop)
	}
	d.File, err = os.OpenFile(name, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: %w", name, ErrBusy)
	}
	if err != nil {
		return nil, err
	}
	if err := d.lock(); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// loopOn returns the loop device that shows a file, "" if none is known to.
func loopOn(file os.FileInfo) string {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		backing, err := os.Stat(strings.TrimSuffix(string(text), "\n"))
		if err == nil && os.SameFile(backing, file) {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name)))
		}
	}
	return ""
}

func (d *FileDisk) lock() (err error) {
	err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	}
	if err == nil && d.device {
		d.room, err = d.Seek(0, io.SeekEnd)
	}
	return err
}

// Room is the size of a device; a file can have what ext4 can.
func (d *FileDisk) Room() int64 { return d.room }

// Punch makes a hole.
func (d *FileDisk) Punch(at, n int64) error {
	if n == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
		if err != unix.EINTR {
			return err
		}
	}
}

// Resize truncates or extends a file.
func (d *FileDisk) Resize(size int64) error {
	if d.device {
		return nil
	}
	return d.Truncate(size)
}

// tracked counts what is written.
type tracked struct {
	Disk
	bytes int64
	data  bool // something beyond block 0 was written
}

// WriteAt counts what it writes.
func (t *tracked) WriteAt(p []byte, at int64) (int, error) {
	n, err := t.Disk.WriteAt(p, at)
	t.bytes += int64(n)
	t.data = t.data || at >= blockSize
	return n, err
}

// Truncate is there for [File]; an image that is changed in place gets its size
// in the end.
func (t *tracked) Truncate(int64) error { return errors.New("not cut while it is changed") }

// ordered is bytes and where they go.
type ordered struct {
	p  []byte
	at int64
}

// inOrder makes each write last before the next.
func (t *tracked) inOrder(writes ...ordered) error {
	for _, w := range writes {
		if _, err := t.WriteAt(w.p, w.at); err != nil {
			return fmt.Errorf("at byte %d: %w", w.at, err)
		}
		if err := t.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// memory is a File that keeps what is written to it.
type memory struct{ data []byte }

// WriteAt keeps p.
func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.bytes(at + int64(len(p)))
	return copy(m.data[at:], p), nil
}

// Truncate sets the length.
func (m *memory) Truncate(size int64) error {
	m.data = m.bytes(size)[:size]
	return nil
}

// bytes makes it at least n bytes long and returns them.
func (m *memory) bytes(n int64) []byte {
	if more := n - int64(len(m.data)); more > 0 {
		m.data = append(m.data, make([]byte, more)...)
	}
	return m.data
}
