package realise

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// links is a directory of links into the store that keep garbage collection
// away. It is locked, so that what a killed process has left can be told from
// what is in use.
type links struct {
	dir  string
	lock *os.File
	n    atomic.Int64
}

const (
	linksPrefix = "bigdisk-gcroots-"
	lockName    = "lock"
)

// newLinks makes a directory below temp, and removes those that nobody uses.
func newLinks(temp string) (*links, error) {
	if temp == "" {
		temp = os.TempDir()
	}
	temp, err := filepath.Abs(temp)
	if err != nil {
		return nil, err
	}
	if temp, err = filepath.EvalSymlinks(temp); err != nil {
		return nil, err
	}
	if err := removeStale(temp); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(temp, linksPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := tryLock(dir, os.O_CREATE)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &links{dir: dir, lock: lock}, nil
}

// tryLock locks a directory; while it is open, others fail.
func tryLock(dir string, flag int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeStale removes what killed processes have left. A directory that is
// being made has no lock yet and is left alone, as are those of other users.
func removeStale(temp string) error {
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), linksPrefix) {
			continue
		}
		dir := filepath.Join(temp, e.Name())
		lock, err := tryLock(dir, 0)
		if err != nil {
			continue
		}
		err = os.RemoveAll(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// next is a name that no link has.
func (l *links) next() string {
	return filepath.Join(l.dir, strconv.FormatInt(l.n.Add(1), 10))
}

// close removes the links. It may be called again.
func (l *links) close() error {
	if l.lock == nil {
		return nil
	}
	err := errors.Join(os.RemoveAll(l.dir), l.lock.Close())
	l.lock = nil
	return err
}
