package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/source"
	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/pipeline/progress"
)

// plan is what goes on the disk, and in which order.
//
// The order is that of releases: the roots by date, ID and version of their
// tags, each with what of its closure is not there yet. A lock file only ever
// grows at the end of that order, so an image of the next release starts with
// the store paths of this one. --path roots come last.
type plan struct {
	lock *lock.File // nil without one
	// entries are those on the disk, in the lock file's order.
	entries []lock.Entry
	// extra are the store paths asked for by themselves, sorted.
	extra []store.Path
	// roots are entries and extra in the order of releases, no path twice.
	roots []root
	label string
	// modules are the paths that are asked what they are.
	modules map[store.Path]bool
	// missing are the entries that were left out, and failed says of each root
	// that could not be had why; lostExtra is that one of extra was among them.
	missing   []image.ManifestMissing
	failed    []error
	lostExtra bool

	// closure is all that goes on the disk, order its paths as they are written.
	closure *bundle.Closure
	order   []store.Path
}

// root is a store path that was asked for.
type root struct {
	path store.Path
	name string // the lock entry's key; "" for --path
}

// String says what was asked for, as errors do.
func (r root) String() string {
	if r.name == "" {
		return "path " + string(r.path)
	}
	return "module " + r.name
}

// openSources opens the stores of --from, and those that were given ready, as
// one. If Nix is among them, that is returned too, for it has to be asked
// first.
func openSources(ctx context.Context, o BuildOptions) (source.Source, *nixSource, error) {
	if len(o.From) == 0 && len(o.Sources) == 0 {
		return nil, nil, fmt.Errorf("%w: nowhere to take store paths from: give --from STORE", ErrUsage)
	}
	keys, err := store.ParseKeys(o.TrustedKeys)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: trusted key: %w", ErrUsage, err)
	}
	opts := source.Options{
		Keys: keys, NoCheckSigs: o.NoCheckSigs, ScratchDir: o.ScratchDir, Logger: o.Logger,
		Memory: spool.NewBudget(o.MemoryBudget / 4),
	}
	var all []source.Source
	var nix *nixSource
	for _, spec := range o.From {
		var s source.Source
		if spec == NixStore {
			if nix, err = newNixSource(ctx, o); err == nil {
				nix.before = someOf(all, o)
				s = nix
			}
		} else {
			s, err = source.Parse(spec, opts)
		}
		if err != nil {
			return nil, nil, closeAll(all, err)
		}
		all = append(all, s)
	}
	for _, s := range o.Sources {
		all = append(all, keptOpen{s})
	}
	if nix != nil {
		nix.after = someOf(all[slices.Index(o.From, NixStore)+1:], o)
	}
	return source.Chain(all, o.Logger), nix, nil
}

// keptOpen is a source that somebody else closes.
type keptOpen struct{ source.Source }

// Close does nothing.
func (keptOpen) Close() error { return nil }

// someOf is a source of some of all sources; nil if there are none. It is not
// to be closed.
func someOf(sources []source.Source, o BuildOptions) source.Source {
	if len(sources) == 0 {
		return nil
	}
	return source.Chain(slices.Clone(sources), o.Logger)
}

// closeAll closes the sources that were opened before one failed with err.
func closeAll(sources []source.Source, err error) error {
	for _, s := range sources {
		err = errors.Join(err, s.Close())
	}
	if errors.Is(err, source.ErrSpec) {
		err = fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return fmt.Errorf("--from: %w", err)
}

// resolve finds out what goes on the disk.
func (b *builder) resolve(ctx context.Context) (*plan, error) {
	p := new(plan)
	if err := p.chooseRoots(b.opts, &b.given); err != nil {
		return nil, err
	}
	if err := b.realise(ctx, p); err != nil {
		return nil, err
	}
	stage := b.opts.Progress.Stage("resolve", progress.Paths, 0)
	defer stage.Finish()
	if err := b.findClosure(ctx, p, countedInfos{b.source, stage}); err != nil {
		return nil, err
	}
	if err := b.checkMissing(p); err != nil {
		return nil, err
	}
	paths := make([]store.Path, len(p.roots))
	for i, r := range p.roots {
		paths[i] = r.path
	}
	var err error
	p.order, err = p.closure.Order(paths)
	return p, err
}

// countedInfos tells a stage of every path that has been found.
type countedInfos struct {
	bundle.InfoSource
	stage *progress.Stage
}

// Info implements [bundle.InfoSource].
func (c countedInfos) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	info, err := c.InfoSource.Info(ctx, path)
	if err == nil {
		c.stage.Add(1)
	}
	return info, err
}

// info is what is known of path i of the order.
func (p *plan) info(i int) *store.PathInfo {
	info, ok := p.closure.Info(p.order[i])
	if !ok {
		return &store.PathInfo{Path: p.order[i]} // the order is of the closure, so it is there
	}
	return info
}

// blame says whose fault an error with path i of the order is:
// "module ID:TAG: /nix/store/…: …".
func (p *plan) blame(i int, err error) error {
	path := p.order[i]
	if !errors.As(err, new(*source.Error)) && !errors.As(err, new(*image.EntryError)) { // these name it
		err = fmt.Errorf("%s: %w", path, err)
	}
	for _, r := range p.roots {
		if _, needed := p.closure.NeededBy(path, []store.Path{r.path}); needed {
			return r.blame(path, err)
		}
	}
	return err
}

// blameRoot says which root an error of the closure is about.
func (p *plan) blameRoot(err error) error {
	need := (*bundle.NeedError)(nil)
	if !errors.As(err, &need) {
		return err
	}
	at := slices.IndexFunc(p.roots, func(r root) bool { return r.path == need.Root })
	if at < 0 {
		return err
	}
	path := need.Root
	if need.Referrer != "" {
		path = need.Referrer
	}
	return p.roots[at].blame(path, err)
}

// blame says that an error is about what the root needs; a path that was asked
// for by itself need not be named twice.
func (r root) blame(path store.Path, err error) error {
	if r.name == "" && r.path == path {
		return err
	}
	return fmt.Errorf("%s: %w", r, err)
}

// chooseRoots reads the lock file, the maps and the options.
func (p *plan) chooseRoots(o BuildOptions, given *givenFiles) error {
	if o.Lock != "" {
		if err := p.selectEntries(o); err != nil {
			return fmt.Errorf("%s: %w", o.Lock, err)
		}
		if err := p.followMaps(o, given); err != nil {
			return err
		}
	}
	for _, s := range o.Paths {
		path, err := store.ParsePath(s)
		if err != nil {
			return fmt.Errorf("%w: --path %s: %w", ErrUsage, s, err)
		}
		p.extra = append(p.extra, path)
	}
	slices.Sort(p.extra)
	p.extra = slices.Compact(p.extra)
	p.orderRoots()
	if len(p.roots) == 0 {
		return fmt.Errorf("%s: it has no entries, so there is nothing to build", o.Lock)
	}
	p.label = cmp.Or(o.Label, p.defaultLabel())
	p.findModules()
	return nil
}

// findModules finds the paths of all entries.
func (p *plan) findModules() {
	p.modules = make(map[store.Path]bool, len(p.entries))
	for _, e := range p.entries {
		p.modules[e.Path] = true
	}
}

func (p *plan) selectEntries(o BuildOptions) error {
	f, err := os.Open(o.Lock)
	if err != nil {
		return errors.Unwrap(err) // the caller names the file
	}
	defer f.Close()
	if p.lock, err = lock.Parse(f); err != nil {
		return err
	}
	p.entries, err = p.lock.Select(lock.Selection{Modules: o.Modules, Latest: o.Latest})
	return err
}

// followMaps makes the upgrade maps from a mapping, and keeps what is selected
// by them.
func (p *plan) followMaps(o BuildOptions, given *givenFiles) error {
	if o.Mapping != "" {
		if err := given.fromMapping(o.Mapping, p.lock); err != nil {
			return err
		}
	}
	if o.Select != selectTerminal {
		return nil
	}
	auto, err := modules.ParseMap(given.auto)
	if err != nil {
		return fmt.Errorf("%s: %w", cmp.Or(o.AutoUpgrade, o.Mapping), err)
	}
	p.entries = modules.Terminal(p.entries, auto)
	return nil
}

// orderRoots puts the roots into the order of releases.
func (p *plan) orderRoots() {
	entries := slices.Clone(p.entries)
	slices.SortStableFunc(entries, func(a, b lock.Entry) int {
		return cmp.Or(cmp.Compare(a.Tag.Date, b.Tag.Date), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Tag.Version, b.Tag.Version))
	})
	seen := make(map[store.Path]bool)
	add := func(path store.Path, name string) {
		if !seen[path] {
			seen[path] = true
			p.roots = append(p.roots, root{path, name})
		}
	}
	for i := range entries {
		add(entries[i].Path, entries[i].Key())
	}
	for _, path := range p.extra {
		add(path, "")
	}
}

// defaultLabel tells the disk from others by the lock file, or by the roots.
func (p *plan) defaultLabel() string {
	if p.lock != nil {
		return "bigdisk-" + image.HexSHA256(p.lock.SHA256).String()[:7]
	}
	var lines strings.Builder
	for _, path := range p.extra {
		lines.WriteString(string(path) + "\n")
	}
	return "bigdisk-" + image.HexSHA256(sha256.Sum256([]byte(lines.String()))).String()[:7]
}
