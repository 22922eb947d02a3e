package modules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"bigdisk/bundle/lock"
)

// Upgrade is where a version leads.
type Upgrade struct {
	// Changelog tells users what changes; it may be empty.
	Changelog string `json:"changelog,omitempty"`
	// To is another version, "ID:TAG".
	To string `json:"to"`
}

// Maps are the upgrade maps that hosts follow.
type Maps struct {
	// Auto are upgrades that just happen, Recommend those that users are told
	// of. Their keys are versions, or names from before there were versions.
	Auto, Recommend map[string]Upgrade
}

// Maps makes the upgrade maps from the mapping. Every version has to be in the
// lock file; a name without a tag may be upgraded from, as may be one that such
// a name is upgraded to, but it must lead to a locked version. Upgrades that go
// round in a circle, automatic or not, are refused with [ErrCycle], which shows
// the circle, and versions that are not locked with [ErrUnknown]. It takes
// linear time.
func (m *Mapping) Maps(f *lock.File) (*Maps, error) {
	all, order, err := m.expand(f)
	if err != nil {
		return nil, err
	}
	locked := make(map[string]bool, len(f.Entries))
	for _, e := range f.Entries {
		locked[e.Key()] = true
	}
	for _, name := range order {
		if err := checkKnown(name, all[name], all, locked); err != nil {
			return nil, err
		}
	}
	next := func(name string) (string, bool) {
		e, ok := all[name]
		return e.to, ok
	}
	if cycle := findCycle(order, next); cycle != nil {
		return nil, errorAt(all[cycle[0]].line, "%w: %s", ErrCycle, strings.Join(cycle, " → "))
	}
	if err := checkEnds(order, all, locked); err != nil {
		return nil, err
	}
	maps := &Maps{make(map[string]Upgrade), make(map[string]Upgrade)}
	for name, e := range all {
		u := Upgrade{To: e.to, Changelog: e.changelog}
		if e.auto {
			maps.Auto[name] = u
		} else {
			maps.Recommend[name] = u
		}
	}
	return maps, nil
}

// checkKnown checks both ends of an upgrade.
func checkKnown(name string, e entry, all map[string]entry, locked map[string]bool) error {
	if strings.Contains(name, ":") && !locked[name] {
		return errorAt(e.line, "%s is %w", name, ErrUnknown)
	}
	if locked[e.to] {
		return nil
	}
	if strings.Contains(e.to, ":") {
		return errorAt(e.line, "%s is upgraded to %s, which is %w", name, e.to, ErrUnknown)
	}
	if _, goesOn := all[e.to]; !goesOn {
		return errorAt(e.line, "%s is upgraded to %s, which ends there: it is neither a locked version nor upgraded to one: %w", name, e.to, ErrUnknown)
	}
	return nil
}

// checkEnds checks that automatic upgrades alone lead to a locked version.
func checkEnds(order []string, all map[string]entry, locked map[string]bool) error {
	for _, name := range order {
		e := all[name]
		if next, goesOn := all[e.to]; e.auto && !locked[e.to] && goesOn && !next.auto {
			return errorAt(e.line, "%s is upgraded automatically to %s, which ends there: that is no locked version, and its own upgrade is not automatic: %w", name, e.to, ErrUnknown)
		}
	}
	return nil
}

// findCycle finds a circle in a graph where each node leads to at most one
// other, in linear time: nil, or the nodes from one to itself.
func findCycle(nodes []string, next func(string) (string, bool)) []string {
	walk := make(map[string]int, len(nodes)) // in which walk a node was first seen
	for i, start := range nodes {
		name, ok := start, true
		for ok && walk[name] == 0 {
			walk[name] = i + 1
			name, ok = next(name)
		}
		if ok && walk[name] == i+1 {
			cycle := []string{name}
			for to, _ := next(name); to != name; to, _ = next(to) {
				cycle = append(cycle, to)
			}
			return append(cycle, name)
		}
	}
	return nil
}

// Encode writes one of the maps as the file that hosts read, an upgrade a line,
// sorted.
func Encode(upgrades map[string]Upgrade) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(upgrades)
	return b.Bytes(), err
}

// ParseMap reads one of the maps as hosts read it: a JSON object.
func ParseMap(data []byte) (map[string]Upgrade, error) {
	v, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if v.kind != object {
		return nil, errorAt(v.line, "a mapping from versions to upgrades is wanted, not %s", kindNames[v.kind])
	}
	upgrades := make(map[string]Upgrade, len(v.fields))
	for _, f := range v.fields {
		if err := checkName(f.name); err != nil {
			return nil, errorAt(f.line, "%w", err)
		}
		if f.value.kind != object {
			return nil, errorAt(f.value.line, "%q: {to: VERSION, changelog: TEXT} is wanted, not %s", f.name, kindNames[f.value.kind])
		}
		e, err := readEntry(f)
		if err != nil {
			return nil, err
		}
		upgrades[f.name] = Upgrade{To: e.to, Changelog: e.changelog}
	}
	return upgrades, nil
}

// ReadMap reads one of the maps from a file.
func ReadMap(name string) (map[string]Upgrade, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	upgrades, err := ParseMap(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return upgrades, nil
}
