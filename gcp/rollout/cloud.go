// Package rollout moves hosts to a new version of a disk, wave by wave, and back.
//
// A [Controller] holds the service's lease (package lease) and with it the
// document that remembers the rollout (package state). It looks at the fleet
// through a [Cloud] (package world), works out who is next (package plan), and
// changes a bounded number of hosts at a time, each by what it reads of it
// (package hostchange). It may be killed at any moment: what was in flight is
// found again.
//
// One goroutine, Run's, decides everything and owns all memory; others change
// one host each, look at the fleet or make a disk, and send it what came of it.
package rollout

import (
	"context"
	"time"

	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/world"
)

// Cloud is what a rollout asks of Compute Engine. Every method that changes
// something returns when that is done or has failed; after an error that does
// not say what happened, callers read again. Errors about changes that will
// never succeed wrap [world.ErrFinal], those about instances that are gone
// [world.ErrGone].
type Cloud interface {
	// Look reads all hosts and all of the service's disks. Zones that cannot be read
	// are in Unknown, and nothing of theirs in Hosts and Disks.
	Look(ctx context.Context) (*world.World, error)
	// Host reads one instance.
	Host(ctx context.Context, id world.ID) (*world.Host, error)
	// Report reads what a host says of itself; errors are those of
	// [guest.Parse], [world.ErrGone], or others that may pass.
	Report(ctx context.Context, id world.ID) (guest.Report, error)
	// Attach attaches a disk READ_ONLY.
	Attach(ctx context.Context, host, disk world.ID, device string) error
	// Detach detaches by device name. A device that is not there is no error.
	Detach(ctx context.Context, host world.ID, device string) error
	// CreateDisk makes a copy of a version's disk. One that is there already and
	// right is no error.
	CreateDisk(ctx context.Context, c plan.Copy, version string) error
	// InFlight lists the hosts that an operation of some earlier process is
	// still attaching a disk to or detaching one from.
	InFlight(ctx context.Context) ([]world.ID, error)
	// Now is the time by the clock that instances go by and that tells when they
	// started, as far as it is known from what was read last. This machine's may be
	// wrong.
	Now() time.Time
}
