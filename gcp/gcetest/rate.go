package gcetest

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Group is a set of methods that have a rate quota together.
type Group string

// The groups of methods.
const (
	Mutations      Group = "mutations"
	Reads          Group = "reads"
	Lists          Group = "lists"
	OperationReads Group = "operation reads" // get and wait
	GuestReads     Group = "guest attribute reads"
)

// RateLimit is how many calls of a group a project may make within a window of
// the server's clock. The count starts anew with every window, as the service's
// quotas do with every minute.
type RateLimit struct {
	Calls int
	Per   time.Duration
}

type rateKey struct {
	project string
	group   Group
}

type rateWindow struct {
	index int64
	calls int
}

// limited counts a call and tells whether it is one too many; s.mu is held.
func (s *Server) limited(c *call) bool {
	limit, ok := s.opt.RateLimits[c.route.group]
	if !ok || limit.Per <= 0 {
		return false
	}
	key := rateKey{c.project, c.route.group}
	w := s.rates[key]
	if w == nil {
		w = &rateWindow{}
		s.rates[key] = w
	}
	if index := s.present().UnixNano() / int64(limit.Per); index != w.index {
		*w = rateWindow{index: index}
	}
	w.calls++
	return w.calls > limit.Calls
}

func errRate(status int, c *call) *apiError {
	return &apiError{status, "rateLimitExceeded",
		fmt.Sprintf("Quota exceeded for quota group '%s' and limit 'per minute' of service 'compute.googleapis.com' for consumer '%s'.", c.route.group, c.project)}
}

// arrive logs a call, checks what every call is checked for and decides its fate.
func (s *Server) arrive(c *call) (f fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
	c.log = &Call{Time: s.present(), Method: c.route.method, Project: c.project, Zone: c.zone, Resource: c.name,
		RequestID: c.id, mutates: c.route.change != nil, group: c.route.group}
	s.calls = append(s.calls, c.log)
	if c.log.mutates && c.route.takesRequestID() && c.id == "" {
		s.violate("%s %s: no requestId", c.route.method, c.name)
	}
	f = s.draw(c)
	if s.limited(c) && f.before == nil {
		f.before = errRate(http.StatusForbidden, c)
	}
	return f
}

// Peak is the largest number of calls of a group that came from a project (or
// from all, when it is empty) within any span of the length given, of the calls
// that are still in the log. Calls that were refused count.
func (s *Server) Peak(project string, group Group, span time.Duration) int {
	var times []time.Time
	s.locked(func() {
		for _, c := range s.calls {
			if c.group == group && (project == "" || c.Project == project) {
				times = append(times, c.Time)
			}
		}
	})
	slices.SortFunc(times, time.Time.Compare)
	most, first := 0, 0
	for last := range times {
		for times[last].Sub(times[first]) >= span {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}
