package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/realise"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/pipeline/progress"
)

// NixStore is the --from that has Nix make store paths.
const NixStore = "nix"

// nixSource is the local Nix store, once Nix has put into it what the build
// wants. Until then it has nothing.
type nixSource struct {
	realiser *realise.Realiser
	counts   *nixStages
	store    atomic.Pointer[source.Dir]
	// before and after are the sources that are asked earlier and later; nil if
	// there are none.
	before, after source.Source
}

// String implements [source.Source].
func (n *nixSource) String() string { return NixStore }

// Info implements [source.Source].
func (n *nixSource) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	if s := n.store.Load(); s != nil {
		return s.Info(ctx, path)
	}
	return nil, &source.Error{Path: path, Source: NixStore, Err: source.ErrNotFound}
}

// Open implements [source.Source].
func (n *nixSource) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	if s := n.store.Load(); s != nil {
		return s.Open(ctx, info)
	}
	return nil, &source.Error{Path: info.Path, Source: NixStore, Err: source.ErrNotFound}
}

// Close implements [source.Source]. It ends the protection of what was
// realised.
func (n *nixSource) Close() error {
	err := n.realiser.Close()
	if s := n.store.Load(); s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

// newNixSource makes the source; before and after are left to the caller.
func newNixSource(ctx context.Context, o BuildOptions) (*nixSource, error) {
	flake, err := findFlake(ctx, o)
	if err != nil {
		return nil, err
	}
	n := &nixSource{counts: &nixStages{tracker: o.Progress}}
	n.realiser, err = realise.New(realise.Options{
		Client: o.Nix, Flake: flake, Attr: o.FlakeAttr, Jobs: o.Jobs, TempDir: o.ScratchDir, Logger: o.Logger,
		// What Nix does not have, a later source may.
		KeepGoing:  o.KeepGoing || o.SkipMissing || len(o.Sources) > 0 || o.From[len(o.From)-1] != NixStore,
		OnProgress: n.counts.set,
	})
	return n, err
}

// findFlake is the flake that modules are built from: the one that was given,
// or else the one beside the lock file, if that is in a repository.
func findFlake(ctx context.Context, o BuildOptions) (*nixcmd.Flake, error) {
	if o.Flake != "" {
		flake, err := nixcmd.OpenFlake(ctx, o.Flake)
		if err != nil {
			return nil, fmt.Errorf("--flake: %w", err)
		}
		return flake, nil
	}
	if o.Lock == "" {
		return nil, nil
	}
	flake, err := nixcmd.OpenFlake(ctx, filepath.Dir(o.Lock))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		if !errors.Is(err, git.ErrNoRepository) && o.Logger != nil {
			o.Logger.Info("no flake to build from", "error", err)
		}
		return nil, nil
	}
	return flake, nil
}

// nixStages shows what Nix does: each kind of work from when there is some.
type nixStages struct {
	tracker *progress.Tracker
	mu      sync.Mutex
	stages  map[string]*progress.Stage
}

func (s *nixStages) set(p realise.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage("realise", progress.Paths, p.Done, p.Total)
	s.stage("nix build", progress.Steps, p.Built, p.ToBuild)
	s.stage("nix copy", progress.Bytes, p.CopiedBytes, p.BytesToCopy)
}

func (s *nixStages) stage(name string, unit progress.Unit, done, total int64) {
	stage := s.stages[name]
	if stage == nil && total > 0 {
		stage = s.tracker.Stage(name, unit, total)
		if s.stages == nil {
			s.stages = make(map[string]*progress.Stage)
		}
		s.stages[name] = stage
	}
	stage.Set(done, total)
}

func (s *nixStages) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stage := range s.stages {
		stage.Finish()
	}
}

// realise has Nix make the roots that the sources before it do not have.
func (b *builder) realise(ctx context.Context, p *plan) error {
	n := b.nix
	if n == nil {
		return nil
	}
	absent, err := notIn(ctx, n.before, p.wants())
	if err != nil {
		return err
	}
	failures, err := n.realiser.Realise(ctx, absent)
	n.counts.finish()
	if err != nil {
		return err
	}
	s, err := source.OpenLiveDir(n.realiser.Root())
	if err != nil {
		return fmt.Errorf("--from nix: %w", err)
	}
	n.store.Store(s)
	return b.afterNix(ctx, p, failures)
}

// afterNix looks elsewhere for what Nix could not make.
func (b *builder) afterNix(ctx context.Context, p *plan, failures realise.Failures) error {
	if len(failures) == 0 {
		return nil
	}
	wants := make([]realise.Want, len(failures))
	for i, f := range failures {
		wants[i] = f.Want
	}
	absent, err := notIn(ctx, b.nix.after, wants)
	if err != nil {
		return err
	}
	still := make(map[store.Path]bool, len(absent))
	for _, w := range absent {
		still[w.Path] = true
	}
	var left realise.Failures
	for _, f := range failures {
		if still[f.Path] {
			left = append(left, f)
		}
	}
	if len(left) == 0 {
		return nil
	}
	if !b.opts.KeepGoing && !b.opts.SkipMissing {
		return left[:1]
	}
	for _, f := range left {
		p.leaveOut(f.Path, f.Err, f)
	}
	return nil
}

// infoAsks is how many paths are looked for at a time.
const infoAsks = 64

// notIn returns those of the wants that the source does not give, in order; all
// of them if it is nil.
func notIn(ctx context.Context, s source.Source, wants []realise.Want) ([]realise.Want, error) {
	if s == nil {
		return wants, nil
	}
	has := make([]bool, len(wants))
	var group errgroup.Group
	group.SetLimit(infoAsks)
	for i, w := range wants {
		group.Go(func() error {
			_, err := s.Info(ctx, w.Path)
			has[i] = err == nil
			return nil
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var absent []realise.Want
	for i, w := range wants {
		if !has[i] {
			absent = append(absent, w)
		}
	}
	return absent, nil
}

// wants are the roots as they are to be realised.
func (p *plan) wants() []realise.Want {
	wants := realise.Entries(p.entries)
	for _, path := range p.extra {
		wants = append(wants, realise.Want{Path: path, Entry: lock.Entry{}})
	}
	return wants
}
