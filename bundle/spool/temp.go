package spool

import (
	"os"

	"golang.org/x/sys/unix"
)

// createTemp opens a file in dir that has no name, so that it goes away with
// the process.
func createTemp(dir string) (file, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	// Not every filesystem has O_TMPFILE.
	f, err := os.CreateTemp(dir, "bigdisk-spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
