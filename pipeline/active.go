package pipeline

import (
	"cmp"
	"context"
	"fmt"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules/active"
	"bigdisk/bundle/nixcmd"
	"bigdisk/pipeline/progress"
)

// ActiveModules makes active-modules.json of a lock file: what the newest
// version of each module says about itself, read from opts.From. With
// opts.Flake, only the modules that the flake has now are active; Nix evaluates
// it. With opts.SkipMissing a module that cannot be had goes by its ID. Of the
// other options those about the lock file, the stores and Nix count.
func ActiveModules(ctx context.Context, opts BuildOptions) ([]byte, error) {
	opts.Latest, opts.Modules, opts.Select = 1, nil, ""
	opts = opts.fill()
	src, nix, err := openSources(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	p := new(plan)
	if err := p.chooseRoots(opts, new(givenFiles)); err != nil {
		return nil, err
	}
	ids, err := activeIDs(ctx, opts)
	if err != nil {
		return nil, err
	}
	p.keepActive(ids)
	b := &builder{opts: opts, source: src, nix: nix}
	if err := b.realise(ctx, p); err != nil {
		return nil, err
	}
	if len(p.failed) > 0 && !opts.SkipMissing {
		return nil, &MissingError{p.failed}
	}
	return active.Make(ctx, p.lock, active.Options{IDs: ids, Source: src, SkipMissing: opts.SkipMissing, Jobs: opts.Jobs})
}

// activeIDs are the modules that the flake has; nil without one.
func activeIDs(ctx context.Context, opts BuildOptions) ([]lock.ID, error) {
	if opts.Flake == "" {
		return nil, nil
	}
	stage := opts.Progress.Stage("evaluate", progress.Steps, 1)
	defer stage.Finish()
	flake, err := nixcmd.OpenFlake(ctx, opts.Flake)
	if err != nil {
		return nil, fmt.Errorf("--flake: %w", err)
	}
	attr := cmp.Or(opts.FlakeAttr, nixcmd.DefaultAttr)
	paths, err := opts.Nix.ModulePaths(ctx, flake, "", attr, nil)
	if err != nil {
		return nil, fmt.Errorf("evaluate %s#%s: %w", flake, attr, err)
	}
	stage.Add(1)
	active := make([]lock.ID, 0, len(paths))
	for id := range paths {
		active = append(active, id)
	}
	return active, nil
}

// keepActive drops the entries that nobody asks for.
func (p *plan) keepActive(active []lock.ID) {
	if active == nil {
		return
	}
	wanted := make(map[lock.ID]bool, len(active))
	for _, id := range active {
		wanted[id] = true
	}
	var kept []lock.Entry
	for _, e := range p.entries {
		if wanted[e.ID] {
			kept = append(kept, e)
		}
	}
	p.entries = kept
}
