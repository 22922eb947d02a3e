package gcetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/guest"
)

// Behaviour is what a simulated host does with a disk that was attached to it.
type Behaviour string

// What hosts do.
const (
	Healthy   Behaviour = "healthy"   // reports ok after HostSpec.Mount
	SlowHost  Behaviour = "slow"      // reports ok after HostSpec.SlowMount
	Sick      Behaviour = "sick"      // reports failed, and stays with what it had
	Silent    Behaviour = "silent"    // reports nothing any more
	Vanishing Behaviour = "vanishing" // is deleted
	Recreated Behaviour = "recreated" // is deleted and comes back with a new ID and boot ID, without the disks
)

// HostSpec describes hosts that look at the disks attached to them and report
// in their guest attributes, as [guest.Report] defines, what has become of the
// one attached last. A disk is one of the service if its device name is
// SERVICE-VERSION.
type HostSpec struct {
	Project string
	Zones   []string // the hosts are dealt out over them
	Count   int
	Prefix  string // of their names; "host" by default
	Service string
	Labels  map[string]string
	// MachineType is n2-standard-8 by default.
	MachineType string
	// Disk names a disk that the nth host of a zone has from the start, and runs,
	// and its device name. None by default.
	Disk func(zone string, n int) (disk, device string)

	// Look is how long a host takes to notice a change of its disks; up to 5 s by default.
	Look Distribution
	// Mount is how long it then takes to check and mount a disk; 1 to 5 s by default.
	Mount Distribution
	// SlowMount is the same for slow hosts; 2 to 4 minutes by default.
	SlowMount Distribution
	// Absence is how long a recreated host is not there; 20 to 60 s by default.
	Absence Distribution
	// Heartbeat is how often a report is renewed; 5 minutes by default.
	Heartbeat time.Duration
	// Behave decides what a host does with a version that it gets for the nth time,
	// counted from 0 and over incarnations. It must not call the server. By
	// default all are healthy.
	Behave func(host, version string, nth int) Behaviour
	// SickError is the error that sick hosts report.
	SickError string
}

func (h *HostSpec) fill() {
	second := time.Second
	for _, d := range []struct {
		to *Distribution
		by Distribution
	}{
		{&h.Look, Uniform(0, 5*second)}, {&h.Mount, Uniform(second, 5*second)},
		{&h.SlowMount, Uniform(120*second, 240*second)}, {&h.Absence, Uniform(20*second, 60*second)},
	} {
		if *d.to == nil {
			*d.to = d.by
		}
	}
	if h.Prefix == "" {
		h.Prefix = "host"
	}
	if h.Heartbeat == 0 {
		h.Heartbeat = 5 * time.Minute
	}
	if h.Behave == nil {
		h.Behave = func(string, string, int) Behaviour { return Healthy }
	}
	if h.SickError == "" {
		h.SickError = "verify image: block 4711 does not have the hash that it should have"
	}
}

// Hosts are simulated hosts of one [HostSpec].
type Hosts struct {
	s    *Server
	spec HostSpec
	all  map[string]*host // by name
}

// AddHosts creates hosts with a boot disk each.
func (s *Server) AddHosts(spec HostSpec) (*Hosts, error) {
	spec.fill()
	hs := &Hosts{s: s, spec: spec, all: map[string]*host{}}
	var err error
	s.locked(func() {
		for n := range spec.Count {
			zone := spec.Zones[n%len(spec.Zones)]
			h := &host{hosts: hs, zone: zone, name: fmt.Sprintf("%s-%s-%d", spec.Prefix, zone, n/len(spec.Zones)),
				times: map[string]int{}}
			if err = h.create(n/len(spec.Zones), true); err != nil {
				return
			}
			hs.all[h.name] = h
		}
		s.hosts = append(s.hosts, hs)
	})
	if err != nil {
		return nil, fmt.Errorf("add hosts: %w", err)
	}
	return hs, nil
}

// create makes the host's instance, for the first time or again.
func (h *host) create(n int, first bool) error {
	s, spec := h.hosts.s, h.hosts.spec
	p := place{spec.Project, h.zone}
	boot := s.addDisk(p, &computepb.Disk{Name: &h.name, SizeGb: proto.Int64(20), Type: proto.String("pd-balanced")})
	pb := &computepb.Instance{Name: &h.name, Labels: spec.Labels,
		Metadata: &computepb.Metadata{Items: []*computepb.Items{{Key: proto.String("enable-guest-attributes"), Value: proto.String("TRUE")}}},
		Disks: []*computepb.AttachedDisk{{Boot: proto.Bool(true), AutoDelete: proto.Bool(true), Mode: proto.String(readWrite),
			Source: proto.String(boot.link().url()), DeviceName: proto.String("boot")}}}
	if spec.MachineType != "" {
		pb.MachineType = &spec.MachineType
	}
	version := ""
	if spec.Disk != nil && first {
		name, device := spec.Disk(h.zone, n)
		if name != "" {
			pb.Disks = append(pb.Disks, &computepb.AttachedDisk{Mode: proto.String(readOnly), DeviceName: &device,
				Source: proto.String(link{p.project, p.zone, "disks", name}.url())})
			version = strings.TrimPrefix(device, spec.Service+"-")
		}
	}
	i, err := s.addInstance(p, pb)
	if err != nil {
		return err
	}
	i.host, h.inst = h, i
	h.bootID = fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", s.rand.Uint32(), s.rand.Uint32()>>16, s.rand.Uint32()>>20, s.rand.Uint32()>>20, s.rand.Uint64()>>16)
	h.report, h.current, h.candidate, h.silent = nil, version, nil, false
	if version != "" {
		h.candidate = i.attachments[len(i.attachments)-1]
		h.say(guest.OK, version, "")
	}
	return nil
}

// Names are those of all hosts ever made, sorted.
func (hs *Hosts) Names() []string { return slices.Sorted(maps.Keys(hs.all)) }

// Current tells which version each host that exists runs, "" for none.
func (hs *Hosts) Current() map[string]string {
	versions := map[string]string{}
	hs.s.locked(func() {
		for name, h := range hs.all {
			if h.inst != nil {
				versions[name] = h.current
			}
		}
	})
	return versions
}

// Remove deletes a host. It tells whether there was one.
func (hs *Hosts) Remove(name string) (found bool) {
	hs.s.locked(func() {
		if h := hs.all[name]; h != nil && h.inst != nil {
			found = true
			h.vanish()
		}
	})
	return found
}

// Recreate deletes a host and brings it back after HostSpec.Absence, with a new
// ID and boot ID and without the disks that were attached by hand, as a managed
// instance group does.
func (hs *Hosts) Recreate(name string) (found bool) {
	hs.s.locked(func() {
		if h := hs.all[name]; h != nil && h.inst != nil {
			found = true
			h.recreate()
		}
	})
	return found
}

// Fail makes a host report that its version failed after all.
func (hs *Hosts) Fail(name, text string) (found bool) {
	hs.s.locked(func() {
		if h := hs.all[name]; h != nil && h.inst != nil && h.candidate != nil {
			found = true
			h.say(guest.Failed, h.version(h.candidate), text)
		}
	})
	return found
}
