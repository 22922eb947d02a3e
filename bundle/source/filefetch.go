package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileFetcher gets the objects of a binary cache in a directory.
type fileFetcher struct{ dir string }

// fetch implements fetcher. It starts at the beginning, whatever is asked.
func (f *fileFetcher) fetch(_ context.Context, name string, _ position) (*object, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is not a file in the cache", clip(name))
	}
	// A named pipe must not hold the build up, so it is not waited for.
	file, err := os.OpenFile(filepath.Join(f.dir, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, f.missing()
	case err != nil:
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file.Name())
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &object{body: file, size: info.Size()}, nil
}

// missing is ErrNotFound, unless there is no cache at all.
func (f *fileFetcher) missing() error {
	if info, err := os.Stat(f.dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", f.dir)
	}
	return ErrNotFound
}

func (f *fileFetcher) close() error { return nil }

// clip shortens what somebody else wrote before it goes into an error.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
