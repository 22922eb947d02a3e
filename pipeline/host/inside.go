package host

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// readInside reads a file of at most most bytes on the disk that is mounted at
// root. A disk of others may have links that lead to the host's own files, and
// files that never end: both are errors.
func readInside(root, name string, most int64) ([]byte, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > most {
		return nil, fmt.Errorf("%s is no file of up to %d bytes", name, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// checkInside makes sure that something of a type is on the disk that is mounted
// at root, and not behind a link that leads off it.
func checkInside(root, name string, kind fs.FileMode) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	fi, err := dir.Stat(name)
	if err != nil {
		return err
	}
	if fi.Mode().Type() != kind {
		return fmt.Errorf("%s is of another type than it should be: %s", name, fi.Mode().Type())
	}
	return nil
}
