// Package modules knows how modules follow each other: the mapping that people
// write becomes the upgrade maps that hosts follow, and from those comes what a
// host would run, and which versions a disk has to have.
//
// A mapping is a YAML or JSON file of upgrades, from a version to another, with
// shorthands for those that follow each other:
//
//	# nodejs-14 has ended; its users are told so, and choose
//	"nodejs-14:v2-20230605-9621162": {to: "nodejs-18:v2-20230605-9621162", changelog: "Node.js 14 is deprecated"}
//	# what was called bun before there were versions
//	bun: {to: "bun-0.5:v1-20230525-c48c43c", auto: true}
//	linear: [go-1.20, python-3.10]    # each locked version to the next one, automatically
//	step: ["rust-1.69:v2-20230623-0b7a606", "rust-1.70:v1-20230724-17660e5"]    # each to the next
//
// linear takes a module ID or a list of them, step a list of versions or a list
// of such lists. The file may also be a list of such mappings. Where a
// shorthand and an upgrade that is written out are about one version, the one
// that is written out counts.
//
// The maps, auto-upgrade.json and recommend-upgrade.json, have the form of the
// nixmodules repository's: a JSON object from version to
// {"to": VERSION, "changelog": TEXT}, the changelog only where there is one.
package modules

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"bigdisk/bundle/lock"
)

// Errors that callers tell apart.
var (
	// ErrMapping is wrapped by errors about what a mapping or map looks like.
	ErrMapping = errors.New("malformed upgrade mapping")
	// ErrUnknown is wrapped when a mapping speaks of what is not locked.
	ErrUnknown = errors.New("not in the lock file")
	// ErrCycle is wrapped when upgrades lead back to where they started.
	ErrCycle = errors.New("the upgrades go round in a circle")
)

// MaxMappingSize is the largest mapping or map that is read, in bytes.
const MaxMappingSize = 64 << 20

// Mapping is an upgrade mapping that has been read, but not yet held against a
// lock file.
type Mapping struct {
	upgrades map[string]entry
	order    []string // of upgrades, as written
	linear   []reference
	steps    [][]reference
}

// entry is an upgrade as it is written.
type entry struct {
	to, changelog string
	auto          bool
	line          int
	short         bool // it comes from a shorthand
}

// reference is a name of a module or version.
type reference struct {
	name string
	line int
}

// ReadMapping reads a mapping from a file.
func ReadMapping(name string) (*Mapping, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	m, err := ParseMapping(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// readFile reads a file of at most [MaxMappingSize].
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxMappingSize+1))
	if err == nil && len(data) > MaxMappingSize {
		err = fmt.Errorf("%s: %w: over %d bytes", name, ErrMapping, MaxMappingSize)
	}
	return data, err
}

// ParseMapping reads a mapping. Its errors wrap [ErrMapping] and name the line.
func ParseMapping(data []byte) (*Mapping, error) {
	v, err := parseValue(data)
	if err != nil {
		return nil, err
	}
	m := &Mapping{upgrades: make(map[string]entry)}
	if v.kind != list {
		return m, m.add(v)
	}
	for _, part := range v.list {
		if err := m.add(part); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add adds a mapping to what is there.
func (m *Mapping) add(v value) error {
	if v.kind != object {
		return errorAt(v.line, "a mapping from versions to upgrades is wanted, not %s", kindNames[v.kind])
	}
	for _, f := range v.fields {
		var err error
		switch {
		case f.name == "linear" && f.value.kind != object:
			err = m.addLinear(f.value)
		case f.name == "step" && f.value.kind != object:
			err = m.addStep(f.value)
		default:
			err = m.addUpgrade(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Mapping) addLinear(v value) error {
	refs, err := references(v, "linear")
	if err != nil {
		return err
	}
	for _, r := range refs {
		if _, err := lock.ParseID(r.name); err != nil {
			return errorAt(r.line, "linear: %w", err)
		}
	}
	m.linear = append(m.linear, refs...)
	return nil
}

func (m *Mapping) addStep(v value) error {
	if v.kind == list && len(v.list) > 0 && v.list[0].kind == list {
		for _, part := range v.list {
			if part.kind != list {
				return errorAt(part.line, "step: lists and versions side by side")
			}
			if err := m.addStep(part); err != nil {
				return err
			}
		}
		return nil
	}
	refs, err := references(v, "step")
	if err != nil {
		return err
	}
	for _, r := range refs {
		if err := checkName(r.name); err != nil {
			return errorAt(r.line, "step: %w", err)
		}
	}
	m.steps = append(m.steps, refs)
	return nil
}

// references reads one name or a list of them.
func references(v value, what string) ([]reference, error) {
	if v.kind == text {
		return []reference{{v.text, v.line}}, nil
	}
	if v.kind != list {
		return nil, errorAt(v.line, "%s: names are wanted, not %s", what, kindNames[v.kind])
	}
	var refs []reference
	for _, item := range v.list {
		if item.kind != text {
			return nil, errorAt(item.line, "%s: a name is wanted, not %s", what, kindNames[item.kind])
		}
		refs = append(refs, reference{item.text, item.line})
	}
	return refs, nil
}

// checkName checks "ID:TAG", or an ID alone.
func checkName(name string) error {
	if !strings.Contains(name, ":") {
		_, err := lock.ParseID(name)
		return err
	}
	_, _, err := lock.ParseKey(name)
	return err
}

func (m *Mapping) addUpgrade(f field) error {
	if err := checkName(f.name); err != nil {
		return errorAt(f.line, "%w", err)
	}
	if _, twice := m.upgrades[f.name]; twice {
		return errorAt(f.line, "%q comes twice", f.name)
	}
	if f.value.kind != object {
		return errorAt(f.value.line, "%q: {to: VERSION, auto: BOOL, changelog: TEXT} is wanted, not %s", f.name, kindNames[f.value.kind])
	}
	e, err := readEntry(f)
	if err != nil {
		return err
	}
	m.upgrades[f.name] = e
	m.order = append(m.order, f.name)
	return nil
}

// readEntry reads {to, auto, changelog}.
func readEntry(f field) (entry, error) {
	e := entry{line: f.line}
	for _, part := range f.value.fields {
		want := text
		switch part.name {
		case "to":
			e.to = part.value.text
		case "changelog":
			e.changelog = part.value.text
		case "auto":
			e.auto, want = part.value.truth, boolean
		default:
			return e, errorAt(part.line, "%q: unknown field %q: there are to, auto and changelog", f.name, clip(part.name))
		}
		if part.value.kind != want {
			return e, errorAt(part.value.line, "%q: %s has to be %s, not %s", f.name, part.name, kindNames[want], kindNames[part.value.kind])
		}
	}
	if e.to == "" {
		return e, errorAt(f.line, "%q: it does not say to what", f.name)
	}
	if err := checkName(e.to); err != nil {
		return e, errorAt(f.line, "%q: to: %w", f.name, err)
	}
	return e, nil
}

// expand replaces the shorthands by upgrades.
func (m *Mapping) expand(f *lock.File) (map[string]entry, []string, error) {
	x := expansion{m, make(map[string]entry), slices.Clone(m.order)}
	for name, e := range m.upgrades {
		x.all[name] = e
	}
	versions := make(map[string][]lock.Entry)
	for _, e := range f.Entries {
		versions[string(e.ID)] = append(versions[string(e.ID)], e)
	}
	for _, r := range m.linear {
		mine := slices.Clone(versions[r.name])
		if len(mine) == 0 {
			return nil, nil, errorAt(r.line, "linear: module %q is %w", r.name, ErrUnknown)
		}
		slices.SortStableFunc(mine, func(a, b lock.Entry) int { return a.Tag.Version - b.Tag.Version })
		chain := make([]reference, len(mine))
		for i, e := range mine {
			chain[i] = reference{e.Key(), r.line}
		}
		if err := x.step(chain); err != nil {
			return nil, nil, err
		}
	}
	for _, chain := range m.steps {
		if err := x.step(chain); err != nil {
			return nil, nil, err
		}
	}
	return x.all, x.order, nil
}

type expansion struct {
	m     *Mapping
	all   map[string]entry
	order []string
}

// step adds an upgrade from each version of the chain to the next.
func (x *expansion) step(chain []reference) error {
	for i := range len(chain) - 1 {
		from, to := chain[i], chain[i+1]
		have, known := x.all[from.name]
		switch {
		case !known:
			x.all[from.name] = entry{to: to.name, auto: true, line: from.line, short: true}
			x.order = append(x.order, from.name)
		case have.short && have.to != to.name:
			return errorAt(from.line, "%s is upgraded to %s here, and to %s in line %d", from.name, to.name, have.to, have.line)
		}
	}
	return nil
}
