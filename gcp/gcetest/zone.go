package gcetest

import (
	"slices"
	"strings"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// AddZones adds zones to every project.
func (s *Server) AddZones(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones = append(slices.Clone(s.zones), names...)
	slices.Sort(s.zones)
	s.zones = slices.Compact(s.zones)
}

// SetUnreachable makes zones answer with errors, and aggregated lists name them
// as unreachable, until it is called with false.
func (s *Server) SetUnreachable(unreachable bool, zones ...string) {
	s.locked(func() {
		for _, z := range zones {
			s.unreachable[z] = unreachable
		}
	})
}

func zoneURL(project, zone string) string {
	return linkBase + "projects/" + project + "/zones/" + zone
}

func (s *Server) zonePb(project, zone string) *computepb.Zone {
	region := zone[:strings.LastIndexByte(zone, '-')]
	return &computepb.Zone{
		Kind: proto.String("compute#zone"), Name: &zone, Description: &zone, Status: proto.String("UP"),
		Id:       proto.Uint64(2000 + uint64(slices.Index(s.zones, zone))),
		Region:   proto.String(linkBase + "projects/" + project + "/regions/" + region),
		SelfLink: proto.String(zoneURL(project, zone)),
	}
}

func (s *Server) getZone(c *call) (proto.Message, error) { return s.zonePb(c.project, c.zone), nil }

func (s *Server) listZones(c *call) (proto.Message, error) {
	var all []item
	for _, z := range s.zones {
		all = append(all, item{"", z, s.zonePb(c.project, z)})
	}
	items, next, err := page(s, c, all)
	if err != nil {
		return nil, err
	}
	list := &computepb.ZoneList{Kind: proto.String("compute#zoneList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Zone))
	}
	return list, nil
}
