package fleet

import "strings"

// DiskType is a type of disk that many instances can read at a time.
type DiskType struct {
	Name string
	// HostsPerDisk is how many instances may have one disk attached, unless
	// the configuration says otherwise: Google's documented limits.
	HostsPerDisk int
	// AccessModes is set where a disk has to be told that it is shared
	// (accessMode READ_ONLY_MANY).
	AccessModes bool
	// MinGB is the least size that a disk of the type can have, in GiB.
	MinGB int64
}

// DiskTypes are those that can be shared.
func DiskTypes() []DiskType {
	return []DiskType{
		{Name: "pd-standard", HostsPerDisk: 10, MinGB: 1},
		{Name: "pd-balanced", HostsPerDisk: 10, MinGB: 1},
		{Name: "pd-ssd", HostsPerDisk: 100, MinGB: 1},
		{Name: "hyperdisk-ml", HostsPerDisk: 2500, AccessModes: true, MinGB: 4},
	}
}

// DiskTypeNamed finds one of [DiskTypes].
func DiskTypeNamed(name string) (DiskType, bool) {
	for _, t := range DiskTypes() {
		if t.Name == name {
			return t, true
		}
	}
	return DiskType{}, false
}

// DiskTypeURL is what the API wants for a disk's type.
func DiskTypeURL(project, zone, diskType string) string {
	return "projects/" + project + "/zones/" + zone + "/diskTypes/" + diskType
}

func diskTypeNames() string {
	var names []string
	for _, t := range DiskTypes() {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}
