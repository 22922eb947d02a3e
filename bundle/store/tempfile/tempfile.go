// Package tempfile makes temporary files without a name, which go away with
// the process however it ends.
package tempfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// New makes a file without a name in dir, or in the system's directory for
// temporary files if dir is "".
func New(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	// Not every filesystem has O_TMPFILE.
	f, err := os.CreateTemp(dir, "bigdisk-*.tmp")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
