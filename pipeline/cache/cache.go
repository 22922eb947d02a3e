// Package cache keeps files under keys, for builds and machines to share: in a
// directory, or in a bucket of Cloud Storage. What a key stands for never
// changes, so a file is written once, and whoever finds it may use it.
package cache

import (
	"context"
	"errors"
	"os"
)

// ErrNotFound is what Get returns for a key that has no file.
var ErrNotFound = errors.New("not in the cache")

// Cache keeps files. It may be used by many goroutines, and by other processes
// at the same time.
type Cache interface {
	// Get opens the file for key, to be read only. The file stays whole until
	// it is closed, even if the cache drops it. An error that wraps ErrNotFound
	// means that there is none.
	Get(ctx context.Context, key string) (*os.File, error)
	// Has tells whether there is a file for key, and counts as a use of it.
	Has(ctx context.Context, key string) (bool, error)
	// New returns an empty file to fill in for Put. It has no name: it is gone
	// when it is closed.
	New() (*os.File, error)
	// Put keeps what is in f under key.
	Put(ctx context.Context, key string, f *os.File) error
	// Drop forgets the file for key, which turned out to be damaged.
	Drop(ctx context.Context, key string) error
	// Trim drops the files that were used longest ago, until the rest is within
	// the cache's bound.
	Trim(ctx context.Context) error
	// String names the cache.
	String() string
}
