package realise_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	repo := nixtest.NewRepo(t)
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

// TestBuildFailures has modules that fail to build in several ways, alone and
// together.
func TestBuildFailures(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", nixtest.Flake(`good = shell "good" "echo good > $out" [ ];
		bad = shell "bad" "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; exit 3" [ ];
		needs = shell "needs" "echo > $out" [ (shell "dep" "echo in dep; exit 4" [ ]) ];
		nothing = shell "nothing" "true" [ ];`))
	commit := repo.Commit("one")
	flake := openFlake(t, repo)
	reasons := map[lock.ID][]string{
		"bad":     {"-bad.drv' failed with exit code 3; nix log /nix/store/", "ends:\n    line 3\n", "\n    line 12"},
		"needs":   {"-dep.drv' failed with exit code 4", "\n    in dep"},
		"nothing": {"failed to produce output path"},
	}
	for id, parts := range reasons {
		failures, err := realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), wants(t, flake, commit, id))
		message(t, failures, err, parts...)
	}

	all := wants(t, flake, commit, "bad", "good", "needs", "nothing")
	failures, err := realiser(t, realise.Options{Flake: flake, KeepGoing: true}).Realise(t.Context(), all)
	if err != nil || len(failures) != 3 {
		t.Fatalf("%d failures, %v", len(failures), err)
	}
	checkValid(t, all, false, true, false, false)
	if got := failures.Error(); !strings.HasPrefix(got, "3 modules or paths could not be had:\n  module bad:v1") {
		t.Errorf("%s", got)
	}
	for _, f := range failures {
		message(t, realise.Failures{f}, nil, reasons[f.Entry.ID]...)
	}
	failures, err = realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), all)
	if err != nil || len(failures) != 1 {
		t.Errorf("%d failures without keep-going, %v", len(failures), err)
	}
}

// TestEvaluationFailures has flakes and locks that do not go together.
func TestEvaluationFailures(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", nixtest.Flake(`good = shell "good" "echo good > $out" [ ]; bad = throw "this is the reason"; also = shell "also" "echo > $out" [ ];`))
	commit := repo.Commit("one")
	flake := openFlake(t, repo)
	good := wants(t, flake, commit, "good", "also")
	c := good[0].Entry.Commit
	path := func(name string) store.Path {
		return store.Path(store.Dir + "/" + strings.Repeat("0", 32) + "-" + name)
	}
	cases := map[string]struct {
		want  realise.Want
		parts []string
	}{
		"throw":    {want("bad", 1, c, path("bad")), []string{`evaluating git+file://` + repo.Dir + `?rev=` + commit + `#modules."bad" fails`, "this is the reason"}},
		"none":     {want("none", 1, c, path("none")), []string{`#modules."none" does not exist`}},
		"mismatch": {want("good", 2, c, path("good")), []string{"at that commit the flake makes it " + string(good[0].Path) + ", but the lock file says " + string(path("good"))}},
		"commit":   {want("good", 3, lock.Commit{1, 2, 3}, path("x")), []string{"the repository " + repo.Dir + " does not have its commit", "fetch"}},
	}
	all := good
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			failures, err := realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), []realise.Want{c.want})
			message(t, failures, err, c.parts...)
			if mismatch := (*realise.MismatchError)(nil); errors.As(failures, &mismatch) != (name == "mismatch") {
				t.Errorf("%T", failures[0].Err)
			}
		})
		all = append(all, c.want)
	}
	failures, err := realiser(t, realise.Options{Flake: flake, KeepGoing: true}).Realise(t.Context(), all)
	if err != nil || len(failures) != len(cases) {
		t.Errorf("%d failures, %v", len(failures), err)
	}
	checkValid(t, good, true, true)

	failures, err = realiser(t, realise.Options{Flake: flake, Attr: "deploymentModules"}).Realise(t.Context(), []realise.Want{cases["none"].want})
	message(t, failures, err, "deploymentModules", "fails")
	failures, err = realiser(t, realise.Options{}).Realise(t.Context(), []realise.Want{cases["none"].want})
	message(t, failures, err, "no substituter has it", "give --flake")
	if !errors.Is(failures, realise.ErrUnavailable) {
		t.Errorf("%v", failures)
	}
	failures, err = realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), []realise.Want{{Path: path("bare")}})
	if err != nil || len(failures) != 1 || !strings.Contains(failures.Error(), "path "+string(path("bare"))+": not in the Nix store") {
		t.Errorf("%v, %v", failures, err)
	}
}

// TestShallow builds in a clone without history, which lacks a commit.
func TestShallow(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, all := twoCommits(t)
	clone := filepath.Join(t.TempDir(), "clone")
	nixtest.Run(t, "", "git", "clone", "-q", "--depth", "1", "file://"+flake.Repo.Dir(), clone)
	shallow, err := nixcmd.OpenFlake(t.Context(), clone)
	if err != nil {
		t.Fatal(err)
	}
	failures, err := realiser(t, realise.Options{Flake: shallow}).Realise(t.Context(), all[:1])
	message(t, failures, err, "does not have its commit", "shallow clone: git fetch --unshallow")
	must(t, realiser(t, realise.Options{Flake: shallow}), all[2:])
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

// TestSubstituterFails builds what a substituter that cannot be reached, or
// that nobody trusts, does not give, and says so where that fails too.
func TestSubstituterFails(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, all := twoCommits(t)
	cache, _ := binaryCache(t, flake, all)
	for name, c := range map[string]struct{ url, says string }{
		"unreachable": {refused(t), "unable to download"},
		"unsigned":    {"file://" + cache, "is not signed by any of the keys in 'trusted-public-keys'"},
	} {
		t.Run(name, func(t *testing.T) {
			nixtest.Configure(t, "substituters = "+c.url, "download-attempts = 1")
			failures, err := realiser(t, realise.Options{}).Realise(t.Context(), all[:1])
			message(t, failures, err, "no substituter has it", "Nix warned", c.says)
			r := realiser(t, realise.Options{Flake: flake})
			must(t, r, all)
			r.Close()
			nixtest.Run(t, "", "nix-store", "--gc")
		})
	}
}

// TestFullDisk builds into a store whose disk is full.
func TestFullDisk(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", nixtest.Flake(`big = shell "big" "head -c 100000000 /dev/zero > $out" [ ];`))
	commit := repo.Commit("one")
	flake := openFlake(t, repo)
	w := wants(t, flake, commit, "big")
	if err := unix.Mount("tmpfs", "/nix", "tmpfs", 0, "size=20m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount("/nix", unix.MNT_DETACH)
	failures, err := realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), w)
	message(t, failures, err, "No space left on device")
	if !errors.Is(failures, syscall.ENOSPC) {
		t.Errorf("%#v is not ENOSPC", failures[0].Err)
	}
}

// sleeper is a module whose builder has a child, tells where it is and sleeps.
func sleeper(t *testing.T) (flake *nixcmd.Flake, w []realise.Want, started func()) {
	t.Helper()
	mark := filepath.Join(t.TempDir(), "started")
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", nixtest.Flake(`slow = shell "slow" "sleep 98765 & echo > `+mark+`; wait" [ ];`))
	commit := repo.Commit("one")
	flake = openFlake(t, repo)
	return flake, wants(t, flake, commit, "slow"), func() {
		for range 3000 {
			if _, err := os.Stat(mark); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("the build never started")
	}
}

// checkNothingRuns looks for processes of Nix and of builders.
func checkNothingRuns(t *testing.T) {
	t.Helper()
	var left []string
	for range 200 {
		if left = running(t); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("still running: %q", left)
}

func running(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		text, _ := os.ReadFile(file)
		space, _ := os.Readlink(filepath.Join(filepath.Dir(file), "ns/mnt"))
		args := strings.ReplaceAll(string(text), "\x00", " ")
		if space == here && (strings.Contains(args, "98765") || strings.Contains(args, "nix-store") || strings.HasPrefix(args, "nix ")) {
			found = append(found, args)
		}
	}
	return found
}

// TestCancel cancels while a build runs.
func TestCancel(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, w, started := sleeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		started()
		cancel()
	}()
	r := realiser(t, realise.Options{Flake: flake, KeepGoing: true})
	start := time.Now()
	failures, err := r.Realise(ctx, w)
	if !errors.Is(err, context.Canceled) || failures != nil {
		t.Errorf("%v, %v", failures, err)
	}
	checkNothingRuns(t)
	t.Logf("after %v", time.Since(start))
}

// TestKilled kills Nix, and nothing but Nix, while it builds.
func TestKilled(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	flake, w, started := sleeper(t)
	go func() {
		started()
		for _, pid := range pidsOf("nix-store") {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	failures, err := realiser(t, realise.Options{Flake: flake}).Realise(t.Context(), w)
	message(t, failures, err, "nix-store was killed by signal 9")
	if !nixcmd.Killed(failures) {
		t.Errorf("%#v", failures[0].Err)
	}
	checkNothingRuns(t)
}

// pidsOf are our children with that name.
func pidsOf(name string) []int {
	out, _ := exec.Command("ps", "-o", "pid=,comm=", "--ppid", fmt.Sprint(os.Getpid())).Output()
	var pids []int
	for _, line := range strings.Split(string(out), "\n") {
		var pid int
		var comm string
		if n, _ := fmt.Sscan(line, &pid, &comm); n == 2 && comm == name {
			pids = append(pids, pid)
		}
	}
	return pids
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
