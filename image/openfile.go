package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotFile is wrapped by the error about a FIFO, a socket or a directory where
// a file should be.
var ErrNotFile = errors.New("neither a file nor a block device")

// OpenFile opens a file or a block device for reading. Anything else, which
// could keep the opener waiting for ever, is an error.
func OpenFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() && st.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		err = fmt.Errorf("%s: %w", name, ErrNotFile)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
