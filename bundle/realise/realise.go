// Package realise makes locked store paths valid in the local Nix store, and
// keeps them from being collected as garbage while they are needed.
//
// In flow lock entries and store paths. What is not valid yet is substituted;
// what no substituter has is built from the flake at its locked commit, after
// the path that comes out has been compared with the locked one. What could
// not be had comes out as [Failures]. The contents are then in the store below
// [Realiser.Root].
package realise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"bigdisk/bundle/internal/process"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/store"
)

// attempts is how often Nix is asked in all when a failure may be different next
// time. It tries a download several times by itself.
const attempts = 3

// DefaultRetryDelay is the default of [Options.RetryDelay].
const DefaultRetryDelay = 2 * time.Second

// Options say how paths are realised. The zero value is a sensible default.
type Options struct {
	// Client is the Nix to use.
	Client nixcmd.Client
	// Flake is what is built from; nil builds nothing.
	Flake *nixcmd.Flake
	// Attr is the flake's attribute with the modules; "" is
	// [nixcmd.DefaultAttr].
	Attr string
	// Jobs is how many commits are evaluated and built at a time; 0 is the number
	// of CPUs. How much Nix does for each of them is in its configuration.
	Jobs int
	// KeepGoing goes on with the others when a path cannot be had.
	KeepGoing bool
	// RetryDelay is the first wait before Nix is asked again after a failure that
	// may be different next time; it then doubles. 0 is [DefaultRetryDelay].
	RetryDelay time.Duration
	// TempDir holds the links that protect paths; "" is the system's directory
	// for temporary files.
	TempDir string
	// OnProgress is called with each change, if it is set; it must be quick and
	// safe for concurrent use.
	OnProgress func(Progress)
	// Logger gets Nix's warnings; nil drops them.
	Logger *slog.Logger
}

// Progress is how far realising has come.
type Progress struct {
	// Done of Total store paths are settled: valid, or failed.
	Done, Total int64
	// Counts add up what all commands of Nix have done for them.
	nixcmd.Counts
}

// Want is a store path to be had.
type Want struct {
	Path store.Path
	// Entry is the lock entry that asks for it; without an ID the path is asked
	// for by itself, and cannot be built.
	Entry lock.Entry
}

// Entries are the wants of lock entries.
func Entries(entries []lock.Entry) []Want {
	wants := make([]Want, len(entries))
	for i, e := range entries {
		wants[i] = Want{e.Path, e}
	}
	return wants
}

// String names the want: "module ID:TAG: /nix/store/…: commit …".
func (w Want) String() string {
	if w.Entry.ID == "" {
		return "path " + string(w.Path)
	}
	return fmt.Sprintf("module %s: %s: commit %s", w.Entry.Key(), w.Path, w.Entry.Commit)
}

// Failure is a path that could not be had.
type Failure struct {
	Want
	Err error
}

// Error names module, path and commit.
func (f *Failure) Error() string { return f.Want.String() + ": " + f.Err.Error() }

// Unwrap returns the reason.
func (f *Failure) Unwrap() error { return f.Err }

// Failures are paths that could not be had, in the order in which they were
// wanted.
type Failures []*Failure

// Error shows all of them.
func (f Failures) Error() string {
	if len(f) == 1 {
		return f[0].Error()
	}
	lines := make([]string, len(f))
	for i, failure := range f {
		lines[i] = "\n  " + strings.ReplaceAll(failure.Error(), "\n", "\n  ")
	}
	return fmt.Sprintf("%d modules or paths could not be had:%s", len(f), strings.Join(lines, ""))
}

// Unwrap returns them one by one.
func (f Failures) Unwrap() []error {
	errs := make([]error, len(f))
	for i := range f {
		errs[i] = f[i]
	}
	return errs
}

// MismatchError says that a flake gives another path than is locked.
type MismatchError struct{ Locked, Evaluated store.Path }

// Error shows both paths.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("at that commit the flake makes it %s, but the lock file says %s", e.Evaluated, e.Locked)
}

// ErrUnavailable is wrapped when a path is not in the store, no substituter has
// it, and there is nothing to build it from.
var ErrUnavailable = errors.New("not in the Nix store, and no substituter has it")

// Realiser realises store paths. It protects them until it is closed.
type Realiser struct {
	opts  Options
	root  string
	links *links
}

// New checks the options. Nix is not asked for anything yet.
func New(opts Options) (*Realiser, error) {
	root, err := opts.Client.Root()
	if err != nil {
		return nil, err
	}
	if opts.Attr == "" {
		opts.Attr = nixcmd.DefaultAttr
	}
	if opts.Jobs <= 0 {
		opts.Jobs = runtime.GOMAXPROCS(0)
	}
	if opts.RetryDelay <= 0 {
		opts.RetryDelay = DefaultRetryDelay
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	links, err := newLinks(opts.TempDir)
	if err != nil {
		return nil, fmt.Errorf("links that protect store paths: %w", err)
	}
	return &Realiser{opts, root, links}, nil
}

// Root is the directory that the store lies below, "/" mostly.
func (r *Realiser) Root() string { return r.root }

// Close ends the protection of what was realised. It may be called again.
func (r *Realiser) Close() error { return r.links.close() }

// Realise makes the paths valid and protects them. The failures are paths that
// could not be had; without KeepGoing there is only the first. The error is
// about everything: Nix that does not work, a cancelled ctx. Nothing that was
// started runs on when Realise returns; one call at a time in a process.
func (r *Realiser) Realise(ctx context.Context, wants []Want) (failures Failures, err error) {
	orphans, err := process.AdoptOrphans()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, orphans.Close()) }()
	run := newRun(r, wants)
	if err := run.all(ctx); err != nil {
		return nil, err
	}
	return run.failures(wants), nil
}
