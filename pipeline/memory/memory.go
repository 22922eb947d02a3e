// Package memory keeps a program that handles a million store paths on a small
// machine. Go's collector lets the heap grow to twice of what is in use, which
// is what a large store takes again; a soft limit makes it collect earlier
// once that matters, and costs nothing before.
package memory

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// SoftLimit is how many bytes Go's runtime tries to stay below. A million store
// paths with five million files have 1.1 GB in use.
const SoftLimit = 1536 << 20

// every is how often is looked whether the limit is still sensible.
const every = 5 * time.Second

// Limit sets [SoftLimit] for this process, and raises it, until ctx ends, when
// so much is in use that the collector would not get to rest. Those who set
// GOMEMLIMIT have decided for themselves: then Limit does nothing.
func Limit(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(SoftLimit)
	go raise(ctx, every)
}

func raise(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for limit := int64(SoftLimit); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if l := sensible(limit, inUse()); l > limit {
			limit = l
			debug.SetMemoryLimit(limit)
		}
	}
}

// sensible returns the limit to set where live bytes are in use: it leaves a
// quarter of itself to the collector, and grows by halves.
func sensible(limit, live int64) int64 {
	for limit-limit/4 < live {
		limit += limit / 2
	}
	return limit
}

// inUse is how many bytes of the heap the last collection left.
func inUse() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
