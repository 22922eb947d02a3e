package realise_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bigdisk/bundle/nixcmd"
	"bigdisk/bundle/nixcmd/nixtest"
	"bigdisk/bundle/realise"
)

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
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var pids []int
	for _, file := range stats {
		text, _ := os.ReadFile(file)
		var pid, parent int
		var comm, state string
		n, _ := fmt.Sscan(string(text), &pid, &comm, &state, &parent)
		if n == 4 && comm == "("+name+")" && parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestDaemon leaves the work to a Nix daemon, as most machines do, and cancels
// some of it.
func TestDaemon(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	nixtest.Need(t, "nix-daemon")
	flake, all := twoCommits(t)
	slow, slowWants, started := sleeper(t)
	daemon := exec.Command("nix-daemon")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		daemon.Process.Kill()
		daemon.Wait()
	}()
	t.Setenv("NIX_REMOTE", "daemon")
	must(t, realiser(t, realise.Options{Flake: flake, RetryDelay: 100 * time.Millisecond}), all)
	nixtest.Run(t, "", "nix-store", "--gc")
	checkValid(t, all, true, true, true)

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		started()
		cancel()
	}()
	if _, err := realiser(t, realise.Options{Flake: slow}).Realise(ctx, slowWants); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	checkNothingRuns(t)
}
