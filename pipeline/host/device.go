package host

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bigdisk/gcp/fleet"
)

// devicePrefix comes before a device's name in /dev/disk/by-id on Compute
// Engine.
const devicePrefix = "google-"

// Device is an attached disk, or a file that stands for one.
type Device struct {
	// Name is its file's name, such as google-SERVICE-VERSION.
	Name string `json:"name"`
	// Version is what the name says, or what was asked for: where a version is
	// too long for a name, the two differ.
	Version string `json:"version"`
	Path    string `json:"path"`
	// Seq tells one attachment from a later one of the same name: the kernel's
	// number for the disk, which grows with every disk that comes, or what
	// identifies a file.
	Seq uint64 `json:"seq"`
}

// partition is the end of the name of a partition's link.
var partition = regexp.MustCompile(`-part[0-9]+$`)

// Attached lists the service's disks in a directory like /dev/disk/by-id, in the
// order in which the kernel found them. Files there count as disks too. A disk
// named NAME-EXTRA-V1 could be version EXTRA-V1 of NAME: it is not if NAME-EXTRA
// is among the other services.
func Attached(dir, service string, others ...string) ([]Device, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // udev makes it with the first disk
	}
	if err != nil {
		return nil, err
	}
	var devices []Device
	for _, entry := range names {
		version, ok := strings.CutPrefix(entry.Name(), devicePrefix+service+"-")
		if !ok || checkVersion(version) != nil || partition.MatchString(version) || strings.HasSuffix(version, ".manifest.json") {
			continue
		}
		if slices.ContainsFunc(others, func(other string) bool { return strings.HasPrefix(entry.Name(), devicePrefix+other+"-") }) {
			continue
		}
		d := Device{Name: entry.Name(), Version: version, Path: filepath.Join(dir, entry.Name())}
		if d.Seq, err = sequence(d.Path); errors.Is(err, fs.ErrNotExist) {
			continue // it went while we looked
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Path, err)
		}
		devices = append(devices, d)
	}
	slices.SortStableFunc(devices, func(a, b Device) int { return cmp.Compare(a.Seq, b.Seq) })
	return devices, nil
}

// otherServices lists the services that have a directory beside the service's,
// and whose names begin with its own.
func otherServices(mountRoot, service string) ([]string, error) {
	entries, err := os.ReadDir(mountRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var others []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), service+"-") {
			others = append(others, e.Name())
		}
	}
	return others, err
}

// find returns the device of a version.
func find(devices []Device, service, version string) (Device, bool) {
	for _, d := range devices {
		if d.Version == version || d.Name == deviceName(service, version) {
			d.Version = version
			return d, true
		}
	}
	return Device{}, false
}

// sequence returns the number of an attachment: the kernel's for a block
// device, the time of the last change for a file.
func sequence(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return uint64(st.Mtim.Nano()), nil
	case unix.S_IFBLK:
		text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/diskseq", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		if errors.Is(err, fs.ErrNotExist) {
			return st.Rdev, nil // before Linux 5.15
		}
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	return 0, errors.New("neither a block device nor a file")
}

// maxVersion is the longest version in bytes: it is the name of a directory.
const maxVersion = 200

// checkVersion refuses what cannot be a version's directory.
func checkVersion(version string) error {
	switch {
	case version == "" || len(version) > maxVersion:
		return fmt.Errorf("a version has 1 to %d characters, %q has %d", maxVersion, version, len(version))
	case version == currentName || version[0] == '.' || strings.ContainsAny(version, "/\x00"):
		return fmt.Errorf("%q cannot be a version: it is to be a directory's name", version)
	}
	return nil
}

// deviceName is the file that udev makes for the disk of a version.
func deviceName(service, version string) string {
	return devicePrefix + fleet.DeviceName(service, version)
}
