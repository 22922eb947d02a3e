package modules

import (
	"fmt"
	"strings"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/store"
)

// Version is a locked version in a resolution.
type Version struct {
	ID     string     `json:"id"` // "ID:TAG"
	Commit string     `json:"commit"`
	Path   store.Path `json:"path"`
}

// Step is an upgrade that is followed.
type Step struct {
	From string `json:"from"`
	Upgrade
}

// Resolution is what a host makes of a module ID.
type Resolution struct {
	// Asked is the ID or "ID:TAG" that was asked for.
	Asked string `json:"asked"`
	// Auto are the automatic upgrades that were followed; Version is where they
	// end, what the host runs.
	Auto    []Step  `json:"auto,omitempty"`
	Version Version `json:"version"`
	// Recommend are the upgrades that the user would be told of, with the
	// automatic ones that follow; Recommended is where they end, nil if there
	// are none.
	Recommend   []Step   `json:"recommend,omitempty"`
	Recommended *Version `json:"recommended,omitempty"`
}

// Resolve follows the maps from a version, a name that is upgraded, or a module
// ID, which stands for its newest version, as a host would. What is not locked
// wraps [ErrUnknown], a circle [ErrCycle].
func (m *Maps) Resolve(f *lock.File, asked string) (*Resolution, error) {
	start, err := m.start(f, asked)
	if err != nil {
		return nil, err
	}
	r := &Resolution{Asked: asked}
	chain, at := []string{start}, map[string]int{start: 0}
	follow := func(name string, maps ...map[string]Upgrade) (string, []Step, error) {
		var steps []Step
		for {
			u, ok := lookUp(name, maps)
			if !ok {
				return name, steps, nil
			}
			steps = append(steps, Step{name, u})
			chain = append(chain, u.To)
			if i, seen := at[u.To]; seen {
				return "", nil, fmt.Errorf("%w: %s", ErrCycle, clip(strings.Join(chain[i:], " → ")))
			}
			at[u.To] = len(chain) - 1
			name = u.To
		}
	}
	end, steps, err := follow(start, m.Auto)
	if err != nil {
		return nil, err
	}
	r.Auto = steps
	if r.Version, err = version(f, end, start); err != nil {
		return nil, err
	}
	end, steps, err = follow(end, m.Auto, m.Recommend)
	if err != nil || len(steps) == 0 {
		return r, err
	}
	recommended, err := version(f, end, start)
	if err != nil {
		return nil, err
	}
	r.Recommend, r.Recommended = steps, &recommended
	return r, nil
}

func lookUp(name string, maps []map[string]Upgrade) (Upgrade, bool) {
	for _, m := range maps {
		if u, ok := m[name]; ok {
			return u, true
		}
	}
	return Upgrade{}, false
}

// start is the version, or the name with an upgrade, to start from.
func (m *Maps) start(f *lock.File, asked string) (string, error) {
	if _, ok := lookUp(asked, []map[string]Upgrade{m.Auto, m.Recommend}); ok {
		return asked, nil
	}
	found, err := f.Select(lock.Selection{Modules: []string{asked}})
	if err != nil {
		return "", err
	}
	return found[0].Key(), nil
}

// version finds what a chain of upgrades ends with.
func version(f *lock.File, key, start string) (Version, error) {
	for _, e := range f.Entries {
		if e.Key() == key {
			return Version{key, e.Commit.String(), e.Path}, nil
		}
	}
	if key == start {
		return Version{}, fmt.Errorf("%s is %w", key, ErrUnknown)
	}
	return Version{}, fmt.Errorf("%s is upgraded to %s, which is %w", start, key, ErrUnknown)
}

// Terminal selects the entries that hosts need which follow the automatic
// upgrades: those that have none, and those whose upgrade leads to one of these
// directly, for hosts that are about to follow it. They stay in order.
func Terminal(entries []lock.Entry, auto map[string]Upgrade) []lock.Entry {
	var kept []lock.Entry
	for _, e := range entries {
		u, goesOn := auto[e.Key()]
		if goesOn {
			_, goesOn = auto[u.To]
		}
		if !goesOn {
			kept = append(kept, e)
		}
	}
	return kept
}
