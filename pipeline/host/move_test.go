package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
)

// mountedDisk is a disk that can be unmounted, as when it is detached.
func mountedDisk(t *testing.T, root string, paths map[string]aPath) string {
	t.Helper()
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	return makeDisk(t, root, paths)
}

// TestOverlayTakesFromItself moves a store off a disk that is not mounted any
// more, but still under the store.
func TestOverlayTakesFromItself(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	t.Cleanup(func() { unmountBelow(t, dir) })
	v1 := mountedDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"libc": {"libc", nil}, "tool": {"tool", []string{"libc"}}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"libc": {"libc, again", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"tool"}}})
	if err := unmount(v1, true); err != nil {
		t.Fatal(err)
	}
	l := s.mount(v2)
	if want := []store.Path{named("libc"), named("tool")}; !slices.Equal(l.Copied, want) {
		t.Errorf("%+v, want %q copied", l, want)
	}
	s.check("libc", "tool", "mine")
	s.wantNothingHeld()
}

func (s *aStore) wantNothingHeld() {
	s.t.Helper()
	if (upper{s.Upper}).held() {
		s.t.Error("the store from before is still there")
	}
	if _, err := os.Stat(filepath.Join(s.Upper, heldName)); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("its directory is still there: %v", err)
	}
}

// TestOverlayStays refuses to move: the store stays where it was, and works.
func TestOverlayStays(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"libc": {"libc", nil}, "tool": {"tool", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"libc": {"libc", nil}})
	bad := makeDisk(t, filepath.Join(dir, "bad"), map[string]aPath{"libc": {"another", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"tool"}}})
	if err := removeTree(filepath.Join(v1, string(named("tool")), "bin")); err != nil { // so that it is not what it was
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		lowers []string
		says   string
	}{
		"lost":    {[]string{v2}, "lost store paths"},
		"differ":  {[]string{v2, bad}, "has other contents"},
		"no disk": {[]string{dir}, "the disk's database"},
	} {
		s.Lowers = c.lowers
		if l, err := Overlay(t.Context(), s.OverlayOptions); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if there, err := (upper{s.Upper}).mountedAt(s.At); err != nil || !there {
			t.Errorf("%s: the store is not there any more, %v", name, err)
		}
		s.wantNothingHeld()
	}
	if l := s.mount(v1); l.Mounted {
		t.Errorf("it is not as it was: %+v", l)
	}
	s.DropLost = true // what cannot be read is lost, and no error
	if l := s.mount(v2); !slices.Equal(l.Dropped, []store.Path{named("tool"), named("mine")}) {
		t.Errorf("%+v", l)
	}
	s.check()
}

// TestOverlayKilled finds the store held, as a run leaves it that is killed while
// the store is away.
func TestOverlayKilled(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	t.Cleanup(func() { unmountBelow(t, dir) })
	v1 := mountedDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"tool": {"tool", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{"libc": {"libc", nil}})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"mine", []string{"tool"}}})
	if err := errors.Join((upper{s.Upper}).hold(s.At, true), unmount(v1, true)); err != nil {
		t.Fatal(err)
	}
	if l := s.mount(v2); !slices.Equal(l.Copied, []store.Path{named("tool")}) {
		t.Errorf("%+v", l)
	}
	s.check("tool", "mine")
	s.wantNothingHeld()
}

// TestOverlayPathsOnBoth: what was built, and what builds have left that failed,
// is on the new disk too.
func TestOverlayPathsOnBoth(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	v1 := makeDisk(t, filepath.Join(dir, "v1"), map[string]aPath{"libc": {"libc", nil}})
	v2 := makeDisk(t, filepath.Join(dir, "v2"), map[string]aPath{
		"libc": {"libc", nil}, "same": {"same", nil}, "mine": {"built elsewhere", nil}, "half": {"whole", nil},
	})
	s := newStore(t)
	s.mount(v1)
	s.used(filepath.Join(v1, databasePath), map[string]aPath{"mine": {"built here", []string{"libc"}}, "same": {"same", nil}})
	writeTree(t, filepath.Join(s.At, named("half").Base()), "half")
	writeTree(t, filepath.Join(s.At, named("rest").Base()), "on no disk")
	s.mount(v2)
	s.check("libc", "mine", "same")
	got, _ := hashOf(t, filepath.Join(s.At, named("half").Base()))
	if want, _ := hashOf(t, filepath.Join(v2, string(named("half")))); got != want {
		t.Error("half is not as on the disk")
	}
	hashOf(t, filepath.Join(s.At, named("rest").Base())) // is left to Nix
}

// TestOverlayDiskAgain attaches a disk again, in the same place: the store under
// the kernel's overlay is the one that is gone.
func TestOverlayDiskAgain(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := openTemp(t)
	t.Cleanup(func() { unmountBelow(t, dir) })
	paths := map[string]aPath{"libc": {"libc", nil}}
	v1 := mountedDisk(t, filepath.Join(dir, "v1"), paths)
	s := newStore(t)
	s.mount(v1)
	if err := unmount(v1, true); err != nil {
		t.Fatal(err)
	}
	mountedDisk(t, v1, paths)
	if l := s.mount(v1); !l.Mounted {
		t.Error("the store is of the disk that was detached")
	}
	if l := s.mount(v1); l.Mounted {
		t.Error("and again")
	}
}
