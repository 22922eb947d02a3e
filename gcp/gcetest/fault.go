package gcetest

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// Faults of a call. "Before" is before the change was applied; "after" means
// that it was, and only the reply is lost.
const (
	ErrorBefore      FaultKind = "error before"        // Fault.Status, 503 by default
	ErrorAfter       FaultKind = "error after"         // the same, and the change goes on
	ResetBefore      FaultKind = "reset before"        // the connection is reset
	ResetAfter       FaultKind = "reset after"         // the same, and the change goes on
	RateLimited403   FaultKind = "rate limit 403"      // 403 rateLimitExceeded
	RateLimited429   FaultKind = "rate limit 429"      // 429 rateLimitExceeded
	QuotaExceeded    FaultKind = "quota"               // 403 quotaExceeded, at once
	PermissionDenied FaultKind = "permission"          // 403 forbidden
	Slow             FaultKind = "slow"                // the reply comes after Fault.Delay, 30 s by default
	OpQuotaExceeded  FaultKind = "operation quota"     // QUOTA_EXCEEDED in the operation
	OpStockout       FaultKind = "operation stockout"  // ZONE_RESOURCE_POOL_EXHAUSTED in the operation
	OpStockoutLong   FaultKind = "operation stockout+" // ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS
	OpRateExceeded   FaultKind = "operation rate"      // RESOURCE_OPERATION_RATE_EXCEEDED in the operation
	OpInternal       FaultKind = "operation internal"  // INTERNAL_ERROR in the operation
	OpStuck          FaultKind = "operation stuck"     // not DONE before Server.Release
)

// AllFaults are all kinds but OpStuck, which never ends by itself, and
// QuotaExceeded, OpQuotaExceeded and PermissionDenied, which a client does not
// try again.
var AllFaults = []FaultKind{ErrorBefore, ErrorAfter, ResetBefore, ResetAfter, RateLimited403, RateLimited429, Slow,
	OpStockout, OpStockoutLong, OpRateExceeded, OpInternal}

// Fault disturbs calls. It is drawn anew for every call that it matches.
type Fault struct {
	Kind FaultKind
	// Method, Project, Zone and Resource choose the calls; empty matches all, and a
	// * at the end matches any rest: "disks.*".
	Method, Project, Zone, Resource string
	// Probability of a matching call being hit; 0 means 1.
	Probability float64
	// Count is how many calls are hit at most; 0 means any number.
	Count int
	// Skip is how many matching calls go through first.
	Skip int
	// Status of ErrorBefore and ErrorAfter: 500, 502, 503 (the default) or 504.
	Status int
	// Delay of Slow, on the server's clock.
	Delay time.Duration
	// NoHTTPStatus leaves httpErrorStatusCode out of an operation that fails, which
	// clients that look only at that take for success.
	NoHTTPStatus bool

	hits, seen int
}

// AddFault adds a fault; several may hit one call. It returns a function that
// tells how many calls were hit so far.
func (s *Server) AddFault(f Fault) (hits func() int) {
	own := &f
	own.hits, own.seen = 0, 0
	s.locked(func() { s.faults = append(s.faults, own) })
	return func() (n int) {
		s.locked(func() { n = own.hits })
		return n
	}
}

// ClearFaults removes all faults. Operations that are stuck stay so.
func (s *Server) ClearFaults() { s.locked(func() { s.faults = nil }) }

// Stuck gives the names of the operations that OpStuck holds.
func (s *Server) Stuck() []string {
	var names []string
	s.locked(func() {
		for _, byName := range s.operations {
			for name, op := range byName {
				if op.held {
					names = append(names, name)
				}
			}
		}
	})
	slices.Sort(names)
	return names
}

// Release lets operations that are stuck go on: those named, or all.
func (s *Server) Release(names ...string) {
	s.locked(func() {
		for p, byName := range s.operations {
			for name, op := range byName {
				if op.held && (len(names) == 0 || slices.Contains(names, name)) {
					op.held = false
					s.finish(p, op)
				}
			}
		}
	})
}

// fate is what the faults do to one call.
type fate struct {
	delay       time.Duration
	before      *apiError // instead of the change; code 0 is a reset
	after       *apiError // instead of the reply
	inOperation *opError
	stuck       bool
}

// draw decides the fate of a call; s.mu is held.
func (s *Server) draw(c *call) (f fate) {
	for _, fault := range s.faults {
		if !fault.matches(c) || fault.Count > 0 && fault.hits >= fault.Count {
			continue
		}
		fault.seen++
		if fault.seen <= fault.Skip || fault.Probability > 0 && s.rand.Float64() >= fault.Probability {
			continue
		}
		fault.hits++
		c.log.Fault = fault.Kind
		fault.hit(c, &f)
	}
	return f
}

func (f *Fault) matches(c *call) bool {
	return matches(f.Method, c.route.method) && matches(f.Project, c.project) && matches(f.Zone, c.zone) &&
		matches(f.Resource, c.name) && (c.route.change != nil || !f.Kind.inOperation())
}

func (k FaultKind) inOperation() bool {
	switch k {
	case OpQuotaExceeded, OpStockout, OpStockoutLong, OpRateExceeded, OpInternal, OpStuck:
		return true
	}
	return false
}

func (f *Fault) hit(c *call, to *fate) {
	switch f.Kind {
	case ErrorBefore:
		to.before = f.serverError()
	case ErrorAfter:
		to.after = f.serverError()
	case ResetBefore:
		to.before = &apiError{reason: "reset"}
	case ResetAfter:
		to.after = &apiError{reason: "reset"}
	case RateLimited403:
		to.before = errRate(http.StatusForbidden, c)
	case RateLimited429:
		to.before = errRate(http.StatusTooManyRequests, c)
	case QuotaExceeded:
		to.before = &apiError{http.StatusForbidden, "quotaExceeded", "Quota 'SSD_TOTAL_GB' exceeded. Limit: 500.0 in region " + region(c.zone) + "."}
	case PermissionDenied:
		to.before = &apiError{http.StatusForbidden, "forbidden",
			fmt.Sprintf("Required 'compute.%s' permission for 'projects/%s'", c.route.method, c.project)}
	case Slow:
		to.delay = f.Delay
		if to.delay == 0 {
			to.delay = 30 * time.Second
		}
	case OpStuck:
		to.stuck = true
	default:
		to.inOperation = f.late(c)
	}
}

func (f *Fault) serverError() *apiError {
	switch f.Status {
	case http.StatusInternalServerError:
		return &apiError{f.Status, "internalError", "Internal error. Please try again or contact Google Support."}
	case 0:
		return &apiError{http.StatusServiceUnavailable, "backendError", "Backend Error"}
	}
	return &apiError{f.Status, "backendError", "Backend Error"}
}

func (f *Fault) late(c *call) *opError {
	e := &opError{status: http.StatusForbidden, noStatus: f.NoHTTPStatus}
	switch f.Kind {
	case OpQuotaExceeded:
		e.code, e.message = "QUOTA_EXCEEDED", "Quota 'SSD_TOTAL_GB' exceeded.  Limit: 500.0 in region "+region(c.zone)+"."
	case OpRateExceeded:
		e.code, e.message = "RESOURCE_OPERATION_RATE_EXCEEDED", "Operation rate exceeded for resource '"+c.link("").path()+"'. Too frequent operations from the source resource."
	case OpStockout, OpStockoutLong:
		e.code, e.status = "ZONE_RESOURCE_POOL_EXHAUSTED", http.StatusServiceUnavailable
		e.message = fmt.Sprintf("The zone 'projects/%s/zones/%s' does not have enough resources available to fulfill the request.  Try a different zone, or try again later.", c.project, c.zone)
		if f.Kind == OpStockoutLong {
			e.code += "_WITH_DETAILS"
			e.message += " '(resource type:pd-ssd)'."
		}
	default:
		e.code, e.status, e.message = "INTERNAL_ERROR", http.StatusInternalServerError, "Internal error. Please try again or contact Google Support. (Code: '-1')"
	}
	return e
}

func region(zone string) string {
	if len(zone) < 3 {
		return "global"
	}
	return zone[:len(zone)-2]
}

// reset breaks the connection so that the client sees neither reply nor end.
func reset(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler) // the documented way to break off a reply
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // close with RST
	}
	_ = conn.Close()
}
