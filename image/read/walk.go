package read

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"bigdisk/bundle/store"
)

// MaxDepth is how many directories deep [Image.Walk] goes below where it
// starts. A NAR has at most 64 levels.
const MaxDepth = 256

// SkipDir is what a [WalkFunc] returns to leave a directory's contents out.
var SkipDir = errors.New("skip this directory")

// WalkFunc is told of one node. Path is relative to where the walk started, ""
// for that itself, with slashes. For a directory it is called before its contents, and
// once more after with leave set.
type WalkFunc func(path string, n *Node, leave bool) error

// Walk visits top and all below it in NAR order: depth first, names in byte
// order. It ends with the first error, which names the path.
func (im *Image) Walk(top *Node, visit WalkFunc) error {
	w := walker{im: im, visit: visit}
	return w.walk(top, 0)
}

type walker struct {
	im    *Image
	visit WalkFunc
	path  []byte
}

func (w *walker) walk(n *Node, depth int) error {
	path := string(w.path)
	err := w.visit(path, n, false)
	if err == SkipDir {
		return nil
	}
	if err != nil || n.Kind != store.Directory {
		return err
	}
	if depth >= MaxDepth {
		return damaged("%q: more than %d directories deep", path, MaxDepth)
	}
	entries, err := w.im.ReadDir(n)
	if err != nil {
		return at(path, err)
	}
	for i := range entries {
		if err := w.child(&entries[i], depth); err != nil {
			return err
		}
	}
	return w.visit(path, n, true)
}

func (w *walker) child(e *DirEntry, depth int) error {
	length := len(w.path)
	if length > 0 {
		w.path = append(w.path, '/')
	}
	w.path = append(w.path, e.Name...)
	child, err := w.im.Node(e)
	if err != nil {
		return at(string(w.path), err)
	}
	if err := w.walk(child, depth+1); err != nil {
		return err
	}
	w.path = w.path[:length]
	return nil
}

func at(path string, err error) error {
	if path == "" {
		return err
	}
	return fmt.Errorf("%q: %w", path, err)
}

// Lookup finds the node at a slash-separated path from the root; a leading
// slash makes no difference. Symlinks are not followed. The error wraps
// fs.ErrNotExist when there is no such path.
func (im *Image) Lookup(path string) (*Node, error) {
	n, err := im.Root()
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if n.Kind != store.Directory {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		entries, err := im.ReadDir(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		i := sort.Search(len(entries), func(i int) bool { return entries[i].Name >= name })
		if i == len(entries) || entries[i].Name != name {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		if n, err = im.Node(&entries[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return n, nil
}

// checkName says what is wrong with a name in a directory.
func checkName(name []byte) error {
	switch {
	case len(name) == 0:
		return damaged("empty name in a directory")
	case string(name) == "." || string(name) == "..":
		return damaged("name %q in a directory", name)
	}
	for _, c := range name {
		if c == '/' || c == 0 {
			return damaged("name %q in a directory has %q", name, c)
		}
	}
	return nil
}

// Limits on one directory's listing. A million store paths take about 80 MB.
const (
	maxDirBytes   = 1 << 29
	maxDirEntries = 1 << 24
)
