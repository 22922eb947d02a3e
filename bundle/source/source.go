// Package source gets store paths from where they are: a local Nix store, or a
// binary cache in a directory, on a web server or in a bucket.
//
// In flows what --from names, out flow a path's info and its contents, both
// checked. [Parse] makes a [Source] of a string, [Chain] makes one of several.
// Whatever comes from outside is taken to be hostile: nothing gets through
// that is not signed or vouched for by its own store path, no matter how much
// memory or time it asks for.
package source

import (
	"context"
	"errors"
	"fmt"

	"bigdisk/bundle/store"
)

// ErrNotFound is wrapped when a source does not have a path.
var ErrNotFound = errors.New("not found")

// ErrMismatch is wrapped when contents are not those that the path's info
// promised: another hash, or another size.
var ErrMismatch = errors.New("contents are not what was promised")

// Source gives out store paths. All methods are safe for concurrent use, and
// return soon after their context is done, with its error. What fails wraps an
// [*Error], which names path and source; whatever a source can do about a
// failure, trying again included, it has done by then.
type Source interface {
	// String is the source as the user wrote it, without passwords.
	String() string

	// Info returns what is known of the path, never nil without an error.
	// It is trusted: signed by a trusted key, following from the store path
	// itself, or from a database that the user named as a source. The caller
	// may keep it but must not change it. Without the path the error wraps
	// [ErrNotFound].
	Info(ctx context.Context, path store.Path) (*store.PathInfo, error)

	// Open returns the contents of a path, whose info came from Info of this
	// source or of another: they will be those of info.NarHash, or end in an
	// error that wraps [ErrMismatch] or says what else is wrong. A binary cache
	// has received and checked all of it before Open returns; a directory is
	// checked while it is read. The context counts until the contents are
	// closed. Without the path the error wraps [ErrNotFound].
	Open(ctx context.Context, info *store.PathInfo) (store.Contents, error)

	// Close releases what the source holds. It must be the last call, after
	// all contents are closed.
	Close() error
}

// Error says which path could not be had from which source, and why.
type Error struct {
	Path store.Path
	// Source is the source's String.
	Source string
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return string(e.Path) + ": " + e.reason() }

// reason is the message without the path.
func (e *Error) reason() string {
	if e.Err == ErrNotFound {
		return "not in " + e.Source
	}
	if errors.Is(e.Err, ErrNotFound) {
		return fmt.Sprintf("not in %s (%v)", e.Source, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Source, e.Err)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// wrap returns an *Error for err, unless it is nil or one already.
func wrap(path store.Path, s Source, err error) error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return &Error{Path: path, Source: s.String(), Err: err}
}
