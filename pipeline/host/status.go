package host

import (
	"cmp"
	"maps"
	"slices"

	"bigdisk/gcp/guest"
)

// Status is what a service is like on this host.
type Status struct {
	Service string `json:"service"`
	// Current is the version in use, at Path; "" if there is none. Mounted is
	// false for a link that leads nowhere, as it does after a boot.
	Current string `json:"current,omitempty"`
	Path    string `json:"path,omitempty"`
	Mounted bool   `json:"mounted"`
	// Versions are those that are mounted.
	Versions []MountedVersion `json:"versions"`
	// Attached are the disks that are there, the newest last.
	Attached []Device `json:"attached"`
	// Report is the last one; nil if there was none.
	Report *guest.Report `json:"report,omitempty"`
}

// MountedVersion is a version that is mounted.
type MountedVersion struct {
	Version string `json:"version"`
	Path    string `json:"path"`
	Format  string `json:"format"`
	Source  string `json:"source"`
}

// ReadStatus looks at a service, changes nothing and waits for nobody. Of the
// options, the service and the directories count.
func ReadStatus(o Options) (*Status, error) {
	o = o.fill()
	l, err := newLayout(o.MountRoot, o.Service)
	if err != nil {
		return nil, err
	}
	s := &Status{Service: o.Service}
	if s.Current, err = l.current(); err != nil {
		return nil, err
	}
	mounts, err := l.mounted()
	if err != nil {
		return nil, err
	}
	for _, version := range slices.Sorted(maps.Keys(mounts)) {
		m := mounts[version]
		s.Versions = append(s.Versions, MountedVersion{version, m.Path, m.Type, cmp.Or(loopFile(m.Source), m.Source)})
	}
	if s.Current != "" {
		s.Path, s.Mounted = l.at(s.Current), isDisk(mounts[s.Current])
	}
	devices, err := o.attached()
	if err != nil {
		return nil, err
	}
	state, err := l.loadState()
	if err != nil {
		return nil, err
	}
	boot, err := guest.BootID()
	if err != nil {
		return nil, err
	}
	s.Attached, s.Report = state.arrange(boot, devices), state.Report
	return s, nil
}
