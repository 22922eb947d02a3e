package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loopTries is how often a loop device is looked for: others may take the one
// that was found free.
const loopTries = 20

// attachLoop makes a read-only block device of length bytes of a file, or of
// another device, from offset on; a length of 0 is all there is. The device goes
// away by itself once it is neither mounted nor open: the caller mounts it and
// closes it, and leaves nothing behind even if it is killed in between.
func attachLoop(name string, offset, length int64) (*os.File, error) {
	backing, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device for %s: %w", name, err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Offset, config.Info.Sizelimit = uint64(offset), uint64(length)
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
	for range loopTries {
		var device *os.File
		if device, err = freeLoop(control); err != nil {
			break
		}
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("loop device for %s: %w", name, err)
}

func freeLoop(control *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
}

// loopFile returns the file behind a loop device, by the device's name in
// /dev; "" if it is no loop device.
func loopFile(device string) string {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}
