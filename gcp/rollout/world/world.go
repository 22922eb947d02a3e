// Package world is what a rollout reads of the fleet: hosts with what is
// attached to them, the disks there are, and the zones that could not be read.
// Readers of the Compute Engine API fill it in; plans and host changes are
// worked out from it. It holds facts only, and no opinion about them.
package world

import (
	"errors"
	"slices"
	"strings"
	"time"

	"bigdisk/gcp/fleet"
)

// Zone is a zone of a project, written PROJECT/ZONE.
type Zone string

// ZoneOf makes a Zone.
func ZoneOf(project, zone string) Zone { return Zone(project + "/" + zone) }

// Project is the zone's project.
func (z Zone) Project() string { p, _, _ := strings.Cut(string(z), "/"); return p }

// Name is the zone's name in its project, as "us-central1-a".
func (z Zone) Name() string { _, n, _ := strings.Cut(string(z), "/"); return n }

// ID names an instance or a disk: PROJECT/ZONE/NAME.
type ID string

// IDOf makes an ID.
func IDOf(project, zone, name string) ID { return ID(project + "/" + zone + "/" + name) }

// Zone is where it is.
func (id ID) Zone() Zone {
	if i := strings.LastIndexByte(string(id), '/'); i >= 0 {
		return Zone(id[:i])
	}
	return ""
}

// Name is its name in its zone.
func (id ID) Name() string { return string(id[strings.LastIndexByte(string(id), '/')+1:]) }

// Valid reports whether id has its three parts.
func (id ID) Valid() bool {
	parts := strings.Split(string(id), "/")
	return len(parts) == 3 && parts[0] != "" && parts[1] != "" && parts[2] != ""
}

// ErrGone is wrapped by errors about instances that are not there: deleted, or
// between deletion and their new life.
var ErrGone = errors.New("the instance does not exist")

// ErrFinal is wrapped by errors about changes that will not succeed however
// often they are tried: no permission, no quota, limits, wrong requests.
var ErrFinal = errors.New("trying again will not help")

// Attachment is a disk on an instance.
type Attachment struct {
	// Device is the device name on the instance.
	Device string
	// Disk is the disk; empty for what is no persistent disk (a local SSD).
	Disk ID
	// Version is the value of the disk's version label; "" for a disk that is
	// not the service's.
	Version string
	// ReadOnly is set for mode READ_ONLY.
	ReadOnly bool
	// Boot is set for the boot disk.
	Boot bool
}

// Host is an instance that the fleet's filter selects.
type Host struct {
	ID ID
	// Incarnation is the instance's numeric id, which a recreated instance of
	// the same name does not share.
	Incarnation uint64
	// Shared is set for machine types with shared cores, which take fewer
	// disks.
	Shared bool
	// Started is when the instance last started; zero if that is not known.
	Started     time.Time
	Attachments []Attachment
}

// DiskLimit is how many persistent disks an instance takes, with the boot disk:
// what Google documents. A Hyperdisk's limit depends on the machine type and is
// found out by attaching.
func (h *Host) DiskLimit() int {
	if h.Shared {
		return 16
	}
	return 128
}

// Has reports whether a disk of the service's version (the label's value) is
// attached.
func (h *Host) Has(version string) bool {
	return slices.ContainsFunc(h.Attachments, func(a Attachment) bool { return version != "" && a.Version == version })
}

// Ours lists the service's disks on the host, in the order in which they were
// attached.
func (h *Host) Ours() []Attachment {
	var ours []Attachment
	for _, a := range h.Attachments {
		if a.Version != "" && !a.Boot {
			ours = append(ours, a)
		}
	}
	return ours
}

// Below finds the disk of a version (the label's value) that was attached before
// another version's: a host takes what was attached last. ok is false if there is
// none.
func (h *Host) Below(version string) (disk ID, ok bool) {
	ours := h.Ours()
	if len(ours) == 0 || ours[len(ours)-1].Version == version {
		return "", false
	}
	for _, a := range ours {
		if a.Version == version {
			disk, ok = a.Disk, true
		}
	}
	return disk, ok
}

// Disk is a persistent disk that has the service's label.
type Disk struct {
	ID ID
	// Version is the value of the disk's version label.
	Version string
	// Copy is the disk's number among those of its version in its zone, from 1.
	Copy int
	// Ready is set when the disk can be attached, Failed when it never will be.
	Ready, Failed bool
	// Source is the image or snapshot the disk was made from, as a URL; ""
	// once that was deleted.
	SourceImage, SourceSnapshot string
	// Type is the type's name, and SizeGB the size.
	Type   string
	SizeGB int64
	// Users are the instances that it is attached to.
	Users []ID
}

// World is what one look at the fleet saw.
type World struct {
	// Taken is when the look began.
	Taken time.Time
	Hosts map[ID]*Host
	Disks map[ID]*Disk
	// Unknown has the zones that could not be read, and why. What is in them is
	// not known, which is not the same as nothing.
	Unknown map[Zone]string
}

// New returns a world without anything in it.
func New() *World {
	return &World{Hosts: map[ID]*Host{}, Disks: map[ID]*Disk{}, Unknown: map[Zone]string{}}
}

// DisksOf lists a version's disks in a zone, in the order of their copies.
// version is the label's value.
func (w *World) DisksOf(zone Zone, version string) []*Disk {
	var disks []*Disk
	for id, d := range w.Disks {
		if id.Zone() == zone && d.Version == version {
			disks = append(disks, d)
		}
	}
	sortDisks(disks)
	return disks
}

// SameVersion reports whether a host that says reported means version: hosts
// know a version by its disk's device name, which may be a shortened one.
func SameVersion(service, version, reported string) bool {
	reported = fleet.PlainVersion(service, reported)
	return reported == version ||
		service+"-"+reported == fleet.DeviceName(service, version) ||
		fleet.LabelValue(reported) == fleet.LabelValue(version)
}
