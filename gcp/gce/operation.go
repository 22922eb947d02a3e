package gce

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	compute "cloud.google.com/go/compute/apiv1"
)

// mutation is one intended change.
type mutation struct {
	what
	project string
	zone    string // empty for a global resource
	timeout time.Duration
	// send asks for the change. It may be called several times with the same
	// request ID.
	send func(ctx context.Context, requestID string) (*compute.Operation, error)
}

// mutate makes a change and returns when its operation has ended. The request
// ID is kept while it is not known whether the request arrived; an operation
// that failed is followed by another request ID, for the old one would give the
// failed operation again.
func (c *Client) mutate(ctx context.Context, m mutation) error {
	a := c.newAttempts(m.what)
	for {
		op, err := c.begin(ctx, m, a, c.newID())
		if err == nil {
			err = c.finish(ctx, m, op)
		}
		if err == nil || !passes(err) {
			return err
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}

// passes reports whether asking once more, as if for the first time, helps: the
// operation failed for a reason of the service's own, or came too early. Errors
// of calls have had their retries.
func passes(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	if e.Kind == ErrNotReady {
		return true
	}
	return e.Operation != "" && (e.Kind == ErrUnavailable || e.Kind == ErrRateLimit)
}

// begin sends a request until it is answered.
func (c *Client) begin(ctx context.Context, m mutation, a *attempts, requestID string) (*computepb.Operation, error) {
	var op *computepb.Operation
	err := c.call(ctx, c.mutations, m.project, a, func(ctx context.Context) error {
		started, err := m.send(ctx, requestID)
		if err == nil {
			op = started.Proto()
		}
		return err
	})
	return op, err
}

// finish awaits an operation, and looks at how it ended.
func (c *Client) finish(ctx context.Context, m mutation, op *computepb.Operation) error {
	deadline := c.clock.Now().Add(m.timeout)
	a := c.newAttempts(m.what)
	for pause := time.Second; op.GetStatus() != computepb.Operation_DONE; pause = min(2*pause, 10*time.Second) {
		began := c.clock.Now()
		if !began.Before(deadline) {
			return &Error{Kind: ErrTimeout, Verb: m.verb, Resource: m.resource, Operation: op.GetName(),
				Message: "it has not ended in " + m.timeout.String()}
		}
		next, err := c.waitOnce(ctx, m, a, op.GetName())
		switch {
		case errors.Is(err, ErrNotFound):
			return &Error{Kind: ErrTimeout, Verb: m.verb, Resource: m.resource, Operation: op.GetName(),
				Message: "the operation is not known any more", Err: err}
		case err != nil:
			return err
		}
		op = next
		// The call may return at once, whatever the operation does.
		if rest := pause - c.clock.Now().Sub(began); op.GetStatus() != computepb.Operation_DONE && rest > 0 {
			if err := Sleep(ctx, c.clock, rest); err != nil {
				return m.refused(ctx, err)
			}
		}
	}
	return m.failed(op)
}

func (c *Client) waitOnce(ctx context.Context, m mutation, a *attempts, name string) (*computepb.Operation, error) {
	var op *computepb.Operation
	err := c.call(ctx, c.waits, m.project, a, func(ctx context.Context) (err error) {
		if m.zone == "" {
			op, err = c.globalOps.Wait(ctx, &computepb.WaitGlobalOperationRequest{
				Project: m.project, Operation: name}, single(waitTimeout)...)
			return err
		}
		op, err = c.zoneOps.Wait(ctx, &computepb.WaitZoneOperationRequest{
			Project: m.project, Zone: m.zone, Operation: name}, single(waitTimeout)...)
		return err
	})
	return op, err
}
