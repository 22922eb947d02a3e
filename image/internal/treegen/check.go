package treegen

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/store"
)

// Checker holds a directory, such as a mount point, against a tree.
type Checker struct {
	// UID and GID should own everything.
	UID, GID uint32
	// Ignore is a name in the root that does not count.
	Ignore string
	// Sample looks closely at only one in so many of what is not a directory,
	// and at the others' names and kinds; 0 looks at all.
	Sample int
	// Skip is the path of a regular file whose bytes are not read.
	Skip string

	root  string
	stack []checkedDir
	items int
}

// checkedDir sums the names and kinds of a directory's entries, in any order.
type checkedDir struct {
	path    string
	entries int
	sum     uint64
}

func (d *checkedDir) add(name string, kind fs.FileMode) {
	h := fnv.New64a()
	h.Write([]byte(name))
	d.sum += h.Sum64() * uint64(kind|1)
	d.entries++
}

// Check reports the first difference between what is at root and the tree:
// kinds, modes, owners, times, sizes, targets, every byte, and nothing more.
func (c *Checker) Check(root string, t Tree) error {
	c.root, c.stack, c.items = root, []checkedDir{{}}, 0
	if err := c.item(Item{Entry: store.Entry{Kind: store.Directory}}); err != nil {
		return err
	}
	for item := range t {
		parent := item.Path[:max(0, strings.LastIndexByte(item.Path, '/'))]
		for len(c.stack) > 1 && c.stack[len(c.stack)-1].path != parent {
			if err := c.leave(); err != nil {
				return err
			}
		}
		c.stack[len(c.stack)-1].add(filepath.Base(item.Path), kindMode(item))
		c.items++
		if item.Kind == store.Directory || c.Sample < 2 || c.items%c.Sample == 1 {
			if err := c.item(item); err != nil {
				return err
			}
		}
		if item.Kind == store.Directory {
			c.stack = append(c.stack, checkedDir{path: item.Path})
		}
	}
	for len(c.stack) > 0 {
		if err := c.leave(); err != nil {
			return err
		}
	}
	return nil
}

// leave checks that a directory holds what was looked at and nothing more.
func (c *Checker) leave() error {
	top := c.stack[len(c.stack)-1]
	c.stack = c.stack[:len(c.stack)-1]
	dir, err := os.Open(filepath.Join(c.root, top.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	have := checkedDir{path: top.path}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if top.path != "" || e.Name() != c.Ignore {
			have.add(e.Name(), e.Type())
		}
	}
	if have.entries != top.entries {
		return fmt.Errorf("%q: %d entries, not %d", top.path, have.entries, top.entries)
	}
	if have.sum != top.sum {
		return fmt.Errorf("%q: other names or kinds", top.path)
	}
	return nil
}

// kindMode is the type of a directory entry.
func kindMode(item Item) fs.FileMode {
	switch item.Kind {
	case store.Directory:
		return fs.ModeDir
	case store.Symlink:
		return fs.ModeSymlink
	}
	return 0
}

func (c *Checker) item(item Item) error {
	if err := c.compare(item); err != nil {
		return fmt.Errorf("%q: %w", item.Path, err)
	}
	return nil
}

func (c *Checker) compare(item Item) error {
	path := filepath.Join(c.root, item.Path)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	if want := mode(item); st.Mode != want {
		return fmt.Errorf("mode %o, not %o", st.Mode, want)
	}
	if st.Uid != c.UID || st.Gid != c.GID {
		return fmt.Errorf("owner %d:%d, not %d:%d", st.Uid, st.Gid, c.UID, c.GID)
	}
	if at := time.Unix(st.Mtim.Unix()); !at.Equal(time.Unix(1, 0)) {
		return fmt.Errorf("modified %v", at)
	}
	switch item.Kind {
	case store.Symlink:
		target, err := os.Readlink(path)
		if err == nil && target != item.Target {
			err = fmt.Errorf("points to %q, not %q", target, item.Target)
		}
		return err
	case store.Regular:
		if st.Size != item.Size {
			return fmt.Errorf("%d bytes, not %d", st.Size, item.Size)
		}
		if item.Path == c.Skip {
			return nil
		}
		return item.Data.checkFile(path)
	}
	return nil
}

// mode is st_mode in a Nix store.
func mode(item Item) uint32 {
	switch {
	case item.Kind == store.Directory:
		return unix.S_IFDIR | 0o555
	case item.Kind == store.Symlink:
		return unix.S_IFLNK | 0o777
	case item.Executable:
		return unix.S_IFREG | 0o555
	}
	return unix.S_IFREG | 0o444
}

// checkFile reads a file, all but long runs of zeros in which the filesystem
// has no data.
func (d Data) checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	at := int64(0)
	for _, r := range d {
		end := at + r.Len
		if r.Seed == 0 && r.Len > 1<<30 && isHole(f, at, end) {
			at = end - 1<<20
		}
		if err := r.check(f, at, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// isHole tells whether the next data after from lies in to's block or later.
func isHole(f *os.File, from, to int64) bool {
	const block = 4096
	next, err := f.Seek((from+block-1)&^(block-1), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrInvalid) {
		return errors.Is(err, unix.ENXIO)
	}
	return err == nil && next >= to&^(block-1)
}
