// Package bucket keeps objects in Cloud Storage safely: writes that lose no
// update and overwrite nobody's object, reads that go on after a lost
// connection, and uploads of large objects in parts, in parallel, checked end
// to end, that a later run takes up where an earlier one was killed.
//
// Every call is tried again, within a budget of time, when its error may be
// gone at the next attempt; all writes are conditional, so that an attempt
// whose reply was lost is found instead of repeated.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"
	htransport "google.golang.org/api/transport/http"
)

var (
	// ErrNotFound is wrapped when there is no such object or bucket.
	ErrNotFound = errors.New("not found")
	// ErrPrecondition is wrapped when an object is not, or no longer, in the
	// generation that a write wants to replace.
	ErrPrecondition = errors.New("changed by somebody else")
	// ErrExists is wrapped when an object that was to be made exists with other
	// contents.
	ErrExists = errors.New("exists with other contents")
	// ErrChecksum is wrapped when the bucket holds other bytes than were sent.
	ErrChecksum = errors.New("checksum mismatch")
)

const (
	// DefaultBudget is how long a call is tried.
	DefaultBudget = 5 * time.Minute
	// DefaultAttempt is how long one attempt may take, before its bytes count.
	DefaultAttempt = time.Minute
	// DefaultDelay is the longest first wait before another attempt.
	DefaultDelay = 500 * time.Millisecond

	maxDelay     = 30 * time.Second
	connections  = 64 // idle ones that are kept
	emulatorHost = "STORAGE_EMULATOR_HOST"
)

// Options say how a client works. The zero value is a sensible default.
type Options struct {
	// Transport carries the requests, below authentication; nil is one with a
	// connection for each request under way.
	Transport http.RoundTripper
	// Budget bounds the time for one call with all its attempts; 0 is
	// [DefaultBudget].
	Budget time.Duration
	// Attempt bounds the time for one attempt, to which a second is added for
	// every 256 KiB that it transfers; 0 is [DefaultAttempt].
	Attempt time.Duration
	// Delay bounds the first wait between attempts, which then doubles; 0 is
	// [DefaultDelay].
	Delay time.Duration
	// Logger is told of attempts that failed; nil drops it.
	Logger *slog.Logger
}

// Client talks to Cloud Storage, or to the emulator that the environment
// variable STORAGE_EMULATOR_HOST names. It is safe for concurrent use.
type Client struct {
	gcs                    *storage.Client
	budget, attempt, delay time.Duration
	log                    *slog.Logger
}

// New returns a client with the Application Default Credentials, or with none
// where there is an emulator.
func New(ctx context.Context, opts Options) (*Client, error) {
	transport := opts.Transport
	if transport == nil {
		transport = defaultTransport()
	}
	if os.Getenv(emulatorHost) == "" {
		var err error
		transport, err = htransport.NewTransport(ctx, transport, option.WithScopes(storage.ScopeReadWrite))
		if err != nil {
			return nil, fmt.Errorf("credentials for Cloud Storage (\"gcloud auth application-default login\" makes some): %w", err)
		}
	}
	gcs, err := storage.NewClient(ctx, option.WithHTTPClient(&http.Client{Transport: transport}), storage.WithJSONReads())
	if err != nil {
		return nil, fmt.Errorf("Cloud Storage: %w", err)
	}
	gcs.SetRetry(storage.WithPolicy(storage.RetryNever)) // what may be repeated is known here
	c := &Client{
		gcs: gcs, log: opts.Logger, budget: orDefault(opts.Budget, DefaultBudget),
		attempt: orDefault(opts.Attempt, DefaultAttempt), delay: orDefault(opts.Delay, DefaultDelay),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// defaultTransport makes a connection for each request under way: over HTTP/2,
// all would share one, and its bandwidth.
func defaultTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.MaxIdleConns = connections
	t.MaxIdleConnsPerHost = connections
	t.ResponseHeaderTimeout = 2 * time.Minute
	return t
}

// Close releases the client's connections.
func (c *Client) Close() error { return c.gcs.Close() }

// object is the handle of an object, for errors, too.
func (c *Client) object(bucket, object string) *storage.ObjectHandle {
	return c.gcs.Bucket(bucket).Object(object)
}

// named says which object an error is about.
func named(bucket, object string, err error) error {
	return fmt.Errorf("%s: %w", URL(bucket, object), err)
}
