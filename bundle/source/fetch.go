package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// fetcher gets the named objects of one binary cache: from a directory, a web
// server, a bucket. One call is one attempt; [downloader] tries again. It is
// safe for concurrent use.
type fetcher interface {
	// fetch opens an object. The name is what nix-cache-info and narinfos are
	// called, or what a narinfo says in URL. If from.offset is not 0, the
	// object may be opened there. Errors wrap [ErrNotFound] if there is no such
	// object, and are [transientError] if another attempt may help; that goes
	// for those of the body's Read, too.
	fetch(ctx context.Context, name string, from position) (*object, error)
	// close releases idle connections.
	close() error
}

// position is how far an object has been received.
type position struct {
	offset int64
	// version is that of the object when it was opened first.
	version string
}

// object is an open object.
type object struct {
	body io.ReadCloser
	// offset is where the body starts: where it was asked to, or 0.
	offset int64
	// size is the whole object's in bytes, -1 if unknown.
	size int64
	// version tells this state of the object from others; "" if unknown.
	version string
}

// transientError may be gone at the next attempt.
type transientError struct {
	err error
	// after is how long the server wants to be left alone.
	after time.Duration
	// unreachable is set if not even a connection could be made.
	unreachable bool
}

// Error is that of the failed attempt.
func (e *transientError) Error() string { return e.err.Error() }

// Unwrap returns why the attempt failed.
func (e *transientError) Unwrap() error { return e.err }

// errRestart is wrapped when an object must be received from its start again.
var errRestart = errors.New("must be received again")

// errChanged is returned when an object was replaced while it was received.
var errChanged = fmt.Errorf("replaced while it was received: %w", errRestart)

// errStalled is the reason when a server sends nothing any more.
type errStalled struct{ after time.Duration }

// Error says how long nothing came.
func (e errStalled) Error() string { return fmt.Sprintf("nothing received for %s", e.after) }
