package gcetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// instance is a virtual machine.
type instance struct {
	pb          *computepb.Instance
	place       place
	machineType string
	attachments []*attachment
	gone        bool
	guest       guestData
	host        *host // nil for an instance that is no simulated host
}

func (i *instance) message() proto.Message { return i.pb }

func (i *instance) link() link {
	return link{i.place.project, i.place.zone, "instances", i.pb.GetName()}
}

// AddInstance puts an instance into the zone. It is RUNNING and an n2-standard-8
// unless it says otherwise. Its Disks must name disks that exist; they are
// attached without further checks. One of the same name is replaced, as a managed
// instance group does when it recreates one: the old attachments are gone.
func (s *Server) AddInstance(project, zone string, pb *computepb.Instance) error {
	var err error
	s.locked(func() { _, err = s.addInstance(place{project, zone}, pb) })
	return err
}

// RemoveInstance deletes an instance, if there is one. Its disks stay, except for
// those with autoDelete.
func (s *Server) RemoveInstance(project, zone, name string) {
	s.locked(func() {
		if i, ok := s.instances.get(place{project, zone}, name); ok {
			s.removeInstance(i)
		}
	})
}

// SetInstanceStatus makes an instance for example TERMINATED. It tells whether
// there is one.
func (s *Server) SetInstanceStatus(project, zone, name, status string) bool {
	found := false
	s.locked(func() {
		if i, ok := s.instances.get(place{project, zone}, name); ok {
			found = true
			i.pb = edited(i.pb, func(m *computepb.Instance) { m.Status = &status })
		}
	})
	return found
}

func (s *Server) addInstance(p place, pb *computepb.Instance) (*instance, error) {
	if err := checkName("resource.name", pb.GetName()); err != nil {
		return nil, err
	}
	disks, err := s.disksOf(p, pb)
	if err != nil {
		return nil, fmt.Errorf("add instance %s: %w", pb.GetName(), err)
	}
	if old, ok := s.instances.get(p, pb.GetName()); ok {
		s.removeInstance(old)
	}
	i := &instance{place: p, machineType: "n2-standard-8"}
	if mt := pb.GetMachineType(); mt != "" {
		i.machineType = mt[strings.LastIndexByte(mt, '/')+1:]
	}
	i.pb = edited(pb, func(m *computepb.Instance) {
		m.Kind, m.Id, m.Disks = proto.String("compute#instance"), proto.Uint64(s.newID()), nil
		m.SelfLink, m.Zone = proto.String(link{p.project, p.zone, "instances", pb.GetName()}.url()), proto.String(zoneURL(p.project, p.zone))
		m.MachineType = proto.String(zoneURL(p.project, p.zone) + "/machineTypes/" + i.machineType)
		m.CreationTimestamp, m.LastStartTimestamp = s.now(), s.now()
		m.LabelFingerprint = proto.String(fingerprint(m.Labels))
		if m.Status == nil {
			m.Status = proto.String("RUNNING")
		}
	})
	for n, ad := range pb.Disks {
		s.attached(s.newAttachment(i, disks[n], ad))
	}
	s.instances.put(p, pb.GetName(), i)
	return i, nil
}

// disksOf finds the disks that an instance is to start with.
func (s *Server) disksOf(p place, pb *computepb.Instance) ([]*disk, error) {
	var disks []*disk
	for n, ad := range pb.Disks {
		l, _ := parseLink(ad.GetSource(), p.project)
		d, ok := s.disks.get(place{l.project, l.zone}, l.name)
		if !ok || l.zone != p.zone {
			return nil, fmt.Errorf("disks[%d]: %w", n, errNotFound(ad.GetSource()))
		}
		disks = append(disks, d)
	}
	return disks, nil
}

func (s *Server) removeInstance(i *instance) {
	i.gone = true
	s.instances.remove(i.place, i.pb.GetName())
	delete(s.changing, i)
	for _, a := range slices.Clone(i.attachments) {
		s.detached(a)
		if a.pb.GetAutoDelete() && len(a.disk.attachments) == 0 {
			s.disks.remove(a.disk.place, a.disk.pb.GetName())
		}
	}
}

func (s *Server) findInstance(c *call) (*instance, error) {
	i, ok := s.instances.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("instances").path())
	}
	return i, nil
}

func (s *Server) getInstance(c *call) (proto.Message, error) {
	i, err := s.findInstance(c)
	if err != nil {
		return nil, err
	}
	return i.pb, nil
}

func (s *Server) listInstances(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.instances, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.InstanceList{Kind: proto.String("compute#instanceList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Instance))
	}
	return list, nil
}

func (s *Server) aggregateInstances(c *call) (proto.Message, error) {
	places, unreachable := s.scopes(c.project)
	items, next, err := page(s, c, collect(s.instances, places))
	if err != nil {
		return nil, err
	}
	list := &computepb.InstanceAggregatedList{Kind: proto.String("compute#instanceAggregatedList"), NextPageToken: next,
		Unreachables: unreachable, Items: map[string]*computepb.InstancesScopedList{}}
	s.aggregate(items, func(scope string, m proto.Message) {
		if list.Items[scope] == nil {
			list.Items[scope] = &computepb.InstancesScopedList{}
		}
		list.Items[scope].Instances = append(list.Items[scope].Instances, m.(*computepb.Instance))
	}, func(scope string, w *computepb.Warning) {
		list.Items[scope] = &computepb.InstancesScopedList{Warning: w}
	})
	return list, nil
}

// Attachment is one disk on one instance, as [Server.Attachments] gives it.
type Attachment struct {
	Project, Zone, Instance, Device, Disk, Mode string
	Labels                                      map[string]string // of the disk
	Since                                       time.Time
}

// Attachments are all that are complete, sorted by project, zone, instance and
// device.
func (s *Server) Attachments() []Attachment {
	var all []Attachment
	s.locked(func() {
		for p, byName := range s.instances {
			for name, i := range byName {
				for _, a := range i.attachments {
					if a.state != attaching {
						all = append(all, Attachment{p.project, p.zone, name, a.device, a.disk.pb.GetName(), a.mode, a.disk.pb.GetLabels(), a.since})
					}
				}
			}
		}
	})
	slices.SortFunc(all, func(a, b Attachment) int {
		return slices.Compare([]string{a.Project, a.Zone, a.Instance, a.Device}, []string{b.Project, b.Zone, b.Instance, b.Device})
	})
	return all
}
