package gcetest

import (
	"slices"
	"strings"
)

// diskType says what a kind of disk can do.
type diskType struct {
	readers     int      // instances that may have it READ_ONLY at once; 0: none
	accessModes []string // empty: the field is refused
	minGB       int64
	defaultGB   int64
}

// Access modes of Hyperdisk and modes of an attachment.
const (
	readWriteSingle = "READ_WRITE_SINGLE"
	readWriteMany   = "READ_WRITE_MANY"
	readOnlyMany    = "READ_ONLY_MANY"
	readWrite       = "READ_WRITE"
	readOnly        = "READ_ONLY"
)

func diskTypeOf(name string) (diskType, bool) {
	switch name {
	case "pd-standard", "pd-balanced":
		return diskType{readers: 10, minGB: 1, defaultGB: 500}, true
	case "pd-ssd":
		return diskType{readers: 100, minGB: 1, defaultGB: 100}, true
	case "pd-extreme":
		return diskType{readers: 1, minGB: 1, defaultGB: 500}, true
	case "hyperdisk-balanced", "hyperdisk-balanced-high-availability":
		return diskType{accessModes: []string{readWriteSingle, readWriteMany}, minGB: 4, defaultGB: 100}, true
	case "hyperdisk-extreme", "hyperdisk-throughput":
		return diskType{accessModes: []string{readWriteSingle}, minGB: 64, defaultGB: 1000}, true
	case "hyperdisk-ml":
		return diskType{readers: 2500, accessModes: []string{readWriteSingle, readOnlyMany}, minGB: 4, defaultGB: 100}, true
	}
	return diskType{}, false
}

// readerLimit is how many instances may have a disk of the type at once.
func (s *Server) readerLimit(typeName string) int {
	if n, ok := s.opt.ReaderLimits[typeName]; ok {
		return n
	}
	t, _ := diskTypeOf(typeName)
	return t.readers
}

// checkAccessMode refuses access modes that the type does not have.
func checkAccessMode(typeName, mode string) error {
	t, _ := diskTypeOf(typeName)
	if mode == "" || slices.Contains(t.accessModes, mode) {
		return nil
	}
	return errInvalid("resource.accessMode", mode, "Access mode is not supported by disk type %s.", typeName)
}

// fitsMachine refuses types that a series of machines does not take.
func fitsMachine(typeName, machineType string) error {
	if strings.HasPrefix(machineType, "n4-") && typeName != "hyperdisk-balanced" {
		return errBadRequest("%s disk type cannot be used by %s machine type.", typeName, machineType)
	}
	return nil
}
