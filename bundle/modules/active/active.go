// Package active makes active-modules.json, the list of modules for a registry:
// in flow the locked versions and a source of their store paths, out flows what
// the newest of each says about itself.
package active

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
)

// Options say what is listed as active.
type Options struct {
	// IDs are the active modules, those of a flake for instance; nil are all
	// that are locked. One that is not locked is an error.
	IDs []lock.ID
	// Source is where the modules are read that say their names and descriptions.
	Source source.Source
	// SkipMissing gives a module that the source does not have its ID as name,
	// and no description.
	SkipMissing bool
	// Jobs is how many modules are read at a time; 0 is 8.
	Jobs int
}

// Make makes active-modules.json: for each active module what its newest locked
// version says about itself.
func Make(ctx context.Context, f *lock.File, opts Options) ([]byte, error) {
	entries, err := activeEntries(f, opts.IDs)
	if err != nil {
		return nil, err
	}
	newest, err := (&lock.File{Entries: entries}).Select(lock.Selection{Latest: 1})
	if err != nil {
		return nil, err
	}
	infos := make([]bundle.ModuleInfo, len(newest))
	group, ctx := errgroup.WithContext(ctx)
	if opts.Jobs <= 0 {
		opts.Jobs = 8
	}
	group.SetLimit(opts.Jobs)
	for i, e := range newest {
		group.Go(func() (err error) {
			infos[i], err = moduleInfo(ctx, opts.Source, e.Path)
			if opts.SkipMissing && errors.Is(err, source.ErrNotFound) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("module %s: %w", e.Key(), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	said := make(map[store.Path]bundle.ModuleInfo, len(newest))
	for i, e := range newest {
		said[e.Path] = infos[i]
	}
	return bundle.ActiveModules(entries, said)
}

// activeEntries are the entries of the active modules.
func activeEntries(f *lock.File, ids []lock.ID) ([]lock.Entry, error) {
	if ids == nil {
		return f.Entries, nil
	}
	locked := make(map[lock.ID]bool, len(ids)) // of the active ones
	for _, id := range ids {
		locked[id] = false
	}
	var entries []lock.Entry
	for _, e := range f.Entries {
		if _, active := locked[e.ID]; active {
			locked[e.ID] = true
			entries = append(entries, e)
		}
	}
	for _, id := range ids {
		if !locked[id] {
			return nil, fmt.Errorf("module %q is active but %w: run bigdisk lock update", id, modules.ErrUnknown)
		}
	}
	return entries, nil
}

// moduleInfo reads what a module says about itself; nothing if it is no file,
// or too large.
func moduleInfo(ctx context.Context, src source.Source, path store.Path) (bundle.ModuleInfo, error) {
	info, err := src.Info(ctx, path)
	if err != nil {
		return bundle.ModuleInfo{}, err
	}
	contents, err := src.Open(ctx, info)
	if err != nil {
		return bundle.ModuleInfo{}, err
	}
	defer contents.Close()
	e, err := contents.Next()
	if err != nil || e.Kind != store.Regular || e.Size > bundle.MaxModuleFile {
		return bundle.ModuleInfo{}, err
	}
	var data bytes.Buffer
	if _, err := io.Copy(&data, contents); err != nil {
		return bundle.ModuleInfo{}, err
	}
	// Only at the end is it known that the contents are what they should be.
	if _, err := contents.Next(); err != io.EOF {
		return bundle.ModuleInfo{}, fmt.Errorf("%s: more than a file: %w", path, err)
	}
	return bundle.ParseModuleInfo(data.Bytes()), nil
}
