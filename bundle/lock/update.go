package lock

import (
	"cmp"
	"fmt"
	"slices"

	"bigdisk/bundle/store"
)

// Update returns the entries that lock these modules: for each whose path is
// not that of its newest version, one more version, made from the commit, whose
// day date is. They are sorted by module; there are none when the file says all
// of it already.
func (f *File) Update(modules map[ID]store.Path, commit Commit, date Date) []Entry {
	newest := make(map[ID]Entry)
	for _, e := range f.Entries {
		have, known := newest[e.ID]
		if !known || e.Tag.compare(have.Tag) >= 0 {
			newest[e.ID] = e
		}
	}
	var added []Entry
	for id, path := range modules {
		have := newest[id]
		if have.Path == path {
			continue
		}
		tag := Tag{Version: have.Tag.Version + 1, Date: date, Short: commit.String()[:ShortLen]}
		added = append(added, Entry{ID: id, Tag: tag, Commit: commit, Path: path})
	}
	slices.SortFunc(added, func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return added
}

// ParseDay reads a day as Git writes it, YYYY-MM-DD.
func ParseDay(s string) (Date, error) {
	if len(s) != len("YYYY-MM-DD") || s[4] != '-' || s[7] != '-' {
		return 0, fmt.Errorf("%w: %q is not a day YYYY-MM-DD", ErrFormat, clip(s))
	}
	return parseDate(s[:4] + s[5:7] + s[8:])
}
