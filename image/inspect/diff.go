package inspect

import (
	"cmp"
	"slices"
	"strings"

	"bigdisk/bundle/store"
)

// Difference is what one image has that another has not. Sizes are of NARs, in
// bytes; those of modules are of their closures.
type Difference struct {
	Modules ModuleChanges `json:"modules"`
	Paths   PathChanges   `json:"paths"`
	// Before and After sum up all store paths of the two images; Kept is the
	// part of them that both have.
	Before Total `json:"before"`
	After  Total `json:"after"`
	Kept   Total `json:"kept"`
}

// Total is a number of store paths and their size.
type Total struct {
	Paths int   `json:"paths"`
	Size  int64 `json:"size"`
}

func (t *Total) add(p *Path) {
	t.Paths++
	t.Size += p.NarSize
}

// ModuleChanges are about the modules' IDs, tags included.
type ModuleChanges struct {
	Added   []ModuleSizes  `json:"added"`
	Removed []ModuleSizes  `json:"removed"`
	Changed []ModuleChange `json:"changed"`
}

// ModuleChange is a module that both images have, with another path or size.
type ModuleChange struct {
	ID     string     `json:"id"`
	From   store.Path `json:"from"`
	To     store.Path `json:"to"`
	Before int64      `json:"before"`
	After  int64      `json:"after"`
}

// PathChanges are about store paths. A path that went and one that came with
// the same name count as one that changed.
type PathChanges struct {
	Added   []Path       `json:"added"`
	Removed []Path       `json:"removed"`
	Changed []PathChange `json:"changed"`
}

// PathChange is a package that was rebuilt.
type PathChange struct {
	Name   string     `json:"name"`
	From   store.Path `json:"from"`
	To     store.Path `json:"to"`
	Before int64      `json:"before"`
	After  int64      `json:"after"`
}

// Diff says how to get from one image to another. The largest come first. What
// there is nothing of is an empty list, in JSON too.
func Diff(from, to *Store) *Difference {
	d := &Difference{Modules: diffModules(from, to)}
	d.Paths = PathChanges{Added: []Path{}, Removed: []Path{}, Changed: []PathChange{}}
	removed, added := d.comparePaths(from, to)
	d.pair(removed, added)
	return d
}

// comparePaths sums up both images and returns the paths that only one has.
func (d *Difference) comparePaths(from, to *Store) (removed, added []Path) {
	for i := range from.Paths {
		p := &from.Paths[i]
		d.Before.add(p)
		if to.find(p.Path) >= 0 {
			d.Kept.add(p)
		} else {
			removed = append(removed, *p)
		}
	}
	for i := range to.Paths {
		p := &to.Paths[i]
		d.After.add(p)
		if from.find(p.Path) < 0 {
			added = append(added, *p)
		}
	}
	return removed, added
}

// pair finds removed and added paths of the same name.
func (d *Difference) pair(removed, added []Path) {
	byName := make(map[string][]Path)
	for _, p := range removed {
		byName[p.Path.Name()] = append(byName[p.Path.Name()], p)
	}
	for _, p := range added {
		old := byName[p.Path.Name()]
		if len(old) == 0 {
			d.Paths.Added = append(d.Paths.Added, p)
			continue
		}
		byName[p.Path.Name()] = old[1:]
		d.Paths.Changed = append(d.Paths.Changed, PathChange{p.Path.Name(), old[0].Path, p.Path, old[0].NarSize, p.NarSize})
	}
	for _, rest := range byName {
		d.Paths.Removed = append(d.Paths.Removed, rest...)
	}
	largest := func(a, b Path) int {
		return cmp.Or(cmp.Compare(b.NarSize, a.NarSize), strings.Compare(string(a.Path), string(b.Path)))
	}
	slices.SortFunc(d.Paths.Added, largest)
	slices.SortFunc(d.Paths.Removed, largest)
	slices.SortFunc(d.Paths.Changed, func(a, b PathChange) int {
		return cmp.Or(cmp.Compare(abs(b.After-b.Before), abs(a.After-a.Before)), strings.Compare(string(a.To), string(b.To)))
	})
}

func abs(n int64) int64 { return max(n, -n) }

func diffModules(from, to *Store) (c ModuleChanges) {
	c = ModuleChanges{Added: []ModuleSizes{}, Removed: []ModuleSizes{}, Changed: []ModuleChange{}}
	old := make(map[string]ModuleSizes)
	for _, m := range from.moduleSizes(from.users()) {
		old[m.ID] = m
	}
	for _, m := range to.moduleSizes(to.users()) {
		was, ok := old[m.ID]
		delete(old, m.ID)
		switch {
		case !ok:
			c.Added = append(c.Added, m)
		case was.Path != m.Path || was.Closure != m.Closure:
			c.Changed = append(c.Changed, ModuleChange{m.ID, was.Path, m.Path, was.Closure, m.Closure})
		}
	}
	for _, m := range old {
		c.Removed = append(c.Removed, m)
	}
	slices.SortFunc(c.Removed, func(a, b ModuleSizes) int { return strings.Compare(a.ID, b.ID) })
	return c
}
