package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bigdisk/bundle/nixcmd/nixtest"
)

// TestNixScripts runs the promises in testdata/nix, each with an empty store at
// /nix.
func TestNixScripts(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	params := testscript.Params{
		Dir:                 "testdata/nix",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, v := range os.Environ() {
				name, value, _ := strings.Cut(v, "=")
				if strings.HasPrefix(name, "NIX_") || strings.HasPrefix(name, "GIT_") {
					env.Setenv(name, value)
				}
			}
			home := env.Getenv("WORK") + "/.home"
			env.Setenv("HOME", home)
			env.Setenv("TMPDIR", env.Getenv("WORK")+"/.tmp")
			return os.Mkdir(home, 0o755)
		},
		Cmds: scriptCommands(),
	}
	// One after the other, for they share the store.
	files, err := filepath.Glob("testdata/nix/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		params.Dir, params.Files = "", []string{file}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { testscript.Run(t, params) })
	}
}

// TestInterruptedNix interrupts a build while Nix builds: nothing is left
// running, and nothing is written.
func TestInterruptedNix(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			mark := filepath.Join(t.TempDir(), "started")
			repo := nixtest.NewRepo(t)
			repo.Write("flake.nix", nixtest.Flake(`slow = shell "slow" "echo > `+mark+`; exec sleep 98765" [ ];`))
			repo.Commit("one")
			program := binary(t)
			nixtest.Run(t, repo.Dir, program, "lock", "update")

			cmd := exec.Command(program, "build", "--progress", "none", "-o", "x.sqsh")
			cmd.Dir = repo.Dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for range 3000 {
				if _, err := os.Stat(mark); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			checkEnds(t, cmd, 15*time.Second)
			checkNoneLike(t, "98765", "nix-store")
			if _, err := os.Stat(filepath.Join(repo.Dir, "x.sqsh")); err == nil {
				t.Error("it left an image")
			}
		})
	}
}

// checkNoneLike looks for processes in this mount namespace whose arguments
// have one of the texts in them.
func checkNoneLike(t *testing.T, texts ...string) {
	t.Helper()
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for range 300 {
		left = nil
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			args, _ := os.ReadFile(file)
			space, _ := os.Readlink(filepath.Join(filepath.Dir(file), "ns/mnt"))
			for _, text := range texts {
				if space == here && strings.Contains(string(args), text) {
					left = append(left, strings.ReplaceAll(string(args), "\x00", " "))
				}
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("still running: %q", left)
}
