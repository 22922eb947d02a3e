package inspect

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

//go:embed page.html
var pageHTML []byte

// pageData is where the page's numbers go.
const pageData = "/*DATA*/null"

// maxPagePaths is how many store paths a page names; the smaller ones are
// summed up for each group, so that a page on a million paths opens.
const maxPagePaths = 20000

// page is what the page's script gets. Names are short: there may be many.
type page struct {
	Title    string  `json:"title"`
	Summary  Summary `json:"summary"`
	Versions []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"versions"`
	Paths []pagePath `json:"paths"`
	// HasStored says that the paths' bytes in the image are known.
	HasStored bool `json:"hasStored"`
}

// pagePath is a store path, or several that are too small to name.
type pagePath struct {
	Name   string `json:"n"`
	Digest string `json:"d,omitempty"`
	Nar    int64  `json:"s"`
	Stored int64  `json:"t"`
	Count  int    `json:"c"` // paths it stands for
	// Modules is how many modules need it, Names how many when versions of one
	// count once, First one of them: an index into Versions, -1 if none.
	Modules int32 `json:"m"`
	Names   int32 `json:"k"`
	First   int32 `json:"f"`
}

// WritePage writes one HTML file that needs nothing else, from the network or
// elsewhere: a treemap of what fills the disk, by module and store path, and
// tables of sizes.
func (s *Store) WritePage(w io.Writer, title string) error {
	uses := s.users()
	p := page{Title: title, Summary: *s.Summarize(0), Paths: s.pagePaths(uses)}
	for i := range s.Modules {
		p.Versions = append(p.Versions, struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		}{s.Modules[i].ID, s.Modules[i].Name()})
	}
	for i := range s.Paths {
		p.HasStored = p.HasStored || s.Paths[i].Stored > 0
	}
	data, err := json.Marshal(&p) // escapes <, > and &
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	before, after, ok := bytes.Cut(pageHTML, []byte(pageData))
	if !ok {
		return fmt.Errorf("page: no place for its data")
	}
	for _, part := range [][]byte{before, data, after} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// pagePaths returns the largest paths, and the sums of the others.
func (s *Store) pagePaths(uses []use) []pagePath {
	order := make([]int32, len(s.Paths))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(s.Paths[b].NarSize, s.Paths[a].NarSize) })
	type group struct{ modules, names, first int32 }
	rest := make(map[group]int)
	var out []pagePath
	for n, i := range order {
		p, u := &s.Paths[i], uses[i]
		entry := pagePath{p.Path.Name(), p.Path.Digest(), p.NarSize, max(0, p.Stored), 1, u.modules, u.names, u.first}
		if n < maxPagePaths {
			out = append(out, entry)
			continue
		}
		g := group{min(u.modules, 2), min(u.names, 2), u.first}
		if g.names > 1 {
			g.first = 0
		}
		at, ok := rest[g]
		if !ok {
			at = len(out)
			rest[g] = at
			out = append(out, pagePath{Name: "smaller store paths", Modules: u.modules, Names: u.names, First: u.first})
		}
		out[at].Nar += entry.Nar
		out[at].Stored += entry.Stored
		out[at].Count++
	}
	return out
}
