package gcetest

import (
	"strings"
	"time"
)

// Call is one request that the server got.
type Call struct {
	Time      time.Time // on the server's clock
	Method    string    // as in the discovery document, for example disks.insert
	Project   string
	Zone      string // empty for global methods and aggregated lists
	Resource  string // the name in the path, or of what is to be inserted
	RequestID string
	Status    int       // of the reply; 0 while there is none, or when the connection was reset
	Reason    string    // of the error, for example rateLimitExceeded
	Operation string    // the name of the operation that it started or found
	Repeated  bool      // the request ID was known: nothing was changed
	Fault     FaultKind // that was injected into the call; empty for none
	mutates   bool
	group     Group
}

// Applied tells whether the call changed something, or tried to within an
// operation, whatever became of the reply.
func (c Call) Applied() bool { return c.mutates && c.Operation != "" && !c.Repeated }

// Calls gives all requests so far whose method matches one of the patterns, in
// the order of their arrival. A pattern is a method, or ends in * as "disks.*"
// does; with none given all match.
func (s *Server) Calls(patterns ...string) []Call {
	var out []Call
	s.locked(func() {
		for _, c := range s.calls {
			if len(patterns) == 0 || matchesAny(patterns, c.Method) {
				out = append(out, *c)
			}
		}
	})
	return out
}

// Mutations gives the calls that changed something: what a second run of an
// idempotent program has none of.
func (s *Server) Mutations() []Call {
	var out []Call
	for _, c := range s.Calls() {
		if c.Applied() {
			out = append(out, c)
		}
	}
	return out
}

// ForgetCalls empties the log, so that a test can look at what comes next.
func (s *Server) ForgetCalls() { s.locked(func() { s.calls = nil }) }

func matchesAny(patterns []string, method string) bool {
	for _, p := range patterns {
		if matches(p, method) {
			return true
		}
	}
	return false
}

func matches(pattern, text string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	return pattern == "" || pattern == text || wild && strings.HasPrefix(text, prefix)
}
