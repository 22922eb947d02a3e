package rebuild

import (
	"crypto/sha256"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

// tree is what is read: [store.Contents] or a [nar.DirReader].
type tree interface {
	Next() (*store.Entry, error)
	io.Reader
}

// writePath writes a tree into the store below root, as change makes it, and
// returns its info, without references. change gets symlinks without data.
func writePath(root string, path store.Path, t tree, change func(e *store.Entry, data []byte) []byte) (*store.PathInfo, error) {
	at := filepath.Join(root, string(path))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, err
	}
	sum := counter{hash: sha256.New()}
	archive := nar.NewWriter(&sum)
	var made []string // directories, which are to become read-only
	for {
		e, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		now := *e
		var data []byte
		if e.Kind == store.Regular {
			if data, err = io.ReadAll(t); err != nil {
				return nil, err
			}
		}
		data = change(&now, data)
		now.Size = int64(len(data))
		if err := archive.Create(&now); err != nil {
			return nil, err
		}
		if _, err := archive.Write(data); err != nil {
			return nil, err
		}
		name := filepath.Join(at, now.Path)
		if err := writeEntry(name, &now, data); err != nil {
			return nil, err
		}
		if now.Kind == store.Directory {
			made = append(made, name)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	slices.Reverse(made)
	for _, dir := range made {
		if err := canonical(dir, 0o555); err != nil {
			return nil, err
		}
	}
	info := &store.PathInfo{Path: path, NarSize: sum.n}
	sum.hash.Sum(info.NarHash[:0])
	return info, nil
}

func writeEntry(name string, e *store.Entry, data []byte) error {
	switch e.Kind {
	case store.Directory:
		return os.Mkdir(name, 0o755)
	case store.Symlink:
		if err := os.Symlink(e.Target, name); err != nil {
			return err
		}
		return setTime(name)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	if e.Executable {
		return canonical(name, 0o555)
	}
	return canonical(name, 0o444)
}

// canonical gives a file the mode and the time of files in a store.
func canonical(name string, mode os.FileMode) error {
	if err := setTime(name); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

func setTime(name string) error {
	one := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, one, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

// counter hashes and counts what is written to it.
type counter struct {
	hash hash.Hash
	n    int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.hash.Write(p)
}
