package realise_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/nixcmd/nixtest"
	"bigdisk/bundle/realise"
	"bigdisk/bundle/store"
)

// TestBuild builds from an empty store at both commits, and protects what it
// has built.
func TestBuild(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, all := twoCommits(t)
	checkValid(t, all, false, false, false)
	var last atomic.Value
	r := realiser(t, realise.Options{Flake: flake, OnProgress: func(p realise.Progress) { last.Store(p) }})
	must(t, r, all)
	nixtest.Run(t, "", "nix-store", "--gc")
	checkValid(t, all, true, true, true)
	want := realise.Progress{Done: 3, Total: 3, Counts: nixcmd.Counts{Built: 5, ToBuild: 5}}
	if got := last.Load(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	// Nothing is left to do the second time, and no flake is needed.
	must(t, realiser(t, realise.Options{}), all)
}

// TestNewerNix lets the newer Nix do the same.
func TestNewerNix(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	bin := nixtest.Newer(t)
	flake, all := twoCommits(t)
	r := realiser(t, realise.Options{Flake: flake, Client: nixcmd.Client{Bin: bin}})
	must(t, r, all)
	checkValid(t, all, true, true, true)

	bad := nixtest.NewRepo(t)
	bad.Write("flake.nix", nixtest.Flake(`bad = shell "bad" "echo line 1; echo line 2; exit 3" [ ];
		needs = shell "needs" "echo > $out" [ (shell "dep" "echo in dep; exit 4" [ ]) ];`))
	commit := bad.Commit("bad")
	flake = openFlake(t, bad)
	for id, parts := range map[lock.ID][]string{
		"bad":   {"-bad.drv' failed with exit code 3", "    line 1\n    line 2"},
		"needs": {"-dep.drv' failed with exit code 4", "    in dep"},
	} {
		r := realiser(t, realise.Options{Flake: flake, Client: nixcmd.Client{Bin: bin}})
		failures, err := r.Realise(t.Context(), wants(t, flake, commit, id))
		message(t, failures, err, parts...)
	}
	r = realiser(t, realise.Options{Client: nixcmd.Client{Bin: bin, Settings: []string{"substituters=" + refused(t), "download-attempts=1"}}})
	failures, err := r.Realise(t.Context(), wants(t, flake, commit, "bad"))
	message(t, failures, err, "no substituter has it", "unable to download", "give --flake")
}

// TestSubstitute gets paths from a binary cache: all of them, some of them, and
// from one that fails first.
func TestSubstitute(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, all := twoCommits(t)
	cache, key := binaryCache(t, flake, all)

	nixtest.Configure(t, "substituters = file://"+cache, "trusted-public-keys = "+key)
	var last atomic.Value
	r := realiser(t, realise.Options{OnProgress: func(p realise.Progress) { last.Store(p) }})
	must(t, r, all)
	if got := last.Load().(realise.Progress); got.Done != 3 || got.Copied < 4 || got.BytesToCopy == 0 || got.Built != 0 {
		t.Errorf("%+v: want copies alone", got)
	}
	r.Close()
	nixtest.Run(t, "", "nix-store", "--gc")

	// A server that fails for a while: Nix gives up, and is asked again.
	var asked atomic.Int64
	files := http.FileServer(http.Dir(cache))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, ".narinfo") && asked.Add(1) <= 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		files.ServeHTTP(w, req)
	}))
	defer server.Close()
	nixtest.Configure(t, "substituters = "+server.URL, "trusted-public-keys = "+key, "download-attempts = 1", "narinfo-cache-negative-ttl = 0")
	must(t, realiser(t, realise.Options{}), all)
	if asked.Load() <= 3 {
		t.Errorf("the server was asked %d times: the test shows nothing", asked.Load())
	}
}

// TestManyValid checks 1,000 paths that are valid, within the time that is
// allowed for it.
func TestManyValid(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	dir := t.TempDir()
	args := []string{"--add"}
	for i := range 1000 {
		name := filepath.Join(dir, fmt.Sprintf("replit-module-%d", i))
		if err := os.WriteFile(name, fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	var all []realise.Want
	for i, p := range strings.Fields(nixtest.Run(t, "", "nix-store", args...)) {
		all = append(all, want("m", i+1, lock.Commit{}, store.Path(p)))
	}
	took := time.Hour // the best of some, for the machine may be busy with other things
	for range 5 {
		start := time.Now()
		must(t, realiser(t, realise.Options{}), all)
		took = min(took, time.Since(start))
	}
	t.Logf("1,000 valid paths are checked and protected in %v", took)
	if took > 2*time.Second {
		t.Errorf("1,000 valid paths take %v, over 2 s", took)
	}
}

// TestLinks leaves what a killed process would leave, and what one that runs
// would.
func TestLinks(t *testing.T) {
	temp := t.TempDir()
	stale := filepath.Join(temp, "bigdisk-gcroots-stale")
	fresh := filepath.Join(temp, "bigdisk-gcroots-fresh")
	for _, dir := range []string{stale, fresh} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(stale, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_REMOTE", "")
	first, err := realise.New(realise.Options{TempDir: temp})
	if err != nil {
		t.Fatal(err)
	}
	second, err := realise.New(realise.Options{TempDir: temp})
	if err != nil {
		t.Fatal(err)
	}
	names := func() []string {
		entries, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if got := names(); len(got) != 3 || slices.Contains(got, filepath.Base(stale)) {
		t.Errorf("%q", got)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if got := names(); !slices.Equal(got, []string{filepath.Base(fresh)}) {
		t.Errorf("%q", got)
	}
}

func ExampleMismatchError() {
	fmt.Println(&realise.MismatchError{
		Locked:    "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19",
		Evaluated: "/nix/store/7icmam9gmbfas0zbpm53f3ilw79kx0rj-replit-module-go-1.19",
	})
	// Output: at that commit the flake makes it /nix/store/7icmam9gmbfas0zbpm53f3ilw79kx0rj-replit-module-go-1.19, but the lock file says /nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19
}
