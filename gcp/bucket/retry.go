package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
)

// slowest is the rate, in bytes per second, that an attempt is given time for.
const slowest = 256 << 10

// retry calls try until it succeeds, fails for good, or the budget is used up.
// The size in bytes of what is transferred bounds the time for one attempt.
func (c *Client) retry(ctx context.Context, what string, size int64, try func(context.Context) error) error {
	end := time.Now().Add(c.budget)
	for delay, attempt := c.delay, 1; ; attempt++ {
		err := c.once(ctx, size, try)
		if err == nil || ctx.Err() != nil || !transient(err) {
			return explain(err)
		}
		wait := max(rand.N(delay), retryAfter(err))
		if time.Now().Add(wait).After(end) {
			return fmt.Errorf("after %d attempts: %w", attempt, explain(err))
		}
		c.log.Warn("trying again", "what", what, "attempt", attempt, "wait", wait, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		delay = min(2*delay, maxDelay)
	}
}

func (c *Client) once(ctx context.Context, size int64, try func(context.Context) error) error {
	limit := c.attempt + time.Duration(size/slowest)*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow{limit})
	defer cancel()
	err := try(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// errSlow is why an attempt was given up.
type errSlow struct{ after time.Duration }

// Error says how long it took.
func (e errSlow) Error() string { return fmt.Sprintf("no answer in %s", e.after) }

// transient says whether another attempt may succeed.
func transient(err error) bool {
	var (
		api     *googleapi.Error
		slow    errSlow
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		request *url.Error
		network net.Error
		login   metadata.NotDefinedError
	)
	switch {
	case errors.As(err, &login): // a machine without a service account will not get one
		return false
	case errors.As(err, &api):
		return api.Code == http.StatusRequestTimeout || api.Code == http.StatusTooManyRequests || api.Code >= 500 || damaged(api)
	case errors.Is(err, context.Canceled), errors.As(err, &cert), errors.As(err, &unknown):
		return false
	case errors.As(err, &slow), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &request), errors.As(err, &network):
		return true
	}
	return storage.ShouldRetry(err)
}

// damaged says whether the server got other bytes than were sent: a 400 like
// that of a bad request, but "Provided CRC32C … doesn't match".
func damaged(err *googleapi.Error) bool {
	return err.Code == http.StatusBadRequest && strings.Contains(strings.ToLower(err.Message), "crc32c")
}

// retryAfter is how long the server wants to be left alone.
func retryAfter(err error) time.Duration {
	var api *googleapi.Error
	if !errors.As(err, &api) {
		return 0
	}
	seconds, err := strconv.ParseUint(api.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// explain gives the errors that callers ask for their names.
func explain(err error) error {
	var api *googleapi.Error
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return fmt.Errorf("bucket: %w", ErrNotFound)
	case errors.Is(err, storage.ErrObjectNotExist):
		return ErrNotFound
	case !errors.As(err, &api):
		return err
	case api.Code == http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case api.Code == http.StatusPreconditionFailed:
		return ErrPrecondition
	}
	return err
}
