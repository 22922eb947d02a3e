package nixcmd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/nixcmd/nixtest"
	"bigdisk/bundle/store"
)

func fakePath(i int) store.Path {
	return store.Path(fmt.Sprintf("%s/%032d-replit-module-%d", store.Dir, i, i))
}

// TestClient uses every command on an empty store.
func TestClient(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", nixtest.Flake(`a = shell "replit-module-a" "echo building; echo a > $out" [ ];
	"b-1.2+x" = shell "replit-module-b" "echo b $deps > $out" [ (shell "dep" "echo dep > $out" [ ]) ];`))
	commit := repo.Commit("one")
	repo.Write("flake.nix", nixtest.Flake(`a = shell "replit-module-a" "echo changed > $out" [ ];`))
	ctx, c := t.Context(), &nixcmd.Client{}
	flake, err := nixcmd.OpenFlake(ctx, repo.Dir)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := c.Modules(ctx, flake, commit, "modules", []lock.ID{"a", "b-1.2+x", "none"}, nil)
	if err != nil || len(modules) != 2 {
		t.Fatalf("%v, %v", modules, err)
	}
	paths, err := c.ModulePaths(ctx, flake, commit, "modules", nil)
	if err != nil || len(paths) != 2 || paths["a"] != modules["a"].Path || paths["b-1.2+x"] != modules["b-1.2+x"].Path {
		t.Errorf("%v, %v, want those of %v", paths, err, modules)
	}
	dirty, err := c.ModulePaths(ctx, flake, "", "modules", nil)
	if err != nil || len(dirty) != 1 || dirty["a"] == paths["a"] {
		t.Errorf("the work tree: %v, %v", dirty, err)
	}

	_, err = c.ModulePaths(ctx, spaced(t), commit, "modules", nil)
	if err != nil && !strings.Contains(err.Error(), "has to be escaped") {
		t.Errorf("%v", err)
	}

	a, b, none := modules["a"], modules["b-1.2+x"], fakePath(1)
	checkInvalid(t, c, a.Path, none, b.Path)
	var got nixcmd.Counts
	log := &nixcmd.Log{OnCounts: func(c nixcmd.Counts) { got = c }}
	if err := c.Build(ctx, []nixcmd.Output{a.Output, b.Output}, false, log); err != nil {
		t.Fatal(err)
	}
	if got.Built != 3 || got.ToBuild != 3 {
		t.Errorf("%+v, want 3 of 3 built", got)
	}
	if got := log.BuildLog(string(a.Drv)); !slices.Equal(got, []string{"building"}) {
		t.Errorf("%q", got)
	}
	checkInvalid(t, c, none)
	needs, err := c.Requisites(ctx, b.Drv)
	if err != nil || len(needs) < 2 || !needs[b.Drv] {
		t.Errorf("%v, %v", needs, err)
	}

	links := t.TempDir()
	if err := c.Protect(ctx, filepath.Join(links, "x"), []store.Path{b.Path}); err != nil {
		t.Fatal(err)
	}
	nixtest.Run(t, "", "nix-store", "--gc")
	checkInvalid(t, c, a.Path, none)
	if err := os.RemoveAll(links); err != nil {
		t.Fatal(err)
	}
	nixtest.Run(t, "", "nix-store", "--gc")
	checkInvalid(t, c, a.Path, none, b.Path)
	if err := c.Protect(ctx, filepath.Join(t.TempDir(), "x"), []store.Path{a.Path}); err == nil {
		t.Error("what is not valid was protected")
	}
}

// spaced is a flake in a directory that some versions of Nix cannot fetch from.
func spaced(t *testing.T) *nixcmd.Flake {
	t.Helper()
	repo := nixtest.NewRepoIn(t, "a b")
	repo.Commit("one")
	flake, err := nixcmd.OpenFlake(t.Context(), repo.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return flake
}

// checkInvalid asks for these paths and some others.
func checkInvalid(t *testing.T, c *nixcmd.Client, want ...store.Path) {
	t.Helper()
	got, err := c.Invalid(t.Context(), want)
	if !slices.Equal(got, want) || err != nil {
		t.Errorf("invalid: %q, %v, want %q", got, err, want)
	}
}

// TestManyPaths asks for 1,000 valid and 1,000 invalid paths.
func TestManyPaths(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	valid := ManyValid(t, 1000)
	c := new(nixcmd.Client)
	ask := append([]store.Path(nil), valid...)
	var invalid []store.Path
	for i := range 1000 {
		invalid = append(invalid, fakePath(i))
	}
	start := time.Now()
	got, err := c.Invalid(t.Context(), append(ask, invalid...))
	took := time.Since(start)
	if err != nil || !slices.Equal(got, invalid) {
		t.Errorf("%d invalid, want %d: %v", len(got), len(invalid), err)
	}
	t.Logf("2,000 paths took %v", took)
	if took > 2*time.Second {
		t.Errorf("2,000 paths took %v, over 2 s", took)
	}
}

// ManyValid adds files to the store.
func ManyValid(t *testing.T, n int) []store.Path {
	t.Helper()
	dir := t.TempDir()
	args := []string{"--add"}
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("replit-module-%d", i))
		if err := os.WriteFile(name, fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	var paths []store.Path
	for _, p := range strings.Fields(nixtest.Run(t, "", "nix-store", args...)) {
		paths = append(paths, store.Path(p))
	}
	return paths
}

func TestOpenFlake(t *testing.T) {
	nixtest.Need(t, "git")
	repo := nixtest.NewRepo(t)
	sub := filepath.Join(repo.Dir, "a sub?dir")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	const rev = "c48c43c6c698223ed3ce2abc5a2d708735a77d5b"
	for ref, want := range map[string]string{
		repo.Dir:                        "git+file://" + repo.Dir + "?rev=" + rev,
		sub:                             "git+file://" + repo.Dir + "?dir=a+sub%3Fdir&rev=" + rev,
		"git+file://" + repo.Dir:        "git+file://" + repo.Dir + "?rev=" + rev,
		"github:owner/repo":             "github:owner/repo?rev=" + rev,
		"git+https://h.example/r?x=1":   "git+https://h.example/r?x=1&rev=" + rev,
		"git+ssh://git@h.example/a.git": "git+ssh://git@h.example/a.git?rev=" + rev,
	} {
		flake, err := nixcmd.OpenFlake(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got := flake.At(rev); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
		if local := strings.Contains(want, "git+file:"); local != (flake.Repo != nil) {
			t.Errorf("%s: repository %v", ref, flake.Repo)
		}
	}
	for _, ref := range []string{"", "path:/x", ".#modules", "github:o/r?rev=" + rev, "git+file:///x?ref=main", "git+file:///%zz"} {
		if _, err := nixcmd.OpenFlake(t.Context(), ref); !errors.Is(err, nixcmd.ErrFlake) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	if _, err := nixcmd.OpenFlake(t.Context(), t.TempDir()); !errors.Is(err, git.ErrNoRepository) {
		t.Errorf("%v", err)
	}
}

func TestRoot(t *testing.T) {
	for _, name := range []string{"NIX_REMOTE", "NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_DB_DIR"} {
		t.Setenv(name, "")
	}
	for spec, want := range map[string]string{
		"": "/", "auto": "/", "daemon": "/", "unix:///run/nix.sock": "/", "local": "/", "/a/b": "/a/b",
		"local?root=/a%20b": "/a b", "local?x=1&root=/r": "/r",
		"ssh://host": "", "https://h": "", "local?root=rel": "", "local?real=/x": "", "local?root=%zz": "",
	} {
		got, err := (&nixcmd.Client{Store: spec}).Root()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", spec, got, err, want)
		}
	}
	t.Setenv("NIX_REMOTE", "local?root=/env")
	if got, err := (&nixcmd.Client{}).Root(); got != "/env" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("NIX_STATE_DIR", "/elsewhere")
	if _, err := (&nixcmd.Client{}).Root(); err == nil {
		t.Error("a store that would not be read")
	}
}

// TestFailures has a Nix that fails in several ways.
func TestFailures(t *testing.T) {
	bin := t.TempDir()
	fake := func(script string) *nixcmd.Client {
		if err := os.WriteFile(filepath.Join(bin, "nix-store"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return &nixcmd.Client{Bin: bin}
	}
	paths := []store.Path{fakePath(1)}
	_, err := fake(`echo "error: the store is gone" >&2; exit 1`).Invalid(t.Context(), paths)
	if err == nil || !strings.HasSuffix(err.Error(), ": error: the store is gone") {
		t.Errorf("%v", err)
	}
	_, err = fake(`kill -9 $$`).Invalid(t.Context(), paths)
	if !nixcmd.Killed(err) || nixcmd.Crashed(err) || !strings.HasSuffix(err.Error(), "was killed by signal 9 (killed)") {
		t.Errorf("%v", err)
	}
	_, err = fake(`echo "error: oops" >&2; kill -ABRT $$`).Invalid(t.Context(), paths)
	if nixcmd.Killed(err) || !nixcmd.Crashed(err) || !strings.HasSuffix(err.Error(), "was killed by signal 6 (aborted): error: oops") {
		t.Errorf("%v", err)
	}
	_, err = fake(`echo nonsense`).Invalid(t.Context(), paths)
	if !errors.Is(err, store.ErrBadPath) {
		t.Errorf("%v", err)
	}
	err = fake(`echo '@nix {"action":"msg","level":0,"msg":"writing: No space left on device"}' >&2; exit 1`).Substitute(t.Context(), paths, nil)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err = fake(`exec sleep 1000`).Invalid(ctx, paths); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err = (&nixcmd.Client{Bin: "/nonexistent"}).Invalid(t.Context(), paths); err == nil {
		t.Error("no Nix, no error")
	}
}

func ExampleOpenFlake() {
	flake, err := nixcmd.OpenFlake(context.Background(), "github:example/modules")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(flake.At("c48c43c6c698223ed3ce2abc5a2d708735a77d5b"))
	// Output: github:example/modules?rev=c48c43c6c698223ed3ce2abc5a2d708735a77d5b
}
