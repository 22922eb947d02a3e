package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"bigdisk/image/atomicfile"
)

// stand is a disk that a layered store stands on.
type stand struct {
	Dir string `json:"dir"`
	// Device is the number of the filesystem there: another one means that the
	// disk was detached and attached again, and that the kernel's overlay is still
	// of the one that is gone.
	Device uint64 `json:"device"`
}

// standing says what is mounted at directories.
func standing(dirs []string) ([]stand, error) {
	var all []stand
	for _, dir := range dirs {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		all = append(all, stand{dir, st.Dev})
	}
	return all, nil
}

// record returns the disks that the store stood on last, nil if there were
// none.
func (u upper) record() []stand {
	text, err := os.ReadFile(u.path(recordName))
	var all []stand
	if err != nil || json.Unmarshal(text, &all) != nil {
		return nil
	}
	return all
}

func (u upper) remember(all []stand) error {
	f, err := atomicfile.Create(u.path(recordName))
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := json.NewEncoder(f).Encode(all); err != nil {
		return err
	}
	return f.Commit()
}

// hold takes the store away from a directory, if it is there and nobody uses it,
// and keeps it where nobody looks: what it stood on can be read there, even if
// the disks are not mounted any more.
func (u upper) hold(at string, there bool) error {
	if !there {
		return nil // but what was held when this was killed still is
	}
	if err := u.release(); err != nil {
		return err
	}
	if err := os.MkdirAll(u.path(heldName), 0o700); err != nil {
		return err
	}
	if err := bind(at, u.path(heldName)); err != nil {
		return err
	}
	if err := unmount(at, false); err != nil {
		return errors.Join(fmt.Errorf("the store is in use, so it cannot move to another disk: %w", err), u.release())
	}
	return nil
}

// held reports whether there is a store that is held.
func (u upper) held() bool {
	m, err := mountAt(u.path(heldName))
	return err == nil && m != nil && m.Type == "overlay"
}

// giveBack shows the store that is held again.
func (u upper) giveBack(at string) error {
	if !u.held() {
		return nil
	}
	if err := bind(u.path(heldName), at); err != nil {
		return err
	}
	return u.release()
}

// release lets go of the store that is held.
func (u upper) release() error { return unmountAll(u.path(heldName), true) }
