package realise_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/nixcmd/nixtest"
	"bigdisk/bundle/realise"
	"bigdisk/bundle/store"
)

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
	nixtest.Run(t, "", "nix-store", "--gc")
	must(t, realiser(t, realise.Options{Flake: shallow, Client: nixcmd.Client{Bin: nixtest.Newer(t)}}), all[2:])
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
