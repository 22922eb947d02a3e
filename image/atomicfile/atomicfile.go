// Package atomicfile writes files that appear under their name only once they
// are whole: into a temporary file beside it, synced, then renamed.
//
// The temporary file of NAME is always .NAME.bigdisk-tmp, locked while it is
// written. So what a killed process left behind is taken over by the next that
// writes NAME, and two processes that write NAME at a time are told apart.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrBusy is wrapped by the error of [Create] when another process is writing
// the same file.
var ErrBusy = errors.New("another process is writing it")

// File is a temporary file that [File.Commit] gives its name. It is an
// *os.File, so it can be written at any offset and read back.
type File struct {
	*os.File
	name string
	done bool
}

// TempName is where the contents of the file name are until they are whole.
func TempName(name string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".bigdisk-tmp")
}

// Create starts a file that will be called name, with mode 0644 less the
// umask. The caller must call [File.Discard] in the end, committed or not.
// A name that stands for something other than a regular file is refused.
func Create(name string) (*File, error) {
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s exists and is not a regular file", name)
	}
	for {
		f, err := os.OpenFile(TempName(name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("temporary file for %s: %w", name, err)
		}
		ours, err := claim(f)
		if ours && err == nil {
			return &File{File: f, name: name}, nil
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("temporary file for %s: %w", name, err)
		}
	}
}

// claim locks and empties f. It reports false when f has meanwhile been
// renamed or removed by the process that had it before.
func claim(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, fmt.Errorf("%s: %w", f.Name(), ErrBusy)
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(have, there) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Truncate(0)
}

// Name returns the name that the file will have.
func (f *File) Name() string { return f.name }

// Commit syncs the file and gives it its name, in place of what had it before.
// After an error the name stands for what it did before.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("%s: %w", f.name, fs.ErrClosed)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(TempName(f.name), f.name); err != nil {
		return err
	}
	f.done = true
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.name))
}

// Discard removes the file unless it was committed. It may be called again.
func (f *File) Discard() {
	if f.done {
		return
	}
	f.done = true
	// Removed before it is unlocked, so that it is not somebody else's by then.
	// What cannot be removed is taken over by the next Create.
	os.Remove(TempName(f.name))
	f.Close()
}

// Keep leaves the file under its temporary name, for [Adopt]. It may be called
// after Commit, and then does nothing.
func (f *File) Keep() {
	if !f.done {
		f.done = true
		f.Close()
	}
}

// Adopt gives the file name the contents that a killed process, or one that
// called Keep, has left under its temporary name.
func Adopt(name string) error {
	if err := os.Rename(TempName(name), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}
