package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bigdisk/image/read"
)

// mountFlags are those of every disk: nothing on it is written, is a device, or
// gives its owner's rights to whoever runs it.
const mountFlags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID

// mountDisk mounts a disk, whose filesystem is as info says, at a directory.
func mountDisk(path string, info read.Info, at string) error {
	source, loop, err := mountSource(path, info)
	if err != nil {
		return err
	}
	if loop != nil {
		defer loop.Close() // the mount keeps it
	}
	if err := unix.Mount(source, at, info.Format, mountFlags, ""); err != nil {
		return fmt.Errorf("mount %s of %s at %s: %w", info.Format, path, at, err)
	}
	return nil
}

// mountSource returns the block device with the disk's filesystem: the disk
// itself, its partition, or a loop device, which the caller closes.
func mountSource(path string, info read.Info) (string, *os.File, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return "", nil, err
	}
	if isBlock(fi) && info.Offset == 0 {
		path, err = filepath.EvalSymlinks(path)
		return path, nil, err
	}
	if part := path + "-part1"; startsAt(part, info.Offset) {
		path, err = filepath.EvalSymlinks(part)
		return path, nil, err
	}
	loop, err := attachLoop(path, info.Offset, 0)
	if err != nil {
		return "", nil, err
	}
	return loop.Name(), loop, nil
}

// startsAt reports whether a block device is the partition that starts at an
// offset in bytes.
func startsAt(device string, offset int64) bool {
	var st unix.Stat_t
	if unix.Stat(device, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/start", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return false
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return err == nil && sectors*512 == offset
}

func isBlock(fi fs.FileInfo) bool {
	return fi.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// isDisk reports whether what is mounted could be a disk of ours.
func isDisk(m *mountPoint) bool {
	return m != nil && m.readOnly() && (m.Type == read.Squashfs || m.Type == read.Ext4)
}

// unmountAll takes away whatever is mounted at path, layer by layer, and the
// directory if it is empty.
func unmountAll(path string, lazy bool) error {
	for {
		m, err := mountAt(path)
		if err != nil {
			return err
		}
		if m == nil {
			return removeEmpty(path)
		}
		if err := unmount(m.Path, lazy); err != nil {
			return err
		}
	}
}

func removeEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// stage mounts a disk where nobody looks, at a directory that it makes.
func (l layout) stage(path string, info read.Info) error {
	if err := unmountAll(l.staging(), true); err != nil {
		return err
	}
	if err := os.MkdirAll(l.staging(), 0o755); err != nil {
		return err
	}
	return mountDisk(path, info, l.staging())
}

// promote shows the staged disk under its version's name. If there is a mount
// already, of a disk that is gone, the new one covers it.
func (l layout) promote(version string) error {
	if err := os.MkdirAll(l.at(version), 0o755); err != nil {
		return err
	}
	return bind(l.staging(), l.at(version))
}

// bind shows what is mounted at one directory at another one, too.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", to, err)
	}
	return nil
}

// mounted lists the versions that are mounted.
func (l layout) mounted() (map[string]*mountPoint, error) {
	dir, err := realPath(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := readMounts()
	if err != nil {
		return nil, err
	}
	found := make(map[string]*mountPoint)
	for i, m := range all {
		if name := filepath.Base(m.Path); filepath.Dir(m.Path) == dir && checkVersion(name) == nil {
			found[name] = &all[i]
		}
	}
	return found, nil
}
