package gce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	nethttp "net/http"
	"strings"
	"time"

	compute "cloud.google.com/go/compute/apiv1"
	"github.com/google/uuid"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/api/transport/http"
)

// Options of a [Client]; the zero value is for Google's own API.
type Options struct {
	// Endpoint is the API's address where it is not Google's. One that begins
	// with http:// is an emulator's and gets no credentials.
	Endpoint string
	// ClientOptions are for the connection, as credentials.
	ClientOptions []option.ClientOption
	// MutationsPerSecond, ReadsPerSecond and WaitsPerSecond bound the calls to
	// each project: 10, 20 and 20 by default. Below zero there is no limit.
	MutationsPerSecond float64
	ReadsPerSecond     float64
	WaitsPerSecond     float64
	// Retry is how calls are repeated.
	Retry Retry
	// OperationTimeout is how long an operation is awaited, 30 minutes by
	// default; making an image may take four times that.
	OperationTimeout time.Duration
	// Clock is the system's by default.
	Clock Clock
	// Random gives numbers in [0, 1), and may be called by many at a time.
	Random func() float64
	// NewRequestID gives UUIDs.
	NewRequestID func() string
	// Logger hears of retries. The default is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	for value, usual := range map[*float64]float64{&o.MutationsPerSecond: 10, &o.ReadsPerSecond: 20, &o.WaitsPerSecond: 20} {
		if *value == 0 {
			*value = usual
		}
	}
	if o.OperationTimeout <= 0 {
		o.OperationTimeout = 30 * time.Minute
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.NewRequestID == nil {
		o.NewRequestID = uuid.NewString
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Retry = o.Retry.withDefaults()
	return o
}

// Client talks to Compute Engine. It is safe for use by many goroutines, and
// all of them share its limits.
type Client struct {
	images    *compute.ImagesClient
	disks     *compute.DisksClient
	snapshots *compute.SnapshotsClient
	instances *compute.InstancesClient
	templates *compute.InstanceTemplatesClient
	zoneOps   *compute.ZoneOperationsClient
	globalOps *compute.GlobalOperationsClient

	mutations, reads, waits *limiter

	retry     Retry
	opTimeout time.Duration
	clock     Clock
	dated     *dated
	random    func() float64
	newID     func() string
	log       *slog.Logger
}

// New connects a client, with Application Default Credentials unless the
// options say otherwise.
func New(ctx context.Context, opts Options) (*Client, error) {
	opts = opts.withDefaults()
	dial, dated, err := connection(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("compute engine: %w", err)
	}
	c := &Client{
		mutations: newLimiter(opts.Clock, opts.MutationsPerSecond),
		reads:     newLimiter(opts.Clock, opts.ReadsPerSecond),
		waits:     newLimiter(opts.Clock, opts.WaitsPerSecond),
		retry:     opts.Retry, opTimeout: opts.OperationTimeout,
		clock: opts.Clock, dated: dated, random: opts.Random, newID: opts.NewRequestID, log: opts.Logger,
	}
	if err := c.open(ctx, dial); err != nil {
		return nil, errors.Join(fmt.Errorf("compute engine: %w", err), c.Close())
	}
	return c, nil
}

// connection makes the one HTTP client that all services share.
func connection(ctx context.Context, opts Options) ([]option.ClientOption, *dated, error) {
	dial := []option.ClientOption{option.WithScopes("https://www.googleapis.com/auth/cloud-platform")}
	if strings.HasPrefix(opts.Endpoint, "http://") {
		dial = []option.ClientOption{option.WithoutAuthentication()}
	}
	hc, _, err := http.NewClient(ctx, append(dial, opts.ClientOptions...)...)
	if err != nil {
		return nil, nil, err
	}
	own := *hc // it may be the caller's
	d := &dated{next: hc.Transport, clock: opts.Clock}
	if d.next == nil {
		d.next = nethttp.DefaultTransport
	}
	own.Transport = d
	shared := []option.ClientOption{option.WithHTTPClient(&own)}
	if opts.Endpoint != "" {
		shared = append(shared, option.WithEndpoint(strings.TrimRight(opts.Endpoint, "/")))
	}
	return shared, d, nil
}

func (c *Client) open(ctx context.Context, dial []option.ClientOption) error {
	var errs [7]error
	c.images, errs[0] = compute.NewImagesRESTClient(ctx, dial...)
	c.disks, errs[1] = compute.NewDisksRESTClient(ctx, dial...)
	c.snapshots, errs[2] = compute.NewSnapshotsRESTClient(ctx, dial...)
	c.instances, errs[3] = compute.NewInstancesRESTClient(ctx, dial...)
	c.templates, errs[4] = compute.NewInstanceTemplatesRESTClient(ctx, dial...)
	c.zoneOps, errs[5] = compute.NewZoneOperationsRESTClient(ctx, dial...)
	c.globalOps, errs[6] = compute.NewGlobalOperationsRESTClient(ctx, dial...)
	return errors.Join(errs[:]...)
}

// Close lets go of the connections.
func (c *Client) Close() error {
	var errs []error
	if c.images != nil {
		errs = append(errs, c.images.Close())
	}
	if c.disks != nil {
		errs = append(errs, c.disks.Close())
	}
	if c.snapshots != nil {
		errs = append(errs, c.snapshots.Close())
	}
	if c.instances != nil {
		errs = append(errs, c.instances.Close())
	}
	if c.templates != nil {
		errs = append(errs, c.templates.Close())
	}
	if c.zoneOps != nil {
		errs = append(errs, c.zoneOps.Close())
	}
	if c.globalOps != nil {
		errs = append(errs, c.globalOps.Close())
	}
	return errors.Join(errs...)
}

// How long a single call may take: the API's wait call returns within two
// minutes, everything else at once.
const (
	callTimeout = time.Minute
	waitTimeout = 3 * time.Minute
)

// single leaves repeating to this package, which knows more about errors than
// the client does.
func single(timeout time.Duration) []gax.CallOption {
	return []gax.CallOption{
		gax.WithTimeout(timeout),
		gax.WithRetry(func() gax.Retryer { return nil }),
	}
}

// Link is the URL under which the API refers to something of a project, as
// "global/images/NAME" or "zones/Z/disks/NAME".
func Link(project, rest string) string {
	return "https://www.googleapis.com/compute/v1/projects/" + project + "/" + rest
}

// Path is a resource's link without the part that differs between endpoints
// and versions: "projects/P/…". What is no link stays as it is.
func Path(link string) string {
	if i := strings.Index(link, "projects/"); i > 0 && link[i-1] == '/' {
		return link[i:]
	}
	return link
}

// Base is the last part of a link: a resource's own name.
func Base(link string) string { return link[strings.LastIndexByte(link, '/')+1:] }
