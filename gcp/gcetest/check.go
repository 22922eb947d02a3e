package gcetest

import (
	"fmt"
	"slices"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/guest"
)

// labelService tells whose a disk is.
const labelService = "service"

const maxViolations = 1000 // that are kept

// Checks are the rules that every mutating call is held against, beside those
// that always hold: it has a request ID, never one of another request; a disk
// with the label service is attached with its mode sent and READ_ONLY; a disk
// is on no more instances than its type allows; and an instance keeps a disk of
// the service that it has reported to be ok, if it had one.
type Checks struct {
	// Service narrows the rules to disks with this label service; all that have
	// one by default.
	Service string
	// Builders are instances that disks of the service may be attached to READ_WRITE.
	Builders []string
	// LimitsUnknown lets clients find out reader limits by running into them.
	LimitsUnknown bool
	// MaxConcurrent is how many instances may be in change at once; 0 is no limit.
	// An instance is in change while a disk of the service is being attached to it
	// or detached, and until it has reported about the one attached last, ok or
	// failed.
	MaxConcurrent int
	// MaxPerZone is the same for each zone of a project; 0 is no limit.
	MaxPerZone func(project, zone string) int
	// ChangeTimeout is how long an instance that reports nothing counts as in
	// change; 0 is for ever.
	ChangeTimeout time.Duration
	// DeleteGuard forbids to delete, and to try to delete, a disk of the service that is
	// attached or was within this span; 0 allows it.
	DeleteGuard time.Duration
}

// SetChecks replaces the rules.
func (s *Server) SetChecks(c Checks) { s.locked(func() { s.checks = c }) }

// Violations are the rules that were broken so far, in words; the first 1,000.
func (s *Server) Violations() (all []string) {
	s.locked(func() { all = slices.Clone(s.violations) })
	return all
}

// PeakChanging is the largest number of instances that were in change at once,
// in all and in one zone of a project.
func (s *Server) PeakChanging() (all, zone int) {
	s.locked(func() { all, zone = s.peakAll, s.peakZone })
	return all, zone
}

// violate notes that a rule was broken; s.mu is held.
func (s *Server) violate(format string, args ...any) {
	if len(s.violations) < maxViolations {
		s.violations = append(s.violations, s.present().UTC().Format(time.RFC3339Nano)+" "+fmt.Sprintf(format, args...))
	}
}

// guarded tells whether the rules are about the disk.
func (s *Server) guarded(d *disk) bool {
	service := d.pb.GetLabels()[labelService]
	return service != "" && (s.checks.Service == "" || s.checks.Service == service)
}

func (s *Server) checkAttachment(i *instance, d *disk, ad *computepb.AttachedDisk) {
	if !s.guarded(d) {
		return
	}
	if ad.Mode == nil {
		s.violate("instances.attachDisk %s: disk %s without a mode", i.link().path(), d.link().path())
	}
	if ad.GetMode() != readOnly && !slices.Contains(s.checks.Builders, i.pb.GetName()) {
		s.violate("instances.attachDisk %s: disk %s is to be attached %s", i.link().path(), d.link().path(), readWrite)
	}
	if !slices.Contains(s.checks.Builders, i.pb.GetName()) {
		s.checkConcurrency("instances.attachDisk", i)
	}
}

func (s *Server) checkLimit(i *instance, d *disk, limit int) {
	if !s.checks.LimitsUnknown {
		s.violate("instances.attachDisk %s: disk %s has %d instances already, the most that a %s takes",
			i.link().path(), d.link().path(), limit, d.typeName)
	}
}

// checkDetachment is called before the attachment is on its way out.
func (s *Server) checkDetachment(a *attachment) {
	if !s.guarded(a.disk) || slices.Contains(s.checks.Builders, a.inst.pb.GetName()) {
		return
	}
	s.checkConcurrency("instances.detachDisk", a.inst)
	if !a.good() {
		return
	}
	for _, other := range a.inst.attachments {
		if other != a && other.good() && other.disk.pb.GetLabels()[labelService] == a.disk.pb.GetLabels()[labelService] {
			return
		}
	}
	s.violate("instances.detachDisk %s: device %s is the only good disk of the host", a.inst.link().path(), a.device)
}

// good tells whether the instance has said that the disk is ok, and it stays.
func (a *attachment) good() bool {
	return a.state == attached && a.disk.pb.GetStatus() == statusReady && a.health == guest.OK
}

func (s *Server) checkDeletion(d *disk) {
	if s.checks.DeleteGuard <= 0 || !s.guarded(d) {
		return
	}
	last := d.lastAttach
	if d.lastDetach.After(last) {
		last = d.lastDetach
	}
	if len(d.attachments) > 0 {
		s.violate("disks.delete %s: it is attached to %s", d.link().path(), d.attachments[0].inst.link().path())
	} else if ago := s.present().Sub(last); !last.IsZero() && ago < s.checks.DeleteGuard {
		s.violate("disks.delete %s: it was attached until %v ago", d.link().path(), ago)
	}
}

// checkConcurrency counts an instance as being in change from now on.
func (s *Server) checkConcurrency(method string, i *instance) {
	if _, known := s.changing[i]; !known {
		s.changing[i] = s.present()
	}
	all, zone := s.countChanging(i)
	s.peakAll, s.peakZone = max(s.peakAll, all), max(s.peakZone, zone)
	if limit := s.checks.MaxConcurrent; limit > 0 && all > limit {
		s.violate("%s %s: %d instances are in change, %d may be", method, i.link().path(), all, limit)
	}
	if s.checks.MaxPerZone == nil {
		return
	}
	if limit := s.checks.MaxPerZone(i.place.project, i.place.zone); limit > 0 && zone > limit {
		s.violate("%s %s: %d instances of the zone are in change, %d may be", method, i.link().path(), zone, limit)
	}
}

// countChanging counts the instances in change, of all and of the zone of i,
// which counts itself.
func (s *Server) countChanging(i *instance) (all, zone int) {
	for other, since := range s.changing {
		if other != i && !s.inChange(other, since) {
			delete(s.changing, other)
			continue
		}
		all++
		if other.place == i.place {
			zone++
		}
	}
	return all, zone
}

func (s *Server) inChange(i *instance, since time.Time) bool {
	if i.gone {
		return false
	}
	var newest *attachment
	for _, a := range i.attachments {
		if !s.guarded(a.disk) {
			continue
		}
		if a.state != attached {
			return true
		}
		if newest == nil || !a.since.Before(newest.since) {
			newest = a
		}
	}
	if newest == nil || newest.health == guest.OK || newest.health == guest.Failed {
		return false
	}
	return s.checks.ChangeTimeout <= 0 || s.present().Sub(since) < s.checks.ChangeTimeout
}

// noteReport takes down what an instance says about the disk attached last.
// Reports that nobody could read are not taken down.
func (i *instance) noteReport(namespace string) {
	r, err := guest.Parse(i.guest.values[namespace])
	if err != nil {
		return
	}
	for _, a := range i.attachments {
		if a.device == namespace+"-"+r.Version {
			a.health = r.Health
		}
	}
}
