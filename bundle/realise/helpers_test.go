package realise_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/nixcmd/nixtest"
	"bigdisk/bundle/realise"
	"bigdisk/bundle/store"
)

// twoCommits is a repository whose modules refer to what they share, and its
// wants: a and b at the first commit, a again at the second.
func twoCommits(t *testing.T) (*nixcmd.Flake, []realise.Want) {
	t.Helper()
	repo := nixtest.NewRepoIn(t, "a,b+c=d")
	module := func(text string) string {
		return nixtest.Flake(`a = shell "replit-module-a" "echo ` + text + ` $deps > $out" [ lib ];
		b = shell "replit-module-b" "echo b $deps > $out" [ lib (shell "tool" "mkdir $out; echo $deps > $out/x" [ lib ]) ];`)
	}
	withLib := func(flake string) string {
		return strings.Replace(flake, "in { modules", `lib = shell "lib" "echo lib > $out" [ ]; in { modules`, 1)
	}
	repo.Write("flake.nix", withLib(module("one")))
	first := repo.Commit("one")
	repo.Write("flake.nix", withLib(module("two")))
	second := repo.Commit("two")
	flake := openFlake(t, repo)
	return flake, append(wants(t, flake, first, "a", "b"), wants(t, flake, second, "a")...)
}

func openFlake(t *testing.T, repo *nixtest.Repo) *nixcmd.Flake {
	t.Helper()
	flake, err := nixcmd.OpenFlake(t.Context(), repo.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return flake
}

// wants are modules as they are at a commit.
func wants(t *testing.T, flake *nixcmd.Flake, commit string, ids ...lock.ID) []realise.Want {
	t.Helper()
	c, err := lock.ParseCommit(commit)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := new(nixcmd.Client).Modules(t.Context(), flake, commit, "modules", ids, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []realise.Want
	for i, id := range ids {
		all = append(all, want(id, i+1, c, modules[id].Path))
	}
	return all
}

func want(id lock.ID, version int, commit lock.Commit, path store.Path) realise.Want {
	e := lock.Entry{ID: id, Tag: lock.Tag{Version: version, Date: 20240301, Short: commit.String()[:lock.ShortLen]}, Commit: commit, Path: path}
	return realise.Entries([]lock.Entry{e})[0]
}

// realiser realises with short waits.
func realiser(t *testing.T, opts realise.Options) *realise.Realiser {
	t.Helper()
	opts.RetryDelay = time.Millisecond
	opts.TempDir = t.TempDir()
	r, err := realise.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(opts.TempDir); err != nil || len(left) > 0 {
			t.Errorf("it leaves %v, %v", left, err)
		}
	})
	return r
}

func must(t *testing.T, r *realise.Realiser, wants []realise.Want) {
	t.Helper()
	failures, err := r.Realise(t.Context(), wants)
	if err != nil || len(failures) > 0 {
		t.Fatalf("%v, %v", failures, err)
	}
}

// checkValid checks which of the wanted paths are valid.
func checkValid(t *testing.T, wants []realise.Want, want ...bool) {
	t.Helper()
	for i, w := range wants {
		invalid, err := new(nixcmd.Client).Invalid(t.Context(), []store.Path{w.Path})
		if err != nil || (len(invalid) == 0) != want[i] {
			t.Errorf("%s: invalid: %q, %v", w, invalid, err)
		}
	}
}

// message checks what a single failure says.
func message(t *testing.T, failures realise.Failures, err error, want ...string) {
	t.Helper()
	if err != nil || len(failures) != 1 {
		t.Fatalf("%d failures, %v, want one: %v", len(failures), err, failures)
	}
	for _, s := range want {
		if !strings.Contains(failures.Error(), s) {
			t.Errorf("%q is not in %s", s, failures)
		}
	}
	if w := failures[0].Want; !strings.Contains(failures.Error(), w.Entry.Key()) || !strings.Contains(failures.Error(), string(w.Path)) || !strings.Contains(failures.Error(), w.Entry.Commit.String()) {
		t.Errorf("module, path or commit is not in %s", failures)
	}
}

// refused is the URL of a server that takes no connections.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// binaryCache builds wants, puts them into a binary cache and empties the
// store again. The cache is in a directory; its paths are signed by key.
func binaryCache(t *testing.T, flake *nixcmd.Flake, all []realise.Want) (dir, key string) {
	t.Helper()
	r, err := realise.New(realise.Options{Flake: flake, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	must(t, r, all)
	dir = t.TempDir()
	secret, public := filepath.Join(dir, "sec"), filepath.Join(dir, "pub")
	nixtest.Run(t, "", "nix-store", "--generate-binary-cache-key", "test-1", secret, public)
	args := []string{"--extra-experimental-features", "nix-command", "copy", "--to", "file://" + dir + "?secret-key=" + secret}
	for _, w := range all {
		args = append(args, string(w.Path))
	}
	nixtest.Run(t, "", "nix", args...)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	nixtest.Run(t, "", "nix-store", "--gc")
	checkValid(t, all, make([]bool, len(all))...)
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	return dir, strings.TrimSpace(string(text))
}
