package gc

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"bigdisk/gcp/fleet"
)

// idle is how long nothing may have attached or detached a disk before its
// version goes, whatever its age.
const idle = time.Hour

// Version is what was decided of a version.
type Version struct {
	Version string    `json:"version"`
	Created time.Time `json:"created"`
	// Keep says why it stays; "" if it may go.
	Keep string `json:"keep,omitempty"`
	// Resources are all that is of it.
	Resources []Resource `json:"resources"`
}

// objectsAlone reports whether nothing but objects is of the version: no host
// could have it. Such versions are ranked apart, so that however many there
// are, those that hosts may go back to stay.
func (v *Version) objectsAlone() bool {
	return !slices.ContainsFunc(v.Resources, func(r Resource) bool { return r.Kind != Object })
}

// Decision is what was decided of everything.
type Decision struct {
	Versions []Version // newest first
	// Delete is what may go, and Spared what may not although its version may,
	// by path, and why.
	Delete []Resource
	Spared map[string]string
}

// Decide says what may go. It is pure: the same inventory, configuration and
// time give the same decision.
func Decide(cfg *fleet.Config, inv *Inventory, now time.Time) *Decision {
	d := &Decision{Versions: byVersion(inv.Resources), Spared: map[string]string{}}
	ranks := map[bool]int{} // next, of versions that are in the bucket alone or not
	for i := range d.Versions {
		v := &d.Versions[i]
		alone := v.objectsAlone()
		v.Keep = keep(cfg, inv, v, ranks[alone], now)
		ranks[alone]++
		if v.Keep != "" {
			continue
		}
		for _, r := range v.Resources {
			if why := unknown(inv, &r); why != "" {
				d.Spared[r.Path()] = why
				continue
			}
			d.Delete = append(d.Delete, r)
		}
	}
	return d
}

// byVersion groups resources, the newest version first. A version is as old as
// the first thing made of it.
func byVersion(all []Resource) []Version {
	index := map[string]int{}
	var versions []Version
	for _, r := range all {
		i, known := index[r.Version]
		if !known {
			i = len(versions)
			index[r.Version] = i
			versions = append(versions, Version{Version: r.Version, Created: r.Created})
		}
		v := &versions[i]
		v.Resources = append(v.Resources, r)
		if r.Created.Before(v.Created) {
			v.Created = r.Created
		}
	}
	slices.SortFunc(versions, func(a, b Version) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.Version, b.Version))
	})
	return versions
}

// keep says why a version stays.
func keep(cfg *fleet.Config, inv *Inventory, v *Version, rank int, now time.Time) string {
	for _, ref := range inv.Refs {
		if refersTo(cfg, ref, v.Version) {
			return "a rollout refers to it"
		}
	}
	for _, pattern := range cfg.Retention.Protect {
		if protects(pattern, v) {
			return fmt.Sprintf("%s protects it", pattern)
		}
	}
	if rank < cfg.Retention.KeepVersions {
		return fmt.Sprintf("it is one of the newest %d", cfg.Retention.KeepVersions)
	}
	for i := range v.Resources {
		if why := used(inv, &v.Resources[i], now); why != "" {
			return why
		}
	}
	for _, r := range v.Resources {
		if r.Created.IsZero() {
			return "nobody knows how old " + r.Path() + " is"
		}
		if age := now.Sub(r.Created); age < cfg.Retention.MinAge {
			return fmt.Sprintf("%s is %s old, and %s is the least", r.Path(), age.Round(time.Minute), cfg.Retention.MinAge)
		}
	}
	return ""
}

// refersTo reports whether a version that a rollout names is the one with the
// label, or with that part of objects' names.
func refersTo(cfg *fleet.Config, ref, label string) bool {
	return fleet.LabelValue(ref) == label || fleet.ObjectPrefix(cfg.Service, ref) == cfg.Service+"/"+label+"/"
}

// protects matches a pattern with the version and with the names of everything
// of it. A pattern that is none protects: that is the safe side.
func protects(pattern string, v *Version) bool {
	match := func(name string) bool {
		ok, err := path.Match(pattern, name)
		return ok || err != nil
	}
	return match(v.Version) || slices.ContainsFunc(v.Resources, func(r Resource) bool {
		return match(r.Name[strings.LastIndexByte(r.Name, '/')+1:])
	})
}

// used says what uses a resource.
func used(inv *Inventory, r *Resource, now time.Time) string {
	if len(r.Users) > 0 {
		return fmt.Sprintf("%s is attached to %s", r.Path(), r.Users[0])
	}
	if why := inv.Uses[r.Path()]; why != "" {
		return fmt.Sprintf("%s is used: %s", r.Path(), why)
	}
	partial := []string{"zones/" + r.Zone + "/disks/" + r.Name, "projects/" + r.Project + "/*/disks/" + r.Name}
	if r.Kind != Disk {
		partial = []string{"global/" + r.Kind + "s/" + r.Name}
	}
	for _, p := range partial {
		if why := inv.Uses[p]; why != "" && r.Kind != Object {
			return fmt.Sprintf("%s may be used: %s", r.Path(), why)
		}
	}
	if since := now.Sub(r.Touched); !r.Touched.IsZero() && since < idle {
		return fmt.Sprintf("%s was attached or detached %s ago", r.Path(), since.Round(time.Second))
	}
	return ""
}

// unknown says why a resource stays although its version may go: it is where
// something could not be read, or is global while that is so anywhere.
func unknown(inv *Inventory, r *Resource) string {
	if why := inv.UnknownProjects[r.Project]; why != "" {
		return "project " + r.Project + " cannot be read: " + why
	}
	if why := inv.UnknownZones[r.Project+"/"+r.Zone]; r.Kind == Disk && why != "" {
		return "zone " + r.Zone + ": " + why
	}
	if r.Kind != Disk && len(inv.UnknownZones)+len(inv.UnknownProjects) > 0 {
		return "not everything could be read, and it may be used there"
	}
	return ""
}
