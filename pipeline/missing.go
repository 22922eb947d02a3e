package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/store"
	"bigdisk/image"
)

// MissingError says which roots could not be had, after the others were tried
// too.
type MissingError struct {
	// Errs has an error for each, which names it.
	Errs []error
}

// Error shows all of them.
func (e *MissingError) Error() string {
	if len(e.Errs) == 1 {
		return e.Errs[0].Error()
	}
	lines := make([]string, len(e.Errs))
	for i, err := range e.Errs {
		lines[i] = "\n  " + strings.ReplaceAll(err.Error(), "\n", "\n  ")
	}
	return fmt.Sprintf("%d modules or paths could not be had:%s", len(e.Errs), strings.Join(lines, ""))
}

// Unwrap returns them one by one.
func (e *MissingError) Unwrap() []error { return e.Errs }

// leaveOut takes a root from the plan: reason says why, and named does so with
// the root's name. An entry whose path another entry has too goes with it.
func (p *plan) leaveOut(path store.Path, reason, named error) {
	before := len(p.roots)
	p.roots = slices.DeleteFunc(p.roots, func(r root) bool { return r.path == path })
	if len(p.roots) == before {
		return // it went with another
	}
	p.failed = append(p.failed, named)
	p.extra = slices.DeleteFunc(p.extra, func(e store.Path) bool {
		p.lostExtra = p.lostExtra || e == path
		return e == path
	})
	p.entries = slices.DeleteFunc(p.entries, func(e lock.Entry) bool {
		if e.Path == path {
			mod := image.ManifestModule{ID: e.Key(), Commit: e.Commit.String(), Path: e.Path}
			p.missing = append(p.missing, image.ManifestMissing{ManifestModule: mod, Reason: strings.TrimPrefix(reason.Error(), string(path)+": ")})
		}
		return e.Path == path
	})
}

// checkMissing ends a build that lacks a root, unless it was to go without.
// What was asked for by its path is never left out.
func (b *builder) checkMissing(p *plan) error {
	if len(p.failed) == 0 {
		return nil
	}
	if !b.opts.SkipMissing || p.lostExtra || len(p.roots) == 0 {
		return &MissingError{p.failed}
	}
	position := make(map[string]int)
	for i := range p.lock.Entries {
		position[p.lock.Entries[i].Key()] = i
	}
	slices.SortFunc(p.missing, func(a, b image.ManifestMissing) int { return position[a.ID] - position[b.ID] })
	if b.opts.Logger != nil {
		for _, m := range p.missing {
			b.opts.Logger.Warn("left out module " + m.ID + ": " + string(m.Path) + ": " + m.Reason)
		}
	}
	p.findModules()
	return nil
}

// findClosure finds all that the roots refer to. Where the build is to go on,
// roots that cannot be had are taken from the plan.
func (b *builder) findClosure(ctx context.Context, p *plan, src bundle.InfoSource) error {
	for {
		paths := make([]store.Path, len(p.roots))
		for i, r := range p.roots {
			paths[i] = r.path
		}
		closure, err := bundle.FindClosure(ctx, src, paths, 0)
		if err == nil {
			p.closure = closure
			return nil
		}
		need := (*bundle.NeedError)(nil)
		if ctx.Err() != nil || !b.opts.KeepGoing && !b.opts.SkipMissing || !errors.As(err, &need) {
			return p.blameRoot(err)
		}
		p.leaveOut(need.Root, err, p.blameRoot(err))
		if len(p.roots) == 0 {
			return &MissingError{p.failed}
		}
	}
}
