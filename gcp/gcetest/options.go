package gcetest

import (
	"strings"
	"time"
)

// Options say what kind of Compute Engine a [Server] is. The zero value is one
// with any project, [DefaultZones], the real clock and operations that take 20
// to 80 ms.
type Options struct {
	// Addr is the TCP address to listen on; a free port of 127.0.0.1 by default.
	Addr string
	// Projects are the ones that exist; with none given every project does.
	Projects []string
	// Zones exist in every project; DefaultZones by default.
	Zones []string
	// Clock is what operations, rates and hosts go by; the real one by default.
	Clock Clock
	// Seed starts the random source of latencies and faults.
	Seed uint64

	// Latency is how long operations take, by default 20 to 80 ms.
	Latency Distribution
	// MethodLatency overrides Latency for methods such as "disks.insert".
	MethodLatency map[string]Distribution
	// ReplyLatency delays every reply; none by default.
	ReplyLatency Distribution
	// WaitLimit is how long an operation's wait call may last; 2 minutes by default.
	WaitLimit time.Duration
	// OperationRetention is how long finished operations and the request IDs that
	// led to them are remembered; for ever by default.
	OperationRetention time.Duration

	// ImageSource looks at the archive that an image is imported from, inside the
	// operation. Without one every archive is a valid one of 1 GiB.
	ImageSource ImageSource
	// KeepFailedImages leaves an image whose import failed behind, with status
	// FAILED. By default it is gone. Which of the two happens is not documented.
	KeepFailedImages bool

	// ReaderLimits is how many instances may have a disk of a type at once, in
	// place of the defaults (10 for pd-standard and pd-balanced, 100 for pd-ssd,
	// 2,500 for hyperdisk-ml).
	ReaderLimits map[string]int
	// DiskLimit gives how many disks a machine type takes, boot disk included. By
	// default 16 for shared-core types and for n4, else 128.
	DiskLimit func(machineType string) int

	// CopiesPerHour is how many images, snapshots and clones one disk gives within
	// an hour before RESOURCE_OPERATION_RATE_EXCEEDED; 6 by default.
	CopiesPerHour int

	// RateLimits refuse calls beyond a rate; none by default.
	RateLimits map[Group]RateLimit
}

// DefaultZones are the zones of a server that is given none.
var DefaultZones = []string{
	"us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f",
	"us-east1-b", "us-east1-c", "us-east1-d", "us-west1-a", "us-west1-b", "us-west1-c",
	"europe-west1-b", "europe-west1-c", "europe-west1-d", "europe-west4-a", "europe-west4-b", "europe-west4-c",
	"asia-east1-a", "asia-east1-b", "asia-east1-c", "asia-northeast1-a",
}

func (o *Options) fill() {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if len(o.Zones) == 0 {
		o.Zones = DefaultZones
	}
	if o.Clock == nil {
		o.Clock = RealClock()
	}
	if o.Latency == nil {
		o.Latency = Uniform(20*time.Millisecond, 80*time.Millisecond)
	}
	if o.WaitLimit == 0 {
		o.WaitLimit = 2 * time.Minute
	}
	if o.CopiesPerHour == 0 {
		o.CopiesPerHour = 6
	}
	if o.DiskLimit == nil {
		o.DiskLimit = defaultDiskLimit
	}
}

func defaultDiskLimit(machineType string) int {
	switch machineType {
	case "f1-micro", "g1-small", "e2-micro", "e2-small", "e2-medium":
		return 16
	}
	if strings.HasPrefix(machineType, "n4-") {
		return 16
	}
	return 128
}
