package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"bigdisk/gcp/guest"
	"bigdisk/image/atomicfile"
)

const (
	stateName = ".state.json"
	maxState  = 1 << 20
)

// state is what is remembered from one run to the next. It can be lost: then
// the kernel's numbers alone tell in which order disks came.
type state struct {
	// Boot is the boot in which Seq of the devices counts.
	Boot string `json:"boot"`
	// Attached are the disks in the order in which they came, the newest last. It
	// is kept over a reboot, when the kernel finds them in any order.
	Attached []Device `json:"attached"`
	// Mounted has the Seq of the device that a version was mounted from, in this
	// boot.
	Mounted map[string]uint64 `json:"mounted"`
	// Report is the last one.
	Report *guest.Report `json:"report,omitempty"`
}

func (l layout) stateFile() string { return filepath.Join(l.dir, stateName) }

// loadState reads the state. What cannot be read counts as lost.
func (l layout) loadState() (*state, error) {
	s := &state{Mounted: make(map[string]uint64)}
	f, err := os.Open(l.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var read state
	if fi.Size() > maxState || json.NewDecoder(f).Decode(&read) != nil {
		return s, nil
	}
	if read.Mounted == nil {
		read.Mounted = make(map[string]uint64)
	}
	return &read, nil
}

// saveState writes the state, in one step.
func (l layout) saveState(s *state) error {
	f, err := atomicfile.Create(l.stateFile())
	if err != nil {
		return err
	}
	defer f.Discard()
	enc := json.NewEncoder(f)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("%s: %w", l.stateFile(), err)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return f.Commit()
}

// arrange puts the devices, which come in the order of their numbers, into that
// in which they were attached, the newest last, and remembers it: those that
// were there before stay where they were, unless they were attached anew.
func (s *state) arrange(boot string, devices []Device) []Device {
	sameBoot := s.Boot == boot
	if !sameBoot {
		s.Boot = boot
		clear(s.Mounted)
	}
	var kept, fresh []Device
	for _, old := range s.Attached {
		i := slices.IndexFunc(devices, func(d Device) bool { return d.Name == old.Name && (!sameBoot || d.Seq == old.Seq) })
		if i >= 0 {
			kept = append(kept, devices[i])
		}
	}
	for _, d := range devices {
		if !slices.ContainsFunc(kept, func(k Device) bool { return k.Name == d.Name }) {
			fresh = append(fresh, d)
		}
	}
	s.Attached = append(kept, fresh...)
	return s.Attached
}
