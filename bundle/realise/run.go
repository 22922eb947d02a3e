package realise

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/store"
)

// run is one call of Realise.
type run struct {
	*Realiser
	paths []store.Path // wanted, each once
	// entries has for each path the entry that it is built from.
	entries map[store.Path]lock.Entry

	mu     sync.Mutex
	failed map[store.Path]error
	notes  []string // what was wrong with substituters
	warned map[string]bool
	done   int64
	counts []nixcmd.Counts // of each command
}

func newRun(r *Realiser, wants []Want) *run {
	run := &run{Realiser: r, entries: make(map[store.Path]lock.Entry), failed: make(map[store.Path]error), warned: make(map[string]bool)}
	for _, w := range wants {
		have, known := run.entries[w.Path]
		if !known {
			run.paths = append(run.paths, w.Path)
		}
		if have.ID == "" {
			run.entries[w.Path] = w.Entry
		}
	}
	return run
}

// all is the way from paths to paths that are valid.
func (r *run) all(ctx context.Context) error {
	missing, err := r.settle(ctx, r.paths)
	if err != nil || len(missing) == 0 {
		return err
	}
	if missing, err = r.substitute(ctx, missing); err != nil {
		return err
	}
	return r.build(ctx, missing)
}

// failures are those of the wants, in their order.
func (r *run) failures(wants []Want) Failures {
	var all Failures
	for _, w := range wants {
		if err := r.failed[w.Path]; err != nil {
			all = append(all, &Failure{w, err})
		}
	}
	if len(all) > 1 && !r.opts.KeepGoing {
		all = all[:1]
	}
	return all
}

// fail records why a path cannot be had. The error it returns ends the run.
func (r *run) fail(path store.Path, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed[path] == nil {
		r.failed[path] = err
		r.count(1)
	}
	if r.opts.KeepGoing {
		return nil
	}
	return errStop
}

// errStop ends a run that is not to keep going.
var errStop = stop{}

type stop struct{}

// Error says why it stops.
func (stop) Error() string { return "a path could not be had" }

// count tells of n more paths that are settled; r.mu is held.
func (r *run) count(n int) {
	r.done += int64(n)
	r.tell()
}

// tell tells of progress; r.mu is held.
func (r *run) tell() {
	if r.opts.OnProgress == nil {
		return
	}
	p := Progress{Done: r.done, Total: int64(len(r.paths))}
	for _, c := range r.counts {
		p.Built += c.Built
		p.ToBuild += c.ToBuild
		p.Copied += c.Copied
		p.ToCopy += c.ToCopy
		p.CopiedBytes += c.CopiedBytes
		p.BytesToCopy += c.BytesToCopy
	}
	r.opts.OnProgress(p)
}

// newLog makes a log that counts for the run's progress.
func (r *run) newLog() *nixcmd.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.counts)
	r.counts = append(r.counts, nixcmd.Counts{})
	return &nixcmd.Log{OnCounts: func(c nixcmd.Counts) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.counts[i] = c
		r.tell()
	}}
}

// settle protects those of the paths that are valid, and returns the others.
func (r *run) settle(ctx context.Context, paths []store.Path) ([]store.Path, error) {
	for attempt := 1; ; attempt++ {
		invalid, err := r.invalid(ctx, paths)
		if err != nil {
			return nil, err
		}
		missing := make(map[store.Path]bool, len(invalid))
		for _, p := range invalid {
			missing[p] = true
		}
		valid := slices.DeleteFunc(slices.Clone(paths), func(p store.Path) bool { return missing[p] })
		// Until here garbage collection may have taken one of them.
		err = r.opts.Client.Protect(ctx, r.links.next(), valid)
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.count(len(valid))
			return invalid, nil
		}
		if ctx.Err() != nil || attempt >= attempts {
			return nil, err
		}
	}
}

// invalid asks which paths are not valid, again if Nix is not there just now.
func (r *run) invalid(ctx context.Context, paths []store.Path) ([]store.Path, error) {
	for attempt := 1; ; attempt++ {
		invalid, err := r.opts.Client.Invalid(ctx, paths)
		if err == nil || attempt >= attempts || !nixcmd.Transient(err.Error()) && !nixcmd.Crashed(err) {
			return invalid, err
		}
		if err := r.wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// wait waits before another attempt.
func (r *run) wait(ctx context.Context, attempt int) error {
	timer := time.NewTimer(r.opts.RetryDelay << min(attempt-1, 10))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// substitute gets what substituters have, and returns what they have not.
func (r *run) substitute(ctx context.Context, missing []store.Path) ([]store.Path, error) {
	for attempt := 1; ; attempt++ {
		log := r.newLog()
		err := r.opts.Client.Substitute(ctx, missing, log)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		trouble := r.listen(log) || nixcmd.Crashed(err)
		left, settleErr := r.settle(ctx, missing)
		if settleErr != nil {
			return nil, settleErr
		}
		missing = left
		if nixcmd.Killed(err) {
			return r.failAll(missing, err)
		}
		if len(missing) == 0 || !trouble || attempt >= attempts {
			return missing, nil
		}
		r.opts.Logger.Info("asking the substituters again", "paths", len(missing), "attempt", attempt+1)
		if err := r.wait(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// failAll gives paths up for one reason.
func (r *run) failAll(paths []store.Path, err error) ([]store.Path, error) {
	for _, p := range paths {
		if r.fail(p, err) != nil {
			break
		}
	}
	return nil, nil
}

// listen passes warnings on and keeps those about substituters. It reports
// whether something may be different next time.
func (r *run) listen(log *nixcmd.Log) (trouble bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range log.Warnings() {
		trouble = trouble || nixcmd.Transient(w)
		if strings.Contains(w, "; retrying in ") || r.warned[w] {
			continue
		}
		r.warned[w] = true
		r.opts.Logger.Warn("nix: " + w)
		if len(r.notes) < maxNotes {
			r.notes = append(r.notes, w)
		}
	}
	for _, e := range log.Errors() {
		trouble = trouble || nixcmd.Transient(e)
	}
	return trouble
}

// maxNotes is how much is said about substituters in an error.
const maxNotes = 3

// build builds what nobody has, by commit.
func (r *run) build(ctx context.Context, missing []store.Path) error {
	commits, groups, err := r.group(ctx, missing)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.opts.Jobs)
	for _, commit := range commits {
		group.Go(func() error {
			if groupCtx.Err() != nil {
				return groupCtx.Err()
			}
			return r.buildCommit(groupCtx, commit, groups[commit])
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == errStop {
		return nil
	}
	return err
}
