// Package inspect says what is in an image: how large its store paths and
// modules are, what modules share and what only one of them needs, and how two
// images differ.
//
// In flow an image, the database inside it and its manifest if there is one;
// out flow a [Store], and from it a [Summary], a page for a browser, or a
// [Difference]. Nothing is mounted and contents are not read, so it is quick;
// whether the image tells the truth is what package verify finds out.
package inspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/read"
)

// Path is a store path on the disk.
type Path struct {
	Path store.Path `json:"path"`
	// NarSize is the length of its NAR in bytes.
	NarSize int64 `json:"narSize"`
	// Stored is how many bytes of the image it was the first to need; -1 if
	// there is no manifest to say so.
	Stored int64 `json:"stored"`
	// refs are the indexes of what it refers to, without itself.
	refs []int32
}

// Module is an entry of the lock file.
type Module struct {
	// ID is "NAME:TAG".
	ID     string     `json:"id"`
	Commit string     `json:"commit,omitempty"`
	Path   store.Path `json:"path"`
}

// Name returns the ID without its tag.
func (m *Module) Name() string {
	name, _, _ := strings.Cut(m.ID, ":")
	return name
}

// Store is what is on a disk.
type Store struct {
	Info  read.Info
	Label string
	// SHA256 is that of the image, "" without a manifest.
	SHA256  string
	Paths   []Path   // sorted by path
	Modules []Module // sorted by ID
	// The counts are of the whole image; Unique is -1 without a manifest.
	Files, Directories, Symlinks, Bytes, Unique int64
	// Verity is the root hash of the image's dm-verity tree, "" if it has none.
	Verity string
}

// Options are the choices of [Open].
type Options struct {
	// Manifest describes the image; nil if there is none.
	Manifest *image.Manifest
	// ScratchDir is where the database is copied to; "" is the system's
	// directory for temporary files.
	ScratchDir string
}

// Open reads what an image says of itself. Without a database in it, the
// store's directory and the sizes of files have to do, and nothing is known of
// references.
func Open(ctx context.Context, name string, o Options) (*Store, error) {
	im, err := read.Open(name)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	s := &Store{Info: im.Info(), Label: im.Info().Label, Unique: -1}
	err = read.Guard("reading "+name, func() error { return s.load(ctx, im, o) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *Store) load(ctx context.Context, im *read.Image, o Options) error {
	err := s.loadDatabase(ctx, im, o.ScratchDir)
	noDatabase := errors.Is(err, fs.ErrNotExist)
	if err != nil && !noDatabase {
		return err
	}
	if o.Manifest != nil {
		s.loadManifest(o.Manifest)
	} else if err := s.loadModules(ctx, im); err != nil {
		return err
	}
	if noDatabase || o.Manifest == nil {
		return s.walk(ctx, im, noDatabase)
	}
	return nil
}

// loadManifest takes what only the manifest knows.
func (s *Store) loadManifest(m *image.Manifest) {
	s.Label, s.SHA256 = m.Image.Label, m.Image.SHA256.String()
	t := m.Totals
	s.Files, s.Directories, s.Symlinks, s.Bytes, s.Unique = t.Files, t.Directories, t.Symlinks, t.Bytes, t.UniqueBytes
	if m.Verity != nil {
		s.Verity = m.Verity.RootHash.String()
	}
	for _, l := range m.Modules {
		s.Modules = append(s.Modules, Module{l.ID, l.Commit, l.Path})
	}
	s.sortModules()
	for i := range m.Paths {
		if p := s.find(m.Paths[i].Path); p >= 0 {
			s.Paths[p].Stored = 0
			for _, x := range m.Paths[i].Data {
				s.Paths[p].Stored += x.Length
			}
		}
	}
}

func (s *Store) sortModules() {
	slices.SortFunc(s.Modules, func(a, b Module) int { return strings.Compare(a.ID, b.ID) })
}

// find returns the index of a path, -1 if it is not on the disk.
func (s *Store) find(p store.Path) int {
	i, ok := slices.BinarySearchFunc(s.Paths, p, func(a Path, p store.Path) int { return strings.Compare(string(a.Path), string(p)) })
	if !ok {
		return -1
	}
	return i
}

// maxModules bounds modules.json in bytes.
const maxModules = 256 << 20

// loadModules reads /etc/nixmodules/modules.json, if it is there.
func (s *Store) loadModules(ctx context.Context, im *read.Image) error {
	var b strings.Builder
	err := im.Copy(ctx, &b, "etc/nixmodules/modules.json", maxModules)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var entries map[string]Module
	if err := json.Unmarshal([]byte(b.String()), &entries); err != nil {
		return fmt.Errorf("/etc/nixmodules/modules.json: %w", err)
	}
	for id, m := range entries {
		if m.Path, err = store.ParsePath(string(m.Path)); err != nil {
			return fmt.Errorf("/etc/nixmodules/modules.json: module %q: %w", id, err)
		}
		m.ID = id
		s.Modules = append(s.Modules, m)
	}
	s.sortModules()
	return nil
}

// walk counts what is in the image, for want of a manifest; for want of a
// database it gathers the store paths too, with the sum of their files as size.
func (s *Store) walk(ctx context.Context, im *read.Image, paths bool) error {
	s.Files, s.Directories, s.Symlinks, s.Bytes = 0, 0, 0, 0
	root, err := im.Root()
	if err != nil {
		return err
	}
	return im.Walk(root, func(path string, n *read.Node, leave bool) error {
		if leave {
			return ctx.Err()
		}
		switch n.Kind {
		case store.Directory:
			s.Directories++
		case store.Symlink:
			s.Symlinks++
		case store.Regular:
			s.Files++
			s.Bytes += n.Size
		}
		if rest, ok := strings.CutPrefix(path, "nix/store/"); ok && paths {
			s.addFile(rest, n)
		}
		return nil
	})
}

func (s *Store) addFile(rest string, n *read.Node) {
	base, _, below := strings.Cut(rest, "/")
	p, err := store.ParseBase(base)
	if err != nil {
		return
	}
	if !below {
		s.Paths = append(s.Paths, Path{Path: p, Stored: -1})
	}
	s.Paths[len(s.Paths)-1].NarSize += n.Size
}

// Summary is an image in a few numbers.
type Summary struct {
	Image      read.Info `json:"image"`
	Label      string    `json:"label,omitempty"`
	SHA256     string    `json:"sha256,omitempty"`
	Verity     string    `json:"verityRootHash,omitempty"`
	StorePaths int       `json:"storePaths"`
	Files      int64     `json:"files"`
	Dirs       int64     `json:"directories"`
	Symlinks   int64     `json:"symlinks"`
	// Bytes is the sum of file sizes; UniqueBytes counts identical files once,
	// and is left out where there is no manifest to say it.
	Bytes       int64 `json:"bytes"`
	UniqueBytes int64 `json:"uniqueBytes,omitempty"`
	// Ratio is Bytes over the filesystem's length.
	Ratio   float64       `json:"ratio"`
	Largest []Path        `json:"largest"`
	Modules []ModuleSizes `json:"modules"`
}

// ModuleSizes says what a module takes. Sizes are sums of NAR sizes.
type ModuleSizes struct {
	Module
	// Paths and Closure are number and size of the store paths that it needs.
	Paths   int   `json:"paths"`
	Closure int64 `json:"closure"`
	// Own is the size of those that no other module needs, not even another
	// version of this one: what leaving it out would save.
	Own int64 `json:"own"`
}

// Summarize returns the summary with the largest store paths, at most as many
// as asked for.
func (s *Store) Summarize(largest int) *Summary {
	out := &Summary{
		Image: s.Info, Label: s.Label, SHA256: s.SHA256, Verity: s.Verity, StorePaths: len(s.Paths),
		Files: s.Files, Dirs: s.Directories, Symlinks: s.Symlinks, Bytes: s.Bytes, UniqueBytes: max(0, s.Unique),
		Ratio: float64(s.Bytes) / float64(max(1, s.Info.Length)), Modules: s.moduleSizes(s.users()),
	}
	order := slices.Clone(s.Paths)
	slices.SortStableFunc(order, func(a, b Path) int { return cmp.Compare(b.NarSize, a.NarSize) })
	out.Largest = order[:min(largest, len(order))]
	return out
}

// use is who needs a store path.
type use struct {
	modules int32 // how many
	first   int32 // one of them, an index into Modules; -1 if there is none
	names   int32 // how many, versions of one module counted once
}

// closure calls visit for every path that from needs, itself included, once.
// seen must have an entry for each path, none of them mark.
func (s *Store) closure(from int32, seen []int32, mark int32, visit func(i int32)) {
	todo := []int32{from}
	seen[from] = mark
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		visit(i)
		for _, r := range s.Paths[i].refs {
			if seen[r] != mark {
				seen[r] = mark
				todo = append(todo, r)
			}
		}
	}
}

// users finds out which modules need each path.
func (s *Store) users() []use {
	uses := make([]use, len(s.Paths))
	lastName := make([]string, len(s.Paths))
	for i := range uses {
		uses[i].first = -1
	}
	seen := make([]int32, len(s.Paths))
	for m := range s.Modules {
		at := s.find(s.Modules[m].Path)
		if at < 0 {
			continue
		}
		name := s.Modules[m].Name() // modules are sorted, so its versions come together
		s.closure(int32(at), seen, int32(m)+1, func(i int32) {
			u := &uses[i]
			if u.modules == 0 {
				u.first = int32(m)
			}
			u.modules++
			if lastName[i] != name || u.names == 0 {
				lastName[i] = name
				u.names++
			}
		})
	}
	return uses
}

func (s *Store) moduleSizes(uses []use) []ModuleSizes {
	out := make([]ModuleSizes, 0, len(s.Modules))
	seen := make([]int32, len(s.Paths))
	for m := range s.Modules {
		size := ModuleSizes{Module: s.Modules[m]}
		if at := s.find(s.Modules[m].Path); at >= 0 {
			s.closure(int32(at), seen, int32(m)+1, func(i int32) {
				size.Paths++
				size.Closure += s.Paths[i].NarSize
				if uses[i].modules == 1 {
					size.Own += s.Paths[i].NarSize
				}
			})
		}
		out = append(out, size)
	}
	return out
}
