package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bigdisk/image"
)

// Dir is a cache in a directory. Files get their names when they are whole; a
// file's modification time is when it was used last, in minutes.
type Dir struct {
	dir  string
	most int64
}

// OpenDir opens the cache in a directory, which is made if it is not there.
// Trim leaves it at most so many bytes; 0 is no bound.
func OpenDir(dir string, most int64) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Dir{dir: dir, most: most}, nil
}

// String returns the directory.
func (d *Dir) String() string { return d.dir }

// suffix is that of the files.
const suffix = ".packed"

func (d *Dir) name(key string) string { return filepath.Join(d.dir, key[:2], key+suffix) }

// Get opens a file; see [Cache].
func (d *Dir) Get(_ context.Context, key string) (*os.File, error) {
	f, err := image.OpenFile(d.name(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cache: %w", err)
	}
	return f, d.used(key, fi)
}

// Has looks for a file; see [Cache].
func (d *Dir) Has(_ context.Context, key string) (bool, error) {
	fi, err := os.Stat(d.name(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cache: %w", err)
	}
	return true, d.used(key, fi)
}

// used notes a use, unless the last one was a moment ago. A cache that may only
// be read is as good as one that notes nothing.
func (d *Dir) used(key string, fi fs.FileInfo) error {
	if now := time.Now(); now.Sub(fi.ModTime()) > time.Minute {
		err := os.Chtimes(d.name(key), now, now)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("cache: %w", err)
		}
	}
	return nil
}

// New makes a file without a name; see [Cache].
func (d *Dir) New() (*os.File, error) {
	fd, err := unix.Open(d.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(d.dir, "new")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("cache: a file in %s: %w", d.dir, err)
	}
	f, err := os.CreateTemp(d.dir, temporary+"*")
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return f, nil
}

// temporary starts the names of files that have to have one before they are
// whole, since the filesystem has no files without.
const temporary = "new-"

// Put gives a file its name; see [Cache].
func (d *Dir) Put(_ context.Context, key string, f *os.File) error {
	err := fs.ErrNotExist
	for try := 0; try < putTries && errors.Is(err, fs.ErrNotExist); try++ {
		err = giveName(f, d.name(key))
	}
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// putTries is how often a directory is made that somebody takes away, who clears
// the cache while it is in use.
const putTries = 100

// giveName makes the directory of a name, and the name one of the file's.
func giveName(f *os.File, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	if strings.HasPrefix(filepath.Base(f.Name()), temporary) {
		return os.Rename(f.Name(), name)
	}
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
	if err != nil && !errors.Is(err, unix.EEXIST) { // somebody else made the same
		return fmt.Errorf("naming %s: %w", name, err)
	}
	return nil
}

// Drop removes a file; see [Cache].
func (d *Dir) Drop(_ context.Context, key string) error {
	if err := remove(d.name(key)); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// remove removes a file, unless somebody else has.
func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// abandoned is the age from which on a temporary file is nobody's.
const abandoned = 24 * time.Hour

// Trim removes what was used longest ago; see [Cache]. Others may do the same
// at the same time.
func (d *Dir) Trim(ctx context.Context) error {
	if d.most == 0 {
		return nil
	}
	type file struct {
		name string
		size int64
		used time.Time
	}
	var files []file
	var sum int64
	err := filepath.WalkDir(d.dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || ctx.Err() != nil || !e.Type().IsRegular() {
			return errors.Join(err, ctx.Err())
		}
		fi, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(e.Name(), temporary) && time.Since(fi.ModTime()) > abandoned:
			return remove(name)
		case strings.HasSuffix(e.Name(), suffix) && fi.Size() > d.most:
			return remove(name) // or all others would go for it, and it too
		case strings.HasSuffix(e.Name(), suffix):
			files = append(files, file{name, fi.Size(), fi.ModTime()})
			sum += fi.Size()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if sum <= d.most {
			break
		}
		if err := remove(f.name); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		sum -= f.size
	}
	return nil
}
