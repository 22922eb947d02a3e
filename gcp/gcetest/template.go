package gcetest

import (
	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

type template struct{ pb *computepb.InstanceTemplate }

func (t *template) message() proto.Message { return t.pb }

// AddTemplate puts an instance template into the project, or replaces the one of
// that name.
func (s *Server) AddTemplate(project string, pb *computepb.InstanceTemplate) {
	s.locked(func() {
		self := link{project, "", "instanceTemplates", pb.GetName()}
		s.templates.put(place{project, ""}, pb.GetName(), &template{edited(pb, func(m *computepb.InstanceTemplate) {
			m.Kind, m.Id = proto.String("compute#instanceTemplate"), proto.Uint64(s.newID())
			m.CreationTimestamp, m.SelfLink = s.now(), proto.String(self.url())
		})})
	})
}

// RemoveTemplate deletes an instance template, if there is one.
func (s *Server) RemoveTemplate(project, name string) {
	s.locked(func() { s.templates.remove(place{project, ""}, name) })
}

func (s *Server) getTemplate(c *call) (proto.Message, error) {
	t, ok := s.templates.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("instanceTemplates").path())
	}
	return t.pb, nil
}

func (s *Server) listTemplates(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.templates, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.InstanceTemplateList{Kind: proto.String("compute#instanceTemplateList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.InstanceTemplate))
	}
	return list, nil
}

func (s *Server) aggregateTemplates(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.templates, []place{{c.project, ""}}))
	if err != nil {
		return nil, err
	}
	scoped := &computepb.InstanceTemplatesScopedList{}
	for _, it := range items {
		scoped.InstanceTemplates = append(scoped.InstanceTemplates, it.m.(*computepb.InstanceTemplate))
	}
	if len(items) == 0 {
		scoped.Warning = scopeWarning("NO_RESULTS_ON_PAGE", "global", "There are no results for scope '%s' on this page.")
	}
	return &computepb.InstanceTemplateAggregatedList{Kind: proto.String("compute#instanceTemplateAggregatedList"), NextPageToken: next,
		Items: map[string]*computepb.InstanceTemplatesScopedList{"global": scoped}}, nil
}
