package gce

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/api/googleapi"
)

// What can go wrong, by what can be done about it. Errors of this package are
// of type [*Error], and errors.Is tells which of these they are.
var (
	// ErrNotFound: there is no such resource.
	ErrNotFound = errors.New("not found")
	// ErrExists: a resource of that name exists, or is being made or deleted.
	ErrExists = errors.New("already exists")
	// ErrInUse: another resource uses it.
	ErrInUse = errors.New("in use")
	// ErrNotReady: it is not ready yet.
	ErrNotReady = errors.New("not ready")
	// ErrInvalid: the request cannot be granted as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrConflict: a fingerprint is stale; read again and redo.
	ErrConflict = errors.New("changed meanwhile")
	// ErrRateLimit: too many calls to the API; later they will do.
	ErrRateLimit = errors.New("rate limit")
	// ErrSourceRate: too many operations on one resource, as disks from one
	// snapshot; in some minutes they will do.
	ErrSourceRate = errors.New("operations on one resource come too fast")
	// ErrStockout: the zone has nothing left to give; later it may.
	ErrStockout = errors.New("zone is out of resources")
	// ErrQuota: the project's quota is used up.
	ErrQuota = errors.New("quota exceeded")
	// ErrPermission: the credentials may not do that, or there are none.
	ErrPermission = errors.New("permission denied")
	// ErrLimit: an instance or a disk cannot have more attachments.
	ErrLimit = errors.New("limit reached")
	// ErrDisabled: an instance does not let its guest attributes be read; its
	// metadata has to have enable-guest-attributes=TRUE.
	ErrDisabled = errors.New("guest attributes are not enabled")
	// ErrUnavailable: the service failed or could not be reached, and it is
	// not known whether the request had an effect.
	ErrUnavailable = errors.New("service unavailable")
	// ErrTimeout: the operation goes on, but was not awaited any longer; or it
	// is not known any more how it ended. Read the resource to find out.
	ErrTimeout = errors.New("operation's end not seen")
)

// Error is a call that failed, or the operation that it began.
type Error struct {
	Kind     error  // one of this package's Err variables
	Verb     string // "insert", "get", …
	Resource string // "projects/P/zones/Z/disks/D"
	// Reason is Google's code for what happened: a reason, as
	// "rateLimitExceeded", or an operation's code, as "QUOTA_EXCEEDED".
	Reason string
	// Operation is the name of the operation that failed; empty where the
	// request was refused.
	Operation string
	// Message is Google's, or that of the connection's error.
	Message string
	Err     error // the cause; nil for a failed operation
}

// Error says what could not be done to what, and why.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %v", e.Verb, e.Resource, e.Kind)
	if e.Reason != "" {
		fmt.Fprintf(&b, " (%s)", e.Reason)
	}
	if e.Message != "" {
		b.WriteString(": " + strings.TrimRight(strings.TrimSpace(e.Message), "."))
	}
	if e.Operation != "" {
		fmt.Fprintf(&b, " [operation %s]", e.Operation)
	}
	return b.String()
}

// Is tells an error's kind.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// what names a call: a verb and a resource.
type what struct{ verb, resource string }

// refused makes an [*Error] of what a client's method returned. A context that
// ended is returned as it is.
func (w what) refused(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s %s: %w", w.verb, w.resource, ended)
	}
	e := &Error{Verb: w.verb, Resource: w.resource, Err: err}
	var api *googleapi.Error
	if errors.As(err, &api) {
		e.Reason, e.Message = reasonOf(api), api.Message
		e.Kind = kindOfStatus(api.Code, e.Reason, api.Message)
		if e.Message == "" {
			e.Message = http.StatusText(api.Code)
		}
		return e
	}
	e.Kind, e.Message = kindOfTransport(err), err.Error()
	return e
}

func reasonOf(api *googleapi.Error) string {
	if len(api.Errors) == 0 {
		return ""
	}
	return api.Errors[0].Reason
}

// kindOfStatus judges a request that was answered with an HTTP error. The same
// status has several meanings, which the reason tells apart.
func kindOfStatus(status int, reason, message string) error {
	switch reason {
	case "rateLimitExceeded", "userRateLimitExceeded":
		return ErrRateLimit
	case "quotaExceeded":
		return ErrQuota
	case "resourceNotReady":
		return ErrNotReady
	case "resourceInUseByAnotherResource", "resourceInUse":
		return ErrInUse
	case "alreadyExists":
		return ErrExists
	}
	if kind := kindOfCode(codeIn(message)); kind != nil {
		return kind
	}
	switch {
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusConflict:
		return ErrExists
	case status == http.StatusPreconditionFailed:
		return ErrConflict
	case status == http.StatusTooManyRequests:
		return ErrRateLimit
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return ErrPermission
	case status >= 500, status == http.StatusRequestTimeout:
		return ErrUnavailable
	}
	return ErrInvalid
}

// codeIn finds a code of operations in the message of a refusal.
func codeIn(message string) string {
	for _, code := range []string{"ZONE_RESOURCE_POOL_EXHAUSTED", "RESOURCE_OPERATION_RATE_EXCEEDED"} {
		if strings.Contains(message, code) {
			return code
		}
	}
	return ""
}

// kindOfCode judges the code of an error inside an operation; nil where the
// code says nothing.
func kindOfCode(code string) error {
	switch code {
	case "":
		return nil
	case "QUOTA_EXCEEDED":
		return ErrQuota
	case "RESOURCE_OPERATION_RATE_EXCEEDED":
		return ErrSourceRate
	case "RATE_LIMIT_EXCEEDED":
		return ErrRateLimit
	case "RESOURCE_NOT_READY":
		return ErrNotReady
	case "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE":
		return ErrInUse
	case "RESOURCE_ALREADY_EXISTS":
		return ErrExists
	case "RESOURCE_NOT_FOUND":
		return ErrNotFound
	case "LIMIT_EXCEEDED", "UNSUPPORTED_OPERATION":
		return ErrLimit
	case "PERMISSIONS_ERROR", "FORBIDDEN":
		return ErrPermission
	case "INTERNAL_ERROR", "BACKEND_ERROR", "SERVICE_UNAVAILABLE":
		return ErrUnavailable
	}
	if strings.Contains(code, "RESOURCE_POOL_EXHAUSTED") || strings.Contains(code, "STOCKOUT") {
		return ErrStockout
	}
	return nil
}

// kindOfTransport judges an error without an answer. Most are worth another
// try; those of names, certificates and credentials are not.
func kindOfTransport(err error) error {
	var noHost *net.DNSError
	if errors.As(err, &noHost) && noHost.IsNotFound || errors.As(err, new(*tls.CertificateVerificationError)) {
		return ErrInvalid
	}
	var credentials *auth.Error
	if errors.As(err, &credentials) && !credentials.Temporary() {
		return ErrPermission
	}
	if errors.As(err, new(*url.Error)) || errors.As(err, new(net.Error)) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.As(err, new(*unavailableError)) || errors.Is(err, context.DeadlineExceeded) {
		return ErrUnavailable
	}
	return ErrInvalid
}

// failed makes an [*Error] of an operation that is DONE, nil where nothing went
// wrong. Both places where an operation tells of errors are looked at.
func (w what) failed(op *computepb.Operation) error {
	errs, status := op.GetError().GetErrors(), int(op.GetHttpErrorStatusCode())
	if len(errs) == 0 && op.GetError() == nil && (status == 0 || status/100 == 2) {
		return nil
	}
	e := &Error{
		Verb: w.verb, Resource: w.resource, Operation: op.GetName(),
		Message: op.GetHttpErrorMessage(), Kind: kindOfStatus(status, "", ""),
	}
	if status == 0 {
		e.Kind = ErrInvalid
	}
	if len(errs) > 0 {
		e.Reason, e.Message = errs[0].GetCode(), errs[0].GetMessage()
	}
	for _, one := range errs {
		if kind := kindOfCode(one.GetCode()); kind != nil {
			e.Kind, e.Reason, e.Message = kind, one.GetCode(), one.GetMessage()
			break
		}
	}
	return e
}
