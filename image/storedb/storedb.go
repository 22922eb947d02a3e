// Package storedb writes the database that lets Nix use an image as a
// read-only store: the lower store of a layered store.
//
// The database has the schema of Nix's own (version 10; libstore's schema.sql),
// one row in ValidPaths for each store path, and one in Refs for each
// reference. Nix 2.8 and later read it, from a read-only disk too: it is not in
// WAL mode, needs no file beside it, and can be opened with mode=ro as well as
// with immutable=1. What else a store needs on the disk is in [Layout].
//
// SQLite makes the empty database from schema.sql. The rows come sorted, so
// their pages are then laid down one after another instead of inserted: a
// million paths with ten references each take seconds, and memory for little
// more than their names. Ids ascend with the paths, and what a look-up of one
// path reads lies together: the entry of the path's index, its row, and its
// references are within a few pages of each other, and all interior pages are
// in one place.
package storedb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"bigdisk/bundle/store"
)

// DefaultRegistrationTime is the time at which paths were registered, in
// seconds since 1970, unless [Options] say otherwise: the time of every file in
// a store, so that the database does not depend on when it was made.
const DefaultRegistrationTime = 1

// Options for [Write]. The zero value is ready to use.
type Options struct {
	// RegistrationTime is written for every path, in seconds since 1970;
	// 0 means [DefaultRegistrationTime].
	RegistrationTime int64
	// Outputs are the outputs of those derivations that are among the paths,
	// sorted by Drv, then Name; nil if there are none. Nix answers
	// "nix-store --query --outputs" and "--valid-derivers" from them.
	// [ReadOutputs] reads them from a derivation.
	Outputs iter.Seq2[Output, error]
	// TempDir is where references are kept while the database is written, four
	// bytes each, in a file without a name; "" means the database's directory.
	TempDir string
	// Progress is called now and then, from the goroutine that called Write,
	// with the number of steps done and of all steps: two for each path, three
	// for each reference.
	Progress func(done, total int64)
}

// Infos makes what [Write] takes of a slice.
func Infos(infos []*store.PathInfo) iter.Seq2[*store.PathInfo, error] {
	return func(yield func(*store.PathInfo, error) bool) {
		for _, info := range infos {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Write makes the database of a store that holds infos and nothing else, in a
// new file: it is an error if name exists. The same infos and options give the
// same bytes. The file is not synced; after an error it is gone.
//
// infos must be sorted by path, with no path twice, and is ranged over twice,
// to the same effect: reference numbers are only known once all paths are. An
// error that it yields ends Write. Every reference must be a path of infos,
// else the error names it and its referrer: Nix fails on a closure that is not
// whole. Signatures are sorted, as Nix keeps them.
//
// Write ends soon after ctx does, with the cause.
func Write(ctx context.Context, name string, infos iter.Seq2[*store.PathInfo, error], opts Options) error {
	if opts.RegistrationTime == 0 {
		opts.RegistrationTime = DefaultRegistrationTime
	}
	if opts.TempDir == "" {
		opts.TempDir = filepath.Dir(name)
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("store database: %w", err)
	}
	err = write(ctx, out, infos, opts, indexRows)
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		err = errors.Join(err, os.Remove(name))
		return fmt.Errorf("store database: %w", err)
	}
	return nil
}
