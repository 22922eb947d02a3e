package nar

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/store"
)

// DirReader gives a tree on disk the shape that [Reader] gives an archive:
// the same entries in the same order. It opens directories and files relative
// to one another and never follows a symlink below the root's parent, so what
// it reads stays inside the tree. A file is executable if its owner may
// execute it (S_IXUSR), as Nix decides it. The first failure is kept.
type DirReader struct {
	root  string
	err   error
	begun bool
	entry store.Entry
	dirs  []diskDir
	file  diskFile
}

// diskDir is an open directory: its entries are in byte order, rest is what
// has not been given.
type diskDir struct {
	file   *os.File
	prefix string // "" or the path with a slash
	rest   []os.DirEntry
}

// diskFile is the regular file at the current entry.
type diskFile struct {
	fd   int // -1 when none is open
	left int64
	// ended is set once the file's end has been seen to be where its size says.
	ended bool
}

// DirError is what a [DirReader] returns: what is wrong with which file.
type DirError struct {
	// Root is what the tree was opened as, Path the entry's, "" for the root.
	Root, Path string
	Err        error
}

// Error names the file in full.
func (e *DirError) Error() string { return filepath.Join(e.Root, e.Path) + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *DirError) Unwrap() error { return e.Err }

// OpenDir returns a reader of the file, symlink or directory at path. It opens
// nothing before the first Next. Close it to release what it holds.
func OpenDir(path string) *DirReader {
	return &DirReader{root: path, file: diskFile{fd: -1}}
}

// Next goes on to the next entry, as [Reader.Next] does.
func (d *DirReader) Next() (*store.Entry, error) {
	if d.err != nil {
		return nil, d.err
	}
	if err := d.advance(); err != nil {
		d.err = err
		if err != io.EOF {
			d.err = d.fail(err)
		}
		return nil, d.err
	}
	return &d.entry, nil
}

// Read reads from the current regular file. At its end, and for any other
// entry, it returns io.EOF. A file that turns out longer or shorter than it
// was is [ErrChanged].
func (d *DirReader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.file.read(p)
	if err != nil && err != io.EOF {
		d.err = d.fail(err)
		return n, d.err
	}
	return n, err
}

// Close closes what is open. Every call after it fails.
func (d *DirReader) Close() error {
	err := d.file.close()
	for _, dir := range d.dirs {
		err = errors.Join(err, dir.file.Close())
	}
	d.dirs = nil
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", d.root, os.ErrClosed)
	}
	return err
}

// fail adds to err the file it is about.
func (d *DirReader) fail(err error) error {
	return &DirError{Root: d.root, Path: d.entry.Path, Err: err}
}

func (d *DirReader) advance() error {
	if err := d.file.finish(); err != nil {
		return err
	}
	if !d.begun {
		d.begun = true
		return d.openRoot()
	}
	for len(d.dirs) > 0 {
		top := &d.dirs[len(d.dirs)-1]
		if len(top.rest) == 0 {
			if err := top.file.Close(); err != nil {
				return err
			}
			d.dirs = d.dirs[:len(d.dirs)-1]
			continue
		}
		next := top.rest[0]
		top.rest = top.rest[1:]
		d.entry = store.Entry{Path: top.prefix + next.Name()}
		return d.open(int(top.file.Fd()), next.Name(), next.Type())
	}
	return io.EOF
}

func (d *DirReader) openRoot() error {
	info, err := os.Lstat(d.root)
	if err != nil {
		return bare(err)
	}
	d.entry = store.Entry{}
	return d.open(unix.AT_FDCWD, d.root, info.Mode().Type())
}

// open makes name, in the directory at, the current entry.
func (d *DirReader) open(at int, name string, kind os.FileMode) error {
	if len(d.dirs) >= MaxDepth {
		return fmt.Errorf("more than %d levels of directories", MaxDepth)
	}
	switch kind {
	case 0:
		d.entry.Kind = store.Regular
		return d.openFile(at, name)
	case os.ModeDir:
		d.entry.Kind = store.Directory
		return d.openDir(at, name)
	case os.ModeSymlink:
		d.entry.Kind = store.Symlink
		target, err := readlink(at, name)
		if err != nil {
			return err
		}
		d.entry.Target = target
		return checkTarget(target)
	}
	return fmt.Errorf("a %s, which a store path cannot hold", kindName(kind))
}

func (d *DirReader) openFile(at int, name string) error {
	fd, err := openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	d.file = diskFile{fd: fd}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%w: it was a regular file", ErrChanged)
	}
	d.entry.Size = st.Size
	d.entry.Executable = st.Mode&unix.S_IXUSR != 0
	d.file.left = st.Size
	return nil
}

func (d *DirReader) openDir(at int, name string) error {
	fd, err := openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	dir := diskDir{file: os.NewFile(uintptr(fd), filepath.Join(d.root, d.entry.Path))}
	if d.entry.Path != "" {
		dir.prefix = d.entry.Path + "/"
	}
	if dir.rest, err = dir.file.ReadDir(-1); err != nil {
		dir.file.Close()
		return bare(err)
	}
	slices.SortFunc(dir.rest, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	d.dirs = append(d.dirs, dir)
	return nil
}

// bare takes the path off an error of package os; the caller adds it again.
func bare(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

func kindName(mode os.FileMode) string {
	switch {
	case mode&os.ModeNamedPipe != 0:
		return "named pipe"
	case mode&os.ModeSocket != 0:
		return "socket"
	case mode&os.ModeDevice != 0:
		return "device"
	}
	return "file of unknown type"
}
