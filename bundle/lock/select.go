package lock

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnknown is wrapped when a selection names a module or version that the
// lock file does not have.
var ErrUnknown = errors.New("not in the lock file")

// Selection says which entries to take.
type Selection struct {
	// Modules holds IDs and "ID:TAG" keys. A key stands for that version, an ID
	// for the newest Latest versions of the module. Without any, every module
	// is taken.
	Modules []string
	// Latest is how many versions of a module to take, newest first by version
	// number. 0 means one where the module is named, and all where none is.
	Latest int
}

// Select returns the entries that s names, in the file's order, each once.
func (f *File) Select(s Selection) ([]Entry, error) {
	if s.Latest < 0 {
		return nil, fmt.Errorf("the number of newest versions must not be negative: %d", s.Latest)
	}
	if len(s.Modules) == 0 && s.Latest == 0 {
		return slices.Clone(f.Entries), nil
	}
	versions := f.versions()
	var picked []int
	if len(s.Modules) == 0 {
		for _, v := range versions {
			picked = append(picked, f.newest(v, s.Latest)...)
		}
	}
	for _, name := range s.Modules {
		found, err := f.find(versions, name, max(s.Latest, 1))
		if err != nil {
			return nil, err
		}
		picked = append(picked, found...)
	}
	slices.Sort(picked)
	picked = slices.Compact(picked)
	entries := make([]Entry, len(picked))
	for i, at := range picked {
		entries[i] = f.Entries[at]
	}
	return entries, nil
}

// versions returns where the entries of each module are.
func (f *File) versions() map[ID][]int {
	at := make(map[ID][]int)
	for i := range f.Entries {
		id := f.Entries[i].ID
		at[id] = append(at[id], i)
	}
	return at
}

// newest returns the n newest of the versions; of two with one number and
// date, the one further down the file is the newer.
func (f *File) newest(versions []int, n int) []int {
	sorted := slices.Clone(versions)
	slices.SortFunc(sorted, func(a, b int) int {
		if c := f.Entries[b].Tag.compare(f.Entries[a].Tag); c != 0 {
			return c
		}
		return b - a
	})
	return sorted[:min(n, len(sorted))]
}

// find returns the entries that one name of a selection stands for.
func (f *File) find(versions map[ID][]int, name string, latest int) ([]int, error) {
	before, tag, hasTag := strings.Cut(name, ":")
	if err := checkID(before); err != nil {
		return nil, fmt.Errorf("module %q: %w", clip(name), err)
	}
	id := ID(before)
	mine := versions[id]
	if len(mine) == 0 {
		return nil, fmt.Errorf("module %q is %w%s", id, ErrUnknown, suggest(string(id), ids(versions)))
	}
	if !hasTag {
		return f.newest(mine, latest), nil
	}
	var tags []string
	for _, i := range mine {
		t := f.Entries[i].Tag.String()
		if t == tag {
			return []int{i}, nil
		}
		tags = append(tags, t)
	}
	return nil, fmt.Errorf("version %q of module %q is %w%s", clip(tag), id, ErrUnknown, suggest(tag, tags))
}

func ids(versions map[ID][]int) []string {
	var all []string
	for id := range versions {
		all = append(all, string(id))
	}
	return all
}

// suggest names up to three of the names that are most like the one asked for,
// as the end of an error message; "" if none is like it.
func suggest(asked string, names []string) string {
	if len(asked) > MaxIDLen {
		return ""
	}
	type near struct {
		name     string
		distance int
	}
	var nearest []near
	limit := 1 + len(asked)/3
	for _, name := range names {
		if abs(len(name)-len(asked)) > limit && !strings.HasPrefix(name, asked) {
			continue
		}
		d := distance(asked, name)
		if strings.HasPrefix(name, asked) {
			d = min(d, 1)
		}
		if d <= limit {
			nearest = append(nearest, near{name, d})
		}
	}
	slices.SortFunc(nearest, func(a, b near) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	if len(nearest) == 0 {
		return ""
	}
	var quoted []string
	for _, n := range nearest[:min(3, len(nearest))] {
		quoted = append(quoted, fmt.Sprintf("%q", n.name))
	}
	return "; did you mean " + strings.Join(quoted, " or ") + "?"
}

// distance is the number of bytes to insert, delete or replace to make b of a
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func abs(n int) int { return max(n, -n) }
