// Package sourcetest holds what tests of sources, and of whatever uses them,
// have in common: store paths made up in memory, real stores and binary caches
// made of them, and the tests that every source must pass.
package sourcetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
)

// File is one file of a tree. Trees are given in NAR order.
type File struct {
	// Path, Kind, Executable and Target are those of [store.Entry]; its Size
	// is that of Data.
	Path       string
	Kind       store.Kind
	Data       []byte
	Executable bool
	Target     string
}

// Dir makes a directory.
func Dir(path string) File { return File{Path: path, Kind: store.Directory} }

// Reg makes a regular file.
func Reg(path, data string) File { return File{Path: path, Kind: store.Regular, Data: []byte(data)} }

// Link makes a symlink.
func Link(path, target string) File { return File{Path: path, Kind: store.Symlink, Target: target} }

// Exe makes a file that can be executed.
func Exe(path, data string) File {
	return File{Path: path, Kind: store.Regular, Data: []byte(data), Executable: true}
}

// Memory is a source that has its paths in memory. Fill it first; then it is
// safe for concurrent use.
type Memory struct {
	// Name is what String returns.
	Name string
	// InfoErrors and OpenErrors are what Info and Open fail with for a path.
	InfoErrors, OpenErrors map[store.Path]error
	items                  map[store.Path]*item
}

type item struct {
	info *store.PathInfo
	nar  []byte
	// packed is the archive by compression, since packing takes long.
	packed map[string][]byte
}

// NewMemory returns a source without paths.
func NewMemory() *Memory {
	return &Memory{
		Name: "memory", items: make(map[store.Path]*item),
		InfoErrors: make(map[store.Path]error), OpenErrors: make(map[store.Path]error),
	}
}

// Archive returns the NAR of a tree.
func Archive(t testing.TB, tree []File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, f := range tree {
		e := &store.Entry{Path: f.Path, Kind: f.Kind, Size: int64(len(f.Data)), Executable: f.Executable, Target: f.Target}
		if err := w.Create(e); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Add adds a store path of that name and tree, which refers to refs. The digest
// follows from name and tree.
func (m *Memory) Add(t testing.TB, name string, tree []File, refs ...store.Path) store.Path {
	t.Helper()
	return m.AddArchive(t, name, Archive(t, tree), refs...)
}

// AddArchive adds a store path with that archive, which need not be one.
func (m *Memory) AddArchive(t testing.TB, name string, archive []byte, refs ...store.Path) store.Path {
	t.Helper()
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %x", name, sha256.Sum256(archive)))
	path, err := store.ParseBase(store.EncodeBase32(digest[:20]) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	info := &store.PathInfo{Path: path, NarHash: sha256.Sum256(archive), NarSize: int64(len(archive)), References: slices.Clone(refs)}
	info.SortReferences()
	m.items[path] = &item{info, archive, make(map[string][]byte)}
	return path
}

// ReferToSelf makes a path that was added refer to itself, too.
func (m *Memory) ReferToSelf(path store.Path) {
	info := m.items[path].info
	info.References = append(info.References, path)
	info.SortReferences()
}

// Paths returns all paths, sorted.
func (m *Memory) Paths() []store.Path { return slices.Sorted(maps.Keys(m.items)) }

// Archive returns the archive of a path that was added.
func (m *Memory) Archive(path store.Path) []byte { return m.items[path].nar }

// String implements [source.Source].
func (m *Memory) String() string { return m.Name }

// Close implements [source.Source].
func (m *Memory) Close() error { return nil }

func (m *Memory) fail(path store.Path, err error) error {
	return &source.Error{Path: path, Source: m.Name, Err: err}
}

// Info implements [source.Source].
func (m *Memory) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, m.fail(path, err)
	}
	if err := m.InfoErrors[path]; err != nil {
		return nil, m.fail(path, err)
	}
	it, ok := m.items[path]
	if !ok {
		return nil, m.fail(path, source.ErrNotFound)
	}
	return it.info, nil
}

// Open implements [source.Source].
func (m *Memory) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	if err := ctx.Err(); err != nil {
		return nil, m.fail(info.Path, err)
	}
	if err := m.OpenErrors[info.Path]; err != nil {
		return nil, m.fail(info.Path, err)
	}
	it, ok := m.items[info.Path]
	if !ok {
		return nil, m.fail(info.Path, source.ErrNotFound)
	}
	if it.info.NarHash != info.NarHash || it.info.NarSize != info.NarSize {
		return nil, m.fail(info.Path, source.ErrMismatch)
	}
	return &contents{ctx: ctx, reader: nar.NewReader(bytes.NewReader(it.nar))}, nil
}

// contents adds to a reader what contents have to do.
type contents struct {
	ctx    context.Context
	reader *nar.Reader
	closed bool
}

func (c *contents) state() error {
	if c.closed {
		return fmt.Errorf("contents: %w", os.ErrClosed)
	}
	return c.ctx.Err()
}

// Next implements [store.Contents].
func (c *contents) Next() (*store.Entry, error) {
	if err := c.state(); err != nil {
		return nil, err
	}
	return c.reader.Next()
}

// Read implements [store.Contents].
func (c *contents) Read(p []byte) (int, error) {
	if err := c.state(); err != nil {
		return 0, err
	}
	return c.reader.Read(p)
}

// Close implements [store.Contents].
func (c *contents) Close() error {
	c.closed = true
	return nil
}

// ReadAll returns the tree in c up to its end or the first error, and closes c.
func ReadAll(c store.Contents) ([]File, error) {
	defer c.Close()
	var tree []File
	for {
		e, err := c.Next()
		if err == io.EOF {
			return tree, nil
		}
		if err != nil {
			return tree, err
		}
		f := File{Path: e.Path, Kind: e.Kind, Executable: e.Executable, Target: e.Target}
		if e.Kind == store.Regular {
			if f.Data, err = io.ReadAll(c); err != nil {
				return tree, err
			}
			if int64(len(f.Data)) != e.Size {
				return tree, errors.New("a file has another size than its entry says")
			}
		}
		tree = append(tree, f)
	}
}
