package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// DefaultDeviceDir is where udev names disks after what they are.
	DefaultDeviceDir = "/dev/disk/by-id"
	// DefaultMountRoot is where the directories of services are.
	DefaultMountRoot = "/mnt"

	currentName = "current"
	// newCurrent is the symlink before it gets its name.
	newCurrent = ".current.new"
	lockName   = ".lock"
	// stagingName is where a disk is mounted until it has been checked.
	stagingName = ".checking"
)

// ErrBusy means that another process is at work on the same service.
var ErrBusy = errors.New("another bigdisk host is at work on it")

// layout is the directory of a service.
type layout struct{ dir string }

func newLayout(root, service string) (layout, error) {
	if checkVersion(service) != nil {
		return layout{}, fmt.Errorf("%q cannot be a service", service)
	}
	dir, err := filepath.Abs(filepath.Join(root, service))
	return layout{dir}, err
}

// at is where a version is mounted.
func (l layout) at(version string) string { return filepath.Join(l.dir, version) }

// staging is where a disk is mounted until it has been checked.
func (l layout) staging() string { return filepath.Join(l.dir, stagingName) }

// link is the symlink to the current version.
func (l layout) link() string { return filepath.Join(l.dir, currentName) }

// lock waits for nobody: it holds the service's directory until the file is
// closed, or the process dies.
func (l layout) lock() (*os.File, error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", l.dir, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", l.dir, err)
	}
	return f, nil
}

// current returns the version that the symlink names, "" if there is none.
func (l layout) current() (string, error) {
	target, err := os.Readlink(l.link())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if errors.Is(err, unix.EINVAL) {
		return "", fmt.Errorf("%s is no symlink: move it away, it is to name the version in use", l.link())
	}
	if err != nil {
		return "", err
	}
	if dir, version := filepath.Split(target); filepath.Clean(dir) == l.dir {
		target = version // people write it in full
	}
	if err := checkVersion(target); err != nil {
		return "", fmt.Errorf("%s: %w", l.link(), err)
	}
	return target, nil
}

// setCurrent makes the symlink name a version, in one step.
func (l layout) setCurrent(version string) error {
	fresh := filepath.Join(l.dir, newCurrent)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(version, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, l.link()); err != nil {
		return err
	}
	return syncDir(l.dir)
}

// dropCurrent takes the symlink away.
func (l layout) dropCurrent() error {
	if err := os.Remove(l.link()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(l.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
