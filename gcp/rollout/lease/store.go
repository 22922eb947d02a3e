// Package lease keeps a rollout's document in its store while a controller
// works: it takes the lease, renews it with a heartbeat, writes changes at most
// about once a second however many there are, and brings in what other
// processes ask for. Losing the lease ends everything.
//
// The lease is part of the document, so that every write is fenced: each is
// made only if the object is still as it was last read, and a controller that
// was taken for dead cannot write again. Nobody compares clocks of two machines:
// a lease is dead when its heartbeat counter has stood still for its time to
// live, by the clock of the one who watches it.
package lease

import (
	"context"
	"errors"
	"fmt"

	"bigdisk/gcp/rollout/state"
)

// Store is one object that is changed by compare-and-swap.
type Store interface {
	// Read returns the object and its generation; no error, nothing and 0 if there
	// is none.
	Read(ctx context.Context) (data []byte, generation int64, err error)
	// Write replaces the object if its generation is still the one given, 0
	// meaning that there is none, and returns the new one. Otherwise the error
	// wraps [ErrConflict].
	Write(ctx context.Context, data []byte, generation int64) (int64, error)
}

var (
	// ErrConflict is wrapped by a Store's errors about objects that somebody
	// else has written in between.
	ErrConflict = errors.New("the object was changed by somebody else")
	// ErrHeld is wrapped by errors about a lease that a living process holds.
	ErrHeld = errors.New("another controller is at work")
	// ErrLost is wrapped by errors about a lease that this process had and has
	// no longer, or may not have.
	ErrLost = errors.New("the lease is lost")
)

// Read returns a service's document and its generation: an empty document and
// 0 if there is none yet.
func Read(ctx context.Context, store Store, service string) (*state.Document, int64, error) {
	data, generation, err := store.Read(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("rollout state of %s: %w", service, err)
	}
	if generation == 0 {
		return state.New(service), 0, nil
	}
	d, err := state.Decode(data, service)
	if at, ok := store.(interface{ URL() string }); ok && err != nil {
		err = fmt.Errorf("%s: %w", at.URL(), err)
	}
	return d, generation, err
}

// Edit changes the document once, by compare-and-swap, without the lease: for
// processes that ask something of the controller. edit may be called several
// times.
func Edit(ctx context.Context, store Store, service string, edit func(*state.Document) error) (*state.Document, error) {
	for try := 0; ; try++ {
		d, generation, err := Read(ctx, store, service)
		if err != nil {
			return nil, err
		}
		if err := edit(d); err != nil {
			return nil, err
		}
		data, err := d.Encode()
		if err != nil {
			return nil, err
		}
		_, err = store.Write(ctx, data, generation)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, ErrConflict) || try == editTries {
			return nil, fmt.Errorf("rollout state of %s: %w", service, err)
		}
		if err := Sleep(ctx, editPause); err != nil {
			return nil, err
		}
	}
}
