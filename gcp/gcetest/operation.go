package gcetest

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// change is what a mutating call sets going.
type change struct {
	kind     string // operationType
	target   link
	targetID uint64
	warnings []*computepb.Warnings
	late     *opError        // the operation is bound to fail with this
	work     func() *opError // slow, runs beside everything else, without s.mu
	apply    func() *opError // when the operation is DONE
	undo     func()          // when it has failed, instead of apply
}

// operation is a change on its way.
type operation struct {
	pb     *computepb.Operation
	change *change
	method string
	body   []byte // of the first request
	due    bool   // its time has passed
	held   bool   // stuck until released
	busy   bool   // work goes on
	failed *opError
	done   chan struct{}
}

func (o *operation) message() proto.Message { return o.pb }

// requestKey is what a request ID is unique in.
type requestKey struct{ project, id string }

// mutate starts the operation that the call asks for, or finds the one that an
// earlier call with the same request ID started. s.mu is held.
func (s *Server) mutate(c *call, f fate) (*operation, error) {
	key := requestKey{c.project, c.id}
	if op, ok := s.requests[key]; ok && c.id != "" {
		if op.method != c.route.method || op.change.target.name != c.name || !bytes.Equal(op.body, c.raw) {
			s.violate("%s %s: request ID %s was used before for %s %s", c.route.method, c.name, c.id, op.method, op.change.target.name)
			return nil, errInvalid("requestId", c.id, "The request ID was used before with another request.")
		}
		c.log.Repeated = true
		return op, nil
	}
	ch, err := c.route.change(s, c)
	if err != nil {
		return nil, err
	}
	op := s.startOperation(c, ch, f)
	if c.id != "" {
		s.requests[key] = op
	}
	return op, nil
}

func (s *Server) startOperation(c *call, ch *change, f fate) *operation {
	id := s.newID()
	name := fmt.Sprintf("operation-%d-%012x-%08x-%08x", s.present().UnixMilli(), id&(1<<48-1), s.rand.Uint32(), s.rand.Uint32())
	self := link{c.project, c.zone, "operations", name}
	op := &operation{change: ch, method: c.route.method, body: c.raw, held: f.stuck, busy: ch.work != nil, done: make(chan struct{})}
	op.pb = &computepb.Operation{
		Kind: proto.String("compute#operation"), Id: &id, Name: &name, SelfLink: proto.String(self.url()),
		OperationType: &ch.kind, TargetLink: proto.String(ch.target.url()), TargetId: &ch.targetID,
		Status: computepb.Operation_PENDING.Enum(), Progress: proto.Int32(0), InsertTime: s.now(),
		User: proto.String("tester@example.com"), Warnings: ch.warnings,
	}
	if c.id != "" {
		op.pb.ClientOperationId = &c.id
	}
	if c.zone != "" {
		op.pb.Zone = proto.String(zoneURL(c.project, c.zone))
	}
	if op.failed = ch.late; op.failed == nil {
		op.failed = f.inOperation
	}
	s.operations.put(c.place(), name, op)
	took := s.operationTime(c.route.method)
	s.schedule(took/10, func() { s.runOperation(op) })
	s.schedule(took, func() { op.due = true; s.finish(c.place(), op) })
	if op.busy {
		s.owned.Add(1)
		go s.workOn(c.place(), op)
	}
	return op
}

// workOn does the slow part of an operation.
func (s *Server) workOn(p place, op *operation) {
	defer s.owned.Done()
	failed := op.change.work()
	s.mu.Lock()
	defer s.mu.Unlock()
	op.busy = false
	if op.failed == nil {
		op.failed = failed
	}
	s.finish(p, op)
}

func (s *Server) runOperation(op *operation) {
	if op.pb.GetStatus() == computepb.Operation_PENDING {
		op.pb = edited(op.pb, func(m *computepb.Operation) {
			m.Status, m.StartTime = computepb.Operation_RUNNING.Enum(), s.now()
		})
	}
}

// finish ends an operation that nothing holds up any more; s.mu is held.
func (s *Server) finish(p place, op *operation) {
	if !op.due || op.held || op.busy || op.pb.GetStatus() == computepb.Operation_DONE {
		return
	}
	s.runOperation(op)
	if op.failed != nil {
		if op.change.undo != nil {
			op.change.undo()
		}
	} else if op.change.apply != nil {
		op.failed = op.change.apply()
	}
	op.pb = edited(op.pb, func(m *computepb.Operation) {
		m.Status, m.Progress, m.EndTime = computepb.Operation_DONE.Enum(), proto.Int32(100), s.now()
		if op.failed != nil {
			op.failed.describe(m)
		}
	})
	close(op.done)
	if s.opt.OperationRetention > 0 {
		s.schedule(s.opt.OperationRetention, func() { s.forget(p, op) })
	}
}

func (s *Server) forget(p place, op *operation) {
	s.operations.remove(p, op.pb.GetName())
	delete(s.requests, requestKey{p.project, op.pb.GetClientOperationId()})
}

// describe writes the failure into the operation as the service does.
func (e *opError) describe(m *computepb.Operation) {
	m.Error = &computepb.Error{Errors: []*computepb.Errors{{Code: proto.String(e.code), Message: proto.String(e.message)}}}
	if e.noStatus {
		return
	}
	m.HttpErrorStatusCode = proto.Int32(int32(e.status))
	m.HttpErrorMessage = proto.String(http.StatusText(e.status))
}

func (s *Server) findOperation(c *call) (*operation, error) {
	op, ok := s.operations.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("operations").path())
	}
	return op, nil
}

func (s *Server) getOperation(c *call) (proto.Message, error) {
	op, err := s.findOperation(c)
	if err != nil {
		return nil, err
	}
	return op.pb, nil
}

// waitOperation answers at DONE, or after the limit of such calls.
func (s *Server) waitOperation(c *call) (proto.Message, error) {
	var op *operation
	var err error
	s.locked(func() { op, err = s.findOperation(c) })
	if err != nil {
		return nil, err
	}
	select {
	case <-op.done:
	case <-s.clock.After(s.opt.WaitLimit):
	case <-c.ctx.Done():
	case <-s.closing:
	}
	var pb *computepb.Operation
	s.locked(func() { pb = op.pb })
	return pb, nil
}

func (s *Server) listOperations(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.operations, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.OperationList{Kind: proto.String("compute#operationList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Operation))
	}
	return list, nil
}

// pause lets d pass on the server's clock; false says that the client has gone.
func (s *Server) pause(ctx interface{ Done() <-chan struct{} }, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-s.clock.After(d):
		return true
	case <-ctx.Done():
	case <-s.closing:
	}
	return false
}

func (s *Server) replyTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opt.ReplyLatency(s.rand)
}
