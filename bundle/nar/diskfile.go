package nar

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// read reads up to what is left of the file, and checks its end.
func (f *diskFile) read(p []byte) (int, error) {
	if f.fd < 0 || len(p) == 0 {
		if f.fd < 0 {
			return 0, io.EOF
		}
		return 0, nil
	}
	if f.left == 0 {
		if err := f.checkEnd(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := read(f.fd, p)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, fmt.Errorf("%w: it is %d bytes shorter", ErrChanged, f.left)
	case int64(n) > f.left:
		return 0, fmt.Errorf("%w: it has grown", ErrChanged)
	}
	f.left -= int64(n)
	// A short read at the right place is the end of a regular file.
	f.ended = f.left == 0 && n < len(p)
	return n, nil
}

// checkEnd checks that nothing follows where the file should end.
func (f *diskFile) checkEnd() error {
	if f.ended {
		return nil
	}
	var one [1]byte
	n, err := read(f.fd, one[:])
	if err != nil {
		return err
	}
	if n != 0 {
		return fmt.Errorf("%w: it has grown", ErrChanged)
	}
	f.ended = true
	return nil
}

// finish closes the file; if all of it was read, its end is checked.
func (f *diskFile) finish() error {
	if f.fd < 0 {
		return nil
	}
	if f.left == 0 {
		if err := f.checkEnd(); err != nil {
			return err
		}
	}
	return f.close()
}

func (f *diskFile) close() error {
	if f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// openat, read and readlink are the system calls, made again when a signal
// interrupts them.
func openat(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("open: %w", err)
		}
		return fd, nil
	}
}

func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		return n, nil
	}
}

func readlink(at int, name string) (string, error) {
	var buf [MaxTarget + 1]byte
	for {
		n, err := unix.Readlinkat(at, name, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("readlink: %w", err)
		}
		return string(buf[:n]), nil
	}
}
