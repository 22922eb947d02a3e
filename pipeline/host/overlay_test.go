package host

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
	"bigdisk/image/storedb"
)

// aPath is a store path: the text in its files, and what it refers to.
type aPath struct {
	text string
	refs []string
}

// named is the store path of a name.
func named(name string) store.Path {
	return store.Path(store.Dir + "/" + strings.Repeat(string('0'+name[0]%8), store.DigestLen) + "-" + name)
}

// makeDisk lays out a directory that stands for a mounted disk.
func makeDisk(t *testing.T, root string, paths map[string]aPath) string {
	t.Helper()
	var infos []*store.PathInfo
	for name, p := range paths {
		path := named(name)
		writeTree(t, filepath.Join(root, string(path)), p.text)
		infos = append(infos, infoOf(t, root, path, p.refs))
	}
	for _, f := range storedb.Layout() {
		if err := layOut(filepath.Join(root, f.Path), f); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(infos, func(a, b *store.PathInfo) int { return strings.Compare(string(a.Path), string(b.Path)) })
	if err := storedb.Write(t.Context(), filepath.Join(root, databasePath), storedb.Infos(infos), storedb.Options{}); err != nil {
		t.Fatal(err)
	}
	return root
}

// writeTree makes a store path: a directory with a file, a program and a link.
func writeTree(t *testing.T, at, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(at, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"data": 0o444, "bin/run": 0o555, "only-" + text: 0o444} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../data", filepath.Join(at, "bin/link")); err != nil {
		t.Fatal(err)
	}
}

// infoOf hashes a store path.
func infoOf(t *testing.T, root string, path store.Path, refs []string) *store.PathInfo {
	t.Helper()
	info := &store.PathInfo{Path: path}
	info.NarHash, info.NarSize = hashOf(t, filepath.Join(root, string(path)))
	for _, r := range refs {
		info.References = append(info.References, named(r))
	}
	info.SortReferences()
	return info
}

func hashOf(t *testing.T, at string) (store.Hash, int64) {
	t.Helper()
	h := newNarHash()
	if err := nar.Dump(t.Context(), h, at); err != nil {
		t.Fatal(err)
	}
	return h.sum()
}

// aStore is a layered store in a directory of its own.
type aStore struct {
	OverlayOptions
	t *testing.T
}

func newStore(t *testing.T, lowers ...string) *aStore {
	t.Helper()
	imagetest.NeedRoot(t, "mount an overlay")
	dir := filepath.Join(openTemp(t), "rw")
	t.Cleanup(func() { unmountBelow(t, filepath.Dir(dir)) })
	return &aStore{t: t, OverlayOptions: OverlayOptions{Lowers: lowers, Upper: dir, At: filepath.Join(filepath.Dir(dir), "store")}}
}

// openTemp is a temporary directory whose name is plain: the kernel's overlay
// and Nix want it so.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bigdisk-overlay-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (s *aStore) mount(lowers ...string) *Layered {
	s.t.Helper()
	s.Lowers = lowers
	l, err := Overlay(s.t.Context(), s.OverlayOptions)
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// used makes the database as Nix leaves it: the rows of a disk that were asked
// for, and what was built.
func (s *aStore) used(database string, built map[string]aPath) {
	s.t.Helper()
	u := upper{s.Upper}
	if err := os.MkdirAll(filepath.Dir(u.database()), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := copyFile(u.database(), database); err != nil {
		s.t.Fatal(err)
	}
	conn, err := sqlite.OpenConn(u.database(), sqlite.OpenReadWrite)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	run := func(query string, args ...any) {
		if err := sqlitex.Execute(conn, query, &sqlitex.ExecOptions{Args: args}); err != nil {
			s.t.Fatal(err)
		}
	}
	for name, p := range built {
		at := u.path(upperName, named(name).Base())
		writeTree(s.t, at, p.text)
		hash, size := hashOf(s.t, at)
		run("insert into ValidPaths (path, hash, registrationTime, narSize) values (?, ?, 1, ?)", string(named(name)), "sha256:"+hash.Base16(), size)
	}
	for name, p := range built {
		for _, r := range p.refs {
			run("insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b where a.path = ? and b.path = ?", string(named(name)), string(named(r)))
		}
	}
}

// check makes sure that the database has these paths, in the store with the
// contents that it says.
func (s *aStore) check(names ...string) {
	s.t.Helper()
	db, err := openUpper(s.t.Context(), upper{s.Upper})
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.close()
	var got []string
	for p, row := range db.rows {
		got = append(got, p.Name())
		hash, size := hashOf(s.t, filepath.Join(s.At, p.Base()))
		if hash != row.hash || size != row.size {
			s.t.Errorf("%s is not what it was", p)
		}
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		s.t.Errorf("the database has %q, want %q", got, names)
	}
}

func TestOverlayMoves(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{
		"libc": {"libc", nil}, "tool": {"tool", []string{"libc"}}, "idle": {"idle", []string{"libc"}}, "base": {"base", nil},
	})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{ // libc was built anew, and differs
		"libc": {"libc, again", nil}, "base": {"base", nil}, "fresh": {"fresh", []string{"libc"}},
	})
	s := newStore(t)
	if l := s.mount(v1); !l.Mounted || l.At != s.At {
		t.Errorf("%+v", l)
	}
	if l := s.mount(v1); l.Mounted {
		t.Errorf("again: %+v", l)
	}
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"tool"}}, "more": {"more", []string{"mine", "base"}}})
	s.check("libc", "tool", "idle", "base", "mine", "more")

	inUse, err := os.Open(filepath.Join(s.At, named("mine").Base(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	s.Lowers = []string{v2}
	if _, err := Overlay(t.Context(), s.OverlayOptions); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while it is in use: %v", err)
	}
	inUse.Close()

	l := s.mount(v2)
	if want := []store.Path{named("libc"), named("tool")}; !slices.Equal(l.Copied, want) || !l.Mounted || len(l.Dropped) > 0 {
		t.Errorf("%+v, want %q copied", l, want)
	}
	s.check("libc", "tool", "base", "mine", "more") // idle is gone, and Nix will find fresh by itself
	fi, err := os.Lstat(filepath.Join(s.At, named("tool").Base(), "bin/run"))
	if err != nil || fi.Mode() != 0o555 || fi.ModTime().Unix() != 1 {
		t.Errorf("a copied program is %v, %v", fi, err)
	}
	if l := s.mount(v1); len(l.Copied) > 0 {
		t.Errorf("back: %+v", l)
	}
	s.check("libc", "tool", "base", "mine", "more")
}

func TestOverlayLost(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"libc": {"libc", nil}, "tool": {"tool", []string{"libc"}}, "base": {"base", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"libc": {"libc", nil}, "base": {"base", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"tool"}}, "more": {"more", []string{"mine"}}, "other": {"other", []string{"base"}}})
	if err := removeTree(v1); err != nil {
		t.Fatal(err)
	}
	s.Lowers = []string{v2}
	_, err := Overlay(t.Context(), s.OverlayOptions)
	if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), string(named("tool"))) || strings.Contains(err.Error(), string(named("libc"))) {
		t.Fatalf("%v", err)
	}
	s.DropLost = true
	l := s.mount(v2)
	want := []store.Path{named("mine"), named("more"), named("tool")}
	slices.Sort(want)
	if !slices.Equal(l.Dropped, want) {
		t.Errorf("dropped %q, want %q", l.Dropped, want)
	}
	s.check("base", "libc", "other")
}

// TestOverlayWhiteouts deletes a disk's path from the store: on the next disk it
// is there again, as the database says.
func TestOverlayWhiteouts(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"tool": {"tool", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"tool": {"tool", nil}, "fresh": {"fresh", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), nil)
	if err := os.RemoveAll(filepath.Join(s.At, named("tool").Base())); err != nil {
		t.Fatal(err)
	}
	s.mount(v2)
	if _, err := os.Stat(filepath.Join(s.At, named("tool").Base(), "data")); err != nil {
		t.Error(err)
	}
}

func TestStack(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	a := makeDisk(t, filepath.Join(dir, "a"), map[string]aPath{"libc": {"libc", nil}, "tool": {"tool", []string{"libc"}}})
	b := makeDisk(t, filepath.Join(dir, "b"), map[string]aPath{
		"libc": {"libc", nil}, "base": {"base", nil}, "wide": {"wide", []string{"libc", "base"}}, "zero": {"zero", []string{"wide"}},
	})
	bad := makeDisk(t, filepath.Join(dir, "bad"), map[string]aPath{"libc": {"another", nil}})
	s := newStore(t)
	l := s.mount(a, b)
	if !strings.Contains(l.URL, url.QueryEscape("local?real="+s.Upper+"/stack/store&state="+s.Upper+"/stack/state&read-only=true")) {
		t.Errorf("the store is %s", l.URL)
	}
	s.used(filepath.Join(s.Upper, "stack/state/db/db.sqlite"), nil)
	s.check("base", "libc", "tool", "wide", "zero")
	db, err := openUpper(t.Context(), upper{s.Upper})
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, row := range db.rows {
		for _, to := range db.refs[row.id] {
			refs = append(refs, row.path.Name()+">"+db.byID[to].path.Name())
		}
	}
	db.close()
	slices.Sort(refs)
	if got := strings.Join(refs, " "); got != "tool>libc wide>base wide>libc zero>wide" {
		t.Errorf("the references are %s", got)
	}
	s.Lowers = []string{a, bad}
	if _, err := Overlay(t.Context(), s.OverlayOptions); err == nil || !strings.Contains(err.Error(), string(named("libc"))+" has other contents") {
		t.Errorf("two disks that differ: %v", err)
	}
	s.mount(b)
	s.mount(b, a)
	s.check()
}

func TestOverlayRefuses(t *testing.T) {
	dir := openTemp(t)
	for name, c := range map[string]struct {
		o    OverlayOptions
		says string
	}{
		"no disk":    {OverlayOptions{Upper: dir}, "needs a disk"},
		"none there": {OverlayOptions{Upper: dir, Lowers: []string{filepath.Join(dir, "none")}}, "no such file"},
		"twice":      {OverlayOptions{Upper: dir, Lowers: []string{dir, dir + "/."}}, "is there twice"},
		"comma":      {OverlayOptions{Upper: dir + "/a,b", Lowers: []string{dir}}, "cannot be part of a layered store"},
		"percent":    {OverlayOptions{Upper: dir, At: dir + "/a%20", Lowers: []string{dir}}, "cannot be part of a layered store"},
		"relative":   {OverlayOptions{Upper: dir, At: "store", Lowers: []string{dir}}, "cannot be part of a layered store"},
	} {
		if l, err := Overlay(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want %q", name, l, err, c.says)
		}
	}
	imagetest.NeedRoot(t, "mount an overlay")
	disk := makeDisk(t, filepath.Join(dir, "disk"), map[string]aPath{"libc": {"libc", nil}})
	s, other := newStore(t), newStore(t)
	s.mount(disk)
	other.At, other.Lowers = s.At, []string{disk}
	if _, err := Overlay(t.Context(), other.OverlayOptions); err == nil || !strings.Contains(err.Error(), "another overlay is mounted") {
		t.Errorf("%v", err)
	}
	lock, err := (layout{s.Upper}).lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Overlay(t.Context(), s.OverlayOptions); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
}

func TestStoreURL(t *testing.T) {
	u := upper{"/var/upper"}
	const want = "local-overlay://?state=/var/upper/state&log=/var/upper/log" +
		"&lower-store=local%3Froot%3D%2Fmnt%2Fnix%2Fv1%26read-only%3Dtrue&upper-layer=/var/upper/upper&remount-hook=/var/upper/remount"
	if got := overlayStore(u, store.Dir, lowerStore("/mnt/nix/v1")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := overlayStore(u, "/x", lowerStore("/mnt/nix/v1")); got != want+"&real=/x" {
		t.Errorf("%s", got)
	}
}

func TestOverlayCancelled(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"libc": {"libc", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"base": {"base", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"libc"}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Lowers = []string{v2}
	if _, err := Overlay(ctx, s.OverlayOptions); err == nil {
		t.Error("it goes on")
	}
	if l := s.mount(v2); !slices.Equal(l.Copied, []store.Path{named("libc")}) {
		t.Errorf("%+v", l)
	}
	s.check("libc", "mine")
}
