package ext4

import (
	"errors"
	"fmt"
	"strings"

	"bigdisk/bundle/store"
)

// lostFound is the directory that e2fsck wants in the root.
const lostFound = "lost+found"

var errTwice = errors.New("the name comes twice in its directory")

// checkEntry checks all of an entry but its path.
func checkEntry(e *store.Entry) error {
	switch e.Kind {
	case store.Directory:
		return nil
	case store.Regular:
		if e.Size < 0 || e.Size > maxFileSize {
			return fmt.Errorf("a file of %d bytes: ext4 holds 0 to %d", e.Size, int64(maxFileSize))
		}
		return nil
	case store.Symlink:
		return checkTarget(e.Target)
	}
	return fmt.Errorf("neither directory nor regular file nor symlink (kind %d)", e.Kind)
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("a symlink without a target")
	case len(target) > targetMax:
		return fmt.Errorf("a symlink's target of %d bytes: ext4 holds up to %d", len(target), targetMax)
	case strings.IndexByte(target, 0) >= 0:
		return errors.New("a NUL in a symlink's target")
	}
	return nil
}

// checkName checks one component of a path, which has no slash.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is not a name", name)
	case len(name) > nameMax:
		return fmt.Errorf("a name of %d bytes: ext4 holds up to %d", len(name), nameMax)
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("a NUL in a name")
	}
	return nil
}

// clip shortens a path that is too long to show.
func clip(path string) string {
	const most = 1024
	if len(path) > most {
		return path[:most] + "…"
	}
	return path
}
