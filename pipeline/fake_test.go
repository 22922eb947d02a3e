package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image"
)

// fakeStore is a source in memory.
type fakeStore struct {
	mu    sync.Mutex
	paths map[store.Path]*fakePath
	step  func(what string) // before every call
}

type fakePath struct {
	info    store.PathInfo
	files   []memFile
	openErr error
	fail    map[int]error // see memTree
}

func newFakeStore() *fakeStore { return &fakeStore{paths: make(map[store.Path]*fakePath)} }

// add puts a path into the store: name is all of it but the digest, which
// follows from it.
func (s *fakeStore) add(t testing.TB, name string, files []memFile, refs ...store.Path) store.Path {
	t.Helper()
	digest := sha256.Sum256([]byte(name))
	p, err := store.ParseBase(store.EncodeBase32(digest[:20]) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := sum(&memTree{files: files})
	if err != nil {
		t.Fatal(err)
	}
	info := store.PathInfo{Path: p, NarHash: sha256.Sum256([]byte(h)), NarSize: 1, References: refs}
	for _, f := range files {
		info.NarSize += 160 + f.entry.Size
	}
	info.SortReferences()
	s.paths[p] = &fakePath{info: info, files: files}
	return p
}

// file is a store path that is one file.
func file(data string) []memFile {
	return []memFile{{store.Entry{Kind: store.Regular, Size: int64(len(data))}, []byte(data)}}
}

func (s *fakeStore) at(ctx context.Context, what string, p store.Path) (*fakePath, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step != nil {
		s.step(what)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := s.paths[p]
	if f == nil {
		return nil, &source.Error{Path: p, Source: s.String(), Err: source.ErrNotFound}
	}
	return f, nil
}

func (s *fakeStore) String() string { return "memory" }

func (s *fakeStore) Close() error { return nil }

func (s *fakeStore) Info(ctx context.Context, p store.Path) (*store.PathInfo, error) {
	f, err := s.at(ctx, "info", p)
	if err != nil {
		return nil, err
	}
	return &f.info, nil
}

func (s *fakeStore) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	f, err := s.at(ctx, "open", info.Path)
	if err == nil && f.openErr != nil {
		err = &source.Error{Path: info.Path, Source: s.String(), Err: f.openErr}
	}
	if err != nil {
		return nil, err
	}
	pause := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.step != nil {
			s.step("read")
		}
	}
	return &memTree{files: f.files, fail: f.fail, pause: pause}, nil
}

// recorder is an image format that writes down what it is told, and holds the
// caller to the contract of image.Writer.
type recorder struct {
	step func(what string) // before every call
	fail func(what string) error
	log  []string // a line for every call

	file   *os.File
	dirs   []string // from the root to the one of the last entry
	names  map[string]bool
	left   int64
	hash   hash.Hash         // of the file being written
	name   string            // its path
	kept   map[string][]byte // files outside the store
	layout image.Layout
	closed bool
}

func (r *recorder) newWriter(_ context.Context, d *disk, label string) (image.Writer, error) {
	*r = recorder{step: r.step, fail: r.fail, file: d.file, hash: sha256.New(), kept: map[string][]byte{}, names: map[string]bool{"": true}, log: []string{"label " + label}}
	return r, nil
}

func (r *recorder) compression() string { return "zstd:default" }

func (r *recorder) blockSize() int { return 4096 }

func (r *recorder) layoutVersion() int { return 1 }

func (r *recorder) call(what string) error {
	if r.step != nil {
		r.step("write")
	}
	if r.closed {
		return errors.New("called after Close")
	}
	if r.left > 0 {
		return fmt.Errorf("%s: %d bytes of the file before are missing", what, r.left)
	}
	r.log = append(r.log, what)
	if r.fail != nil {
		return r.fail(what)
	}
	return nil
}

func (r *recorder) Begin(unit string) error {
	if unit != "" {
		r.layout.Units = append(r.layout.Units, image.Unit{Name: unit})
	}
	return r.call("begin " + unit)
}

func (r *recorder) Create(e *store.Entry) error {
	if err := r.call(fmt.Sprintf("create %+v", *e)); err != nil {
		return &image.EntryError{Path: e.Path, Err: err}
	}
	dir := path.Dir("/" + e.Path)[1:]
	if r.names[e.Path] || !r.names[dir] {
		return fmt.Errorf("%s: there already, or not its directory", e.Path)
	}
	r.names[e.Path] = true
	r.left, r.name = e.Size, e.Path
	r.layout.DataBytes += e.Size
	switch e.Kind {
	case store.Regular:
		r.layout.Files++
		r.layout.Size += e.Size
		if n := len(r.layout.Units); n > 0 && strings.HasPrefix(e.Path, "nix/store/") {
			r.layout.Units[n-1].Files++
			r.layout.Units[n-1].Bytes += e.Size
		}
	case store.Directory:
		r.layout.Dirs++
	default:
		r.layout.Symlinks++
	}
	return nil
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.step != nil {
		r.step("write")
	}
	if r.left -= int64(len(p)); r.left < 0 {
		return 0, errors.New("too much data")
	}
	// How the data is cut into pieces is nobody's business.
	r.hash.Write(p)
	if !strings.HasPrefix(r.name, "nix/store/") {
		r.kept[r.name] = append(r.kept[r.name], p...)
	}
	if r.left == 0 {
		r.log = append(r.log, fmt.Sprintf("data %x", r.hash.Sum(nil)))
		r.hash.Reset()
	}
	return len(p), nil
}

func (r *recorder) Close() error {
	if err := r.call("close"); err != nil {
		return err
	}
	r.closed = true
	_, err := r.file.WriteAt([]byte(strings.Join(r.log, "\n")), 0)
	r.layout.Size = int64(len(strings.Join(r.log, "\n")))
	r.layout.Metadata = []image.Extent{{Length: r.layout.Size}}
	return err
}

func (r *recorder) Layout() *image.Layout { return &r.layout }

// fakeBuild is a build without a disk format or a store.
type fakeBuild struct {
	store    *fakeStore
	recorder *recorder
	opts     BuildOptions
	dir      string
}

func newFakeBuild(t testing.TB, s *fakeStore) *fakeBuild {
	t.Helper()
	dir := t.TempDir()
	return &fakeBuild{store: s, recorder: new(recorder), dir: dir, opts: BuildOptions{
		Output: filepath.Join(dir, "disk.sqsh"), Jobs: 4, MemoryBudget: 8 << 20, ScratchDir: t.TempDir(),
	}}
}

// lock writes a lock file: keys and paths in turns.
func (f *fakeBuild) lock(t testing.TB, entries ...lock.Entry) {
	t.Helper()
	data, err := lock.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	f.opts.Lock = filepath.Join(t.TempDir(), "modules.json")
	if err := os.WriteFile(f.opts.Lock, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func entry(t testing.TB, key string, p store.Path) lock.Entry {
	t.Helper()
	id, tag, err := lock.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := lock.ParseCommit(tag.Short + strings.Repeat("0", 40-len(tag.Short)))
	if err != nil {
		t.Fatal(err)
	}
	return lock.Entry{ID: id, Tag: tag, Commit: commit, Path: p}
}

func (f *fakeBuild) run(ctx context.Context) (*BuildResult, error) {
	opts, err := f.opts.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &builder{opts: opts, format: f.recorder, source: f.store}
	return b.build(ctx)
}

// files lists what is in the output's directory.
func (f *fakeBuild) files(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// created lists the entries of the image whose paths have the prefix, in order.
func (f *fakeBuild) created(prefix string) []string {
	var found []string
	for _, line := range f.recorder.log {
		if strings.HasPrefix(line, "create {Path:"+prefix) {
			found = append(found, strings.Fields(strings.TrimPrefix(line, "create {Path:"))[0])
		}
	}
	return found
}
