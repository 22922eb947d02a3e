// Package rebuild makes of one store what the store of a project is after some
// releases: each release rebuilds some packages, and every dependent of these
// gets a new store path.
//
// In flow a store and its lock file; out flow a store with the paths of all
// releases, its database, and the longer list of locked entries. What differs
// between two builds of a package is what differs in a real store: the digests
// of its own path and of its dependencies', wherever files mention them. The
// store that goes in may have been packed from files that do not know where
// they lie; the first release puts the mentions in where a build would have
// left them, see mention.go.
package rebuild

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nar"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image/storedb"
)

// Options say what to make. All are needed.
type Options struct {
	// From has the closures of Entries.
	From    source.Source
	Entries []lock.Entry
	// To is the directory of the new store, as Nix's local?root=DIR.
	To string
	// Releases counts them, the first included; Percent of the packages are
	// rebuilt for each but the first.
	Releases, Percent int
}

// Result is what was made.
type Result struct {
	// Entries are those of all releases.
	Entries []lock.Entry
	// Changed counts, for each release, the paths that are new in it.
	Changed []int
}

// Write makes the store.
func Write(ctx context.Context, o Options) (*Result, error) {
	roots := make([]store.Path, len(o.Entries))
	for i, e := range o.Entries {
		roots[i] = e.Path
	}
	closure, err := bundle.FindClosure(ctx, o.From, roots, 0)
	if err != nil {
		return nil, err
	}
	m := &maker{Options: o, order: dependenciesFirst(closure), now: make(map[store.Path]*store.PathInfo), modules: make(map[store.Path]bool)}
	for _, p := range roots {
		m.modules[p] = true
	}
	r := &Result{Entries: slices.Clone(o.Entries)}
	for n := 1; n <= o.Releases; n++ {
		changed, err := m.release(ctx, n, closure)
		if err != nil {
			return nil, fmt.Errorf("release %d: %w", n, err)
		}
		r.Changed = append(r.Changed, changed)
		if n > 1 {
			r.Entries = append(r.Entries, m.entries(n, r.Entries)...)
		}
	}
	return r, m.finish(ctx)
}

// maker makes the releases one after the other.
type maker struct {
	Options
	order   []store.Path // of the first release, dependencies first
	modules map[store.Path]bool
	// now has, for each path of the first release, what it is in the latest one.
	now map[store.Path]*store.PathInfo
	all []*store.PathInfo
}

// dependenciesFirst orders a closure.
func dependenciesFirst(c *bundle.Closure) []store.Path {
	var order []store.Path
	seen := make(map[store.Path]bool)
	var visit func(p store.Path)
	visit = func(p store.Path) {
		if seen[p] {
			return
		}
		seen[p] = true
		info, _ := c.Info(p)
		for _, r := range info.References {
			visit(r)
		}
		order = append(order, p)
	}
	for info := range c.All() {
		visit(info.Path)
	}
	return order
}

// release makes the paths that are new in release n.
func (m *maker) release(ctx context.Context, n int, closure *bundle.Closure) (changed int, err error) {
	renamed := make(map[string]string) // digests
	for _, first := range m.order {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var info *store.PathInfo
		if n == 1 {
			was, _ := closure.Info(first)
			info, err = m.first(ctx, was)
		} else {
			info, err = m.again(first, n, renamed)
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", first, err)
		}
		if info != nil {
			m.now[first] = info
			m.all = append(m.all, info)
			changed++
		}
	}
	return changed, nil
}

// first copies a path and makes it mention what a build would.
func (m *maker) first(ctx context.Context, was *store.PathInfo) (*store.PathInfo, error) {
	c, err := m.From.Open(ctx, was)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	at := &mentions{own: was.Path, refs: was.References}
	info, err := writePath(m.To, was.Path, c, at.add)
	if err != nil {
		return nil, err
	}
	info.References = slices.Clone(was.References)
	if at.self {
		info.References = append(info.References, was.Path)
	}
	info.SortReferences()
	return info, nil
}

// again builds a path again, if it is to be; otherwise it returns nil. renamed
// has the digests that this release has changed so far.
func (m *maker) again(first store.Path, n int, renamed map[string]string) (*store.PathInfo, error) {
	old := m.now[first]
	depends := slices.ContainsFunc(old.References, func(r store.Path) bool { return renamed[r.Digest()] != "" })
	if !depends && (m.modules[first] || !chosen(first, n, m.Percent)) {
		return nil, nil
	}
	path, err := renewed(old.Path, n)
	if err != nil {
		return nil, err
	}
	renamed[old.Path.Digest()] = path.Digest()
	c := nar.OpenDir(filepath.Join(m.To, string(old.Path)))
	defer c.Close()
	info, err := writePath(m.To, path, c, func(e *store.Entry, data []byte) []byte {
		e.Target = string(replaceDigests([]byte(e.Target), renamed))
		return replaceDigests(data, renamed)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range old.References {
		info.References = append(info.References, store.Path(replaceDigests([]byte(r), renamed)))
	}
	info.SortReferences()
	return info, nil
}

// chosen tells whether a package is rebuilt for its own sake.
func chosen(p store.Path, n, percent int) bool {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", n, p))
	return (int(sum[0])<<8|int(sum[1]))%100 < percent
}

// renewed is the store path that a rebuilt one gets.
func renewed(p store.Path, n int) (store.Path, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s in release %d", p, n))
	return store.ParseBase(store.EncodeBase32(sum[:20]) + "-" + p.Name())
}

// entries are the modules that are new in release n, each a version later than
// the last one among before.
func (m *maker) entries(n int, before []lock.Entry) []lock.Entry {
	latest := make(map[lock.ID]lock.Entry)
	var ids []lock.ID
	var date lock.Date
	for _, e := range before {
		if old, ok := latest[e.ID]; !ok {
			ids = append(ids, e.ID)
			latest[e.ID] = e
		} else if e.Tag.Version > old.Tag.Version {
			latest[e.ID] = e
		}
		date = max(date, e.Tag.Date)
	}
	first := make(map[lock.ID]store.Path)
	for _, e := range m.Entries {
		first[e.ID] = e.Path
	}
	var made []lock.Entry
	for _, id := range ids {
		e := latest[id]
		path := m.now[first[id]].Path
		if path == e.Path {
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", id, n))
		copy(e.Commit[:], sum[:])
		e.Path = path
		e.Tag = lock.Tag{Version: e.Tag.Version + 1, Date: date/10000*10000 + 10101, Short: e.Commit.String()[:lock.ShortLen]}
		made = append(made, e)
	}
	return made
}

// finish writes what else a store has.
func (m *maker) finish(ctx context.Context) error {
	for _, f := range storedb.Layout() {
		name := filepath.Join(m.To, f.Path)
		var err error
		if f.Kind == store.Directory {
			err = os.MkdirAll(name, 0o755)
		} else {
			err = os.WriteFile(name, f.Data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	slices.SortFunc(m.all, func(a, b *store.PathInfo) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return storedb.Write(ctx, filepath.Join(m.To, storedb.DatabasePath), storedb.Infos(m.all), storedb.Options{})
}
