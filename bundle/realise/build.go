package realise

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/store"
)

// group sorts paths by the commit that they are built at. Those that cannot be
// built at any fail.
func (r *run) group(ctx context.Context, missing []store.Path) ([]lock.Commit, map[lock.Commit][]store.Path, error) {
	var commits []lock.Commit
	groups := make(map[lock.Commit][]store.Path)
	for _, path := range missing {
		e := r.entries[path]
		if e.ID == "" || r.opts.Flake == nil {
			if err := r.fail(path, r.unavailable(e)); err != nil {
				return nil, nil, nil
			}
			continue
		}
		if groups[e.Commit] == nil {
			commits = append(commits, e.Commit)
		}
		groups[e.Commit] = append(groups[e.Commit], path)
	}
	commits, err := r.dropAbsent(ctx, commits, groups)
	return commits, groups, err
}

// unavailable says why something is not even tried.
func (r *run) unavailable(e lock.Entry) error {
	hint := "no flake is known to build it from: give --flake"
	if e.ID == "" {
		hint = "a path by itself cannot be built"
	}
	return r.withNotes(fmt.Errorf("%w; %s", ErrUnavailable, hint))
}

// withNotes adds what was wrong with substituters.
func (r *run) withNotes(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.notes) == 0 {
		return err
	}
	return fmt.Errorf("%w (Nix warned: %s)", err, strings.Join(r.notes, "; "))
}

// dropAbsent fails what is locked at commits that a local repository lacks.
func (r *run) dropAbsent(ctx context.Context, commits []lock.Commit, groups map[lock.Commit][]store.Path) ([]lock.Commit, error) {
	if r.opts.Flake == nil || r.opts.Flake.Repo == nil || len(commits) == 0 {
		return commits, nil
	}
	repo := r.opts.Flake.Repo
	ids := make([]string, len(commits))
	for i, c := range commits {
		ids[i] = c.String()
	}
	missing, err := repo.Missing(ctx, ids)
	if err != nil || len(missing) == 0 {
		return commits, err
	}
	hint := "fetch the branch that has it, or git fetch origin COMMIT"
	if shallow, err := repo.Shallow(ctx); err == nil && shallow {
		hint = "this is a shallow clone: git fetch --unshallow"
	}
	absent := make(map[string]bool)
	for _, id := range missing {
		absent[id] = true
	}
	var present []lock.Commit
	for _, c := range commits {
		if !absent[c.String()] {
			present = append(present, c)
			continue
		}
		why := r.withNotes(fmt.Errorf("%w, and the repository %s does not have its commit; %s", ErrUnavailable, repo.Dir(), hint))
		for _, path := range groups[c] {
			if r.fail(path, why) != nil {
				return nil, nil
			}
		}
	}
	return present, nil
}

// buildCommit builds paths that are locked at one commit.
func (r *run) buildCommit(ctx context.Context, commit lock.Commit, paths []store.Path) error {
	for attempt := 1; ; attempt++ {
		log := r.newLog()
		modules, err := r.evaluate(ctx, commit, paths, log, attempt < attempts)
		if err != nil {
			return err
		}
		var buildErr error
		if len(modules) > 0 {
			buildErr = r.opts.Client.Build(ctx, outputs(modules, paths), r.opts.KeepGoing, log)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		again := (r.listen(log) || lostDerivation(log) || nixcmd.Crashed(buildErr)) && !builderFailed(log)
		if paths, err = r.settle(ctx, r.unsettled(paths)); err != nil || len(paths) == 0 {
			return err
		}
		if !again || attempt >= attempts || nixcmd.Killed(buildErr) {
			return r.explain(ctx, modules, paths, buildErr, log)
		}
		r.opts.Logger.Info("building again", "commit", commit, "paths", len(paths), "attempt", attempt+1)
		if err := r.wait(ctx, attempt); err != nil {
			return err
		}
	}
}

// builderFailed reports that a builder said no: it will again, whatever a
// substituter that could not be reached would have given.
func builderFailed(log *nixcmd.Log) bool {
	for _, e := range log.Errors() {
		if strings.Contains(e, "' failed with exit code") {
			return true
		}
	}
	return false
}

// lostDerivation reports that garbage collection took a derivation between
// evaluation and build.
func lostDerivation(log *nixcmd.Log) bool {
	for _, e := range log.Errors() {
		if strings.Contains(e, ".drv' is not valid") {
			return true
		}
	}
	return false
}

// outputs are what there is to build, in the order of paths.
func outputs(modules map[store.Path]nixcmd.Module, paths []store.Path) []nixcmd.Output {
	var all []nixcmd.Output
	for _, p := range paths {
		if m, ok := modules[p]; ok {
			all = append(all, m.Output)
		}
	}
	return all
}

// unsettled are those of the paths that have not failed.
func (r *run) unsettled(paths []store.Path) []store.Path {
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []store.Path
	for _, p := range paths {
		if r.failed[p] == nil {
			left = append(left, p)
		}
	}
	return left
}

// evaluate finds out what there is to build for the paths. Those that the
// flake does not have, or makes something else of, fail. When another attempt
// may help, all are left for it.
func (r *run) evaluate(ctx context.Context, commit lock.Commit, paths []store.Path, log *nixcmd.Log, mayRetry bool) (map[store.Path]nixcmd.Module, error) {
	ids := make([]lock.ID, len(paths))
	for i, p := range paths {
		ids[i] = r.entries[p].ID
	}
	found, err := r.modules(ctx, commit, ids, log)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil && mayRetry && (nixcmd.Transient(err.Error()) || nixcmd.Crashed(err)) {
		return nil, nil
	}
	failed := make(map[lock.ID]error)
	if err != nil {
		if found, failed, err = r.evaluateEach(ctx, commit, ids, err); err != nil {
			return nil, err
		}
	}
	modules := make(map[store.Path]nixcmd.Module)
	for i, path := range paths {
		m, ok := found[ids[i]]
		switch why := failed[ids[i]]; {
		case why != nil:
			err = r.fail(path, fmt.Errorf("evaluating %s fails: %w", r.installable(commit, ids[i]), r.withNotes(why)))
		case !ok:
			err = r.fail(path, fmt.Errorf("%s does not exist", r.installable(commit, ids[i])))
		case m.Path != path:
			err = r.fail(path, &MismatchError{Locked: path, Evaluated: m.Path})
		default:
			modules[path] = m
		}
		if err != nil {
			return nil, err
		}
	}
	return modules, nil
}

func (r *run) modules(ctx context.Context, commit lock.Commit, ids []lock.ID, log *nixcmd.Log) (map[lock.ID]nixcmd.Module, error) {
	return r.opts.Client.Modules(ctx, r.opts.Flake, commit.String(), r.opts.Attr, ids, log)
}

// installable is how "nix build" names a module.
func (r *run) installable(commit lock.Commit, id lock.ID) string {
	return fmt.Sprintf(`%s#%s."%s"`, r.opts.Flake.At(commit.String()), r.opts.Attr, id)
}

// evaluateEach finds out which of the modules do not evaluate, when all of
// them at once do not because of why.
func (r *run) evaluateEach(ctx context.Context, commit lock.Commit, ids []lock.ID, why error) (map[lock.ID]nixcmd.Module, map[lock.ID]error, error) {
	failed := make(map[lock.ID]error)
	found := make(map[lock.ID]nixcmd.Module)
	one := len(ids) == 1 || nixcmd.Killed(why)
	if !one {
		// Without any module, what fails has nothing to do with them.
		_, err := r.modules(ctx, commit, nil, nil)
		one = err != nil
	}
	for _, id := range ids {
		if one {
			failed[id] = why
			continue
		}
		m, err := r.modules(ctx, commit, []lock.ID{id}, nil)
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if err != nil {
			failed[id] = err
		}
		for id, m := range m {
			found[id] = m
		}
		if err != nil && !r.opts.KeepGoing {
			break
		}
	}
	return found, failed, nil
}

// explain fails paths that were to be built, each for its own reason.
func (r *run) explain(ctx context.Context, modules map[store.Path]nixcmd.Module, paths []store.Path, buildErr error, log *nixcmd.Log) error {
	if buildErr == nil {
		buildErr = errors.New("Nix reports no failure, but the path is not valid")
	}
	explained := false
	for _, path := range paths {
		why := r.reason(ctx, modules[path], log)
		if why == nil && !r.opts.KeepGoing {
			continue // perhaps it was not even tried
		}
		if why == nil {
			why = buildErr
		}
		explained = true
		if err := r.fail(path, r.withNotes(why)); err != nil {
			return err
		}
	}
	if !explained {
		return r.fail(paths[0], r.withNotes(buildErr))
	}
	return nil
}

// quoted finds the store paths that a message of Nix names.
var quoted = regexp.MustCompile(`'(/nix/store/[^']+\.drv)'`)

// reason finds why a module was not built: the failure of its derivation, or
// of one that it needs. nil if there is none.
func (r *run) reason(ctx context.Context, m nixcmd.Module, log *nixcmd.Log) error {
	if m.Drv == "" {
		return nil
	}
	var needed map[store.Path]bool
	for _, message := range log.Errors() {
		if strings.Contains(message, "dependencies of derivation") || strings.HasPrefix(message, "build of ") {
			continue
		}
		for _, match := range quoted.FindAllStringSubmatch(message, -1) {
			drv := store.Path(match[1])
			if needed == nil && drv != m.Drv {
				// Without an answer only the derivation itself is known to be needed.
				needed, _ = r.opts.Client.Requisites(ctx, m.Drv)
			}
			if drv == m.Drv || needed[drv] {
				return &BuildError{Drv: drv, Message: firstLine(message), Log: log.BuildLog(string(drv))}
			}
		}
	}
	return nil
}

func firstLine(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return strings.TrimRight(line, ";:")
}

// BuildError is a derivation that was not built.
type BuildError struct {
	// Drv is the derivation.
	Drv store.Path
	// Message is what Nix says about it.
	Message string
	// Log are the last lines that its builder wrote.
	Log []string
}

// Error shows the message and the last lines.
func (e *BuildError) Error() string {
	if len(e.Log) == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s; nix log %s shows all that it wrote, which ends:\n    %s", e.Message, e.Drv, strings.Join(e.Log, "\n    "))
}

// Unwrap tells what the log says about the machine.
func (e *BuildError) Unwrap() error {
	return nixcmd.Cause(e.Message + "\n" + strings.Join(e.Log, "\n"))
}
