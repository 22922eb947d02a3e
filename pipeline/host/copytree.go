package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

// copyTree copies a store path to a name that is not there yet, as Nix would lay
// it out: modes 0444 and 0555, time 1.
func copyTree(ctx context.Context, from, to string) error {
	d := nar.OpenDir(from)
	defer d.Close()
	var dirs []string
	for {
		e, err := d.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		at := filepath.Join(to, e.Path)
		if e.Kind == store.Directory {
			dirs = append(dirs, at)
		}
		if err := copyEntry(at, e, d); err != nil {
			return err
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- { // once nothing is added to them any more
		if err := settleEntry(dirs[i], 0o555); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(at string, e *store.Entry, r io.Reader) error {
	switch e.Kind {
	case store.Directory:
		return os.Mkdir(at, 0o755)
	case store.Symlink:
		if err := os.Symlink(e.Target, at); err != nil {
			return err
		}
		return setTime(at)
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{r})
	if err == nil && n != e.Size {
		err = fmt.Errorf("%s: %d of %d bytes", at, n, e.Size)
	}
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	if e.Executable {
		mode = 0o555
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return settleEntry(at, mode)
}

func settleEntry(at string, mode fs.FileMode) error {
	if err := os.Chmod(at, mode); err != nil {
		return err
	}
	return setTime(at)
}

// setTime gives a file, or a symlink itself, Nix's time: a second after 1970.
func setTime(at string) error {
	one := unix.NsecToTimespec(1e9)
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{one, one}, unix.AT_SYMLINK_NOFOLLOW)
}

// removeTree removes what an earlier copy has left.
func removeTree(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// makeOpaque keeps the kernel from merging a directory with one of the same name
// on a disk below, see Documentation/filesystems/overlayfs.rst.
func makeOpaque(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil || !fi.IsDir() {
		return err
	}
	if err := unix.Lsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("%s: trusted.overlay.opaque: %w", dir, err)
	}
	return nil
}
