package gcetest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// guestData is what the inside of an instance has published.
type guestData struct {
	values  map[string]map[string]string // namespace, key
	queries []time.Time                  // of the last minute
}

// Limits on queries of one instance's guest attributes.
const (
	guestPerMinute = 10
	guestPerSecond = 3
)

// SetGuestAttributes publishes values of a namespace as a process inside the
// instance does; an empty value removes the key. It tells whether there is such
// an instance.
func (s *Server) SetGuestAttributes(project, zone, name, namespace string, values map[string]string) bool {
	found := false
	s.locked(func() {
		if i, ok := s.instances.get(place{project, zone}, name); ok {
			found = true
			i.guest.set(namespace, values)
			i.noteReport(namespace)
		}
	})
	return found
}

// GuestQueriesOverLimit counts the reads of guest attributes beyond 10 a minute
// and 3 a second of one instance. They were answered as if nothing was there.
func (s *Server) GuestQueriesOverLimit() (n int) {
	s.locked(func() { n = s.guestOver })
	return n
}

func (g *guestData) set(namespace string, values map[string]string) {
	if g.values == nil {
		g.values = map[string]map[string]string{}
	}
	if g.values[namespace] == nil {
		g.values[namespace] = map[string]string{}
	}
	maps.Copy(g.values[namespace], values)
	maps.DeleteFunc(g.values[namespace], func(_, v string) bool { return v == "" })
}

// query counts a query and tells whether it is within the limits.
func (g *guestData) query(now time.Time) bool {
	g.queries = slices.DeleteFunc(g.queries, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	second := 0
	for _, t := range g.queries {
		if now.Sub(t) < time.Second {
			second++
		}
	}
	if len(g.queries) >= guestPerMinute || second >= guestPerSecond {
		return false
	}
	g.queries = append(g.queries, now)
	return true
}

func (s *Server) getGuestAttributes(c *call) (proto.Message, error) {
	i, err := s.findInstance(c)
	if err != nil {
		return nil, err
	}
	if !guestAttributesEnabled(i.pb) {
		return nil, &apiError{http.StatusPreconditionFailed, "conditionNotMet", "Guest attributes endpoint access is disabled."}
	}
	query := c.query.Get("queryPath")
	if query == "" {
		query = c.query.Get("variableKey")
	}
	namespace, key, _ := strings.Cut(query, "/")
	missing := &apiError{http.StatusNotFound, "notFound", fmt.Sprintf("The resource '%s' of type 'Guest Attribute' was not found.", query)}
	if !i.guest.query(s.present()) {
		s.guestOver++
		return nil, missing
	}
	if i.host != nil && i.host.hosts.spec.Service == namespace {
		i.host.beat(s.present())
	}
	var entries []*computepb.GuestAttributesEntry
	for _, k := range slices.Sorted(maps.Keys(i.guest.values[namespace])) {
		if key == "" || key == k {
			entries = append(entries, &computepb.GuestAttributesEntry{Namespace: &namespace, Key: proto.String(k),
				Value: proto.String(i.guest.values[namespace][k])})
		}
	}
	if len(entries) == 0 {
		return nil, missing
	}
	reply := &computepb.GuestAttributes{Kind: proto.String("compute#guestAttributes"), QueryPath: &query,
		SelfLink:   proto.String(c.link("instances").url() + "/getGuestAttributes/" + query),
		QueryValue: &computepb.GuestAttributesValue{Items: entries}}
	if key != "" && c.query.Get("variableKey") != "" {
		reply.VariableKey, reply.VariableValue = &query, entries[0].Value
	}
	return reply, nil
}

func guestAttributesEnabled(i *computepb.Instance) bool {
	for _, m := range i.GetMetadata().GetItems() {
		if m.GetKey() == "enable-guest-attributes" {
			return strings.EqualFold(m.GetValue(), "true")
		}
	}
	return false
}
