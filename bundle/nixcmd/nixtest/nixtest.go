// Package nixtest gives tests a Nix with an empty store at /nix and a flake in
// a Git repository, without network and without touching the machine's store:
// the test runs in a mount namespace of its own.
package nixtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside is the environment variable that a test finds set in its namespace.
const inside = "BIGDISK_NIXTEST"

// timeout ends a test in a namespace that never would.
const timeout = 10 * time.Minute

// Missing skips the test for want of something, or fails it in CI, where
// everything has to be there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Need makes sure that the tools are installed.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			Missing(t, "%s is not installed", tool)
		}
	}
}

// Enter runs the test that calls it, a top-level one, again in a mount
// namespace where /nix is empty and writable. It is to be the test's first
// line:
//
//	if !nixtest.Enter(t) {
//		return
//	}
//
// It reports false outside of the namespace, where the test has then passed,
// failed or been skipped with the one inside.
func Enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		mountNix(t)
		return true
	}
	Need(t, "nix", "nix-store", "git", "unshare", "mount")
	if os.Geteuid() != 0 {
		Missing(t, "not root, which it takes to mount an empty store at /nix")
	}
	if err := os.MkdirAll("/nix", 0o755); err != nil {
		Missing(t, "there is no /nix: %v", err)
	}
	again(t)
	return false
}

// again runs the test in a namespace.
func again(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", self,
		"-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", timeout.String())
	cmd.Env = append(os.Environ(), inside+"="+t.Name(), "TMPDIR="+t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	t.Logf("in a namespace:\n%s", &out)
	switch {
	case err != nil:
		t.Errorf("in a namespace: %v", err)
	case bytes.Contains(out.Bytes(), []byte("\n--- SKIP: "+t.Name()+" ")):
		t.Skip("skipped in its namespace")
	case !bytes.Contains(out.Bytes(), []byte("\n--- PASS: "+t.Name()+" ")):
		t.Error("it did not run in its namespace")
	}
}

// mountNix puts an empty directory at /nix, and a configuration of Nix for
// tests in place of the machine's.
func mountNix(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(dir, "/nix", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s at /nix: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/nix", unix.MNT_DETACH); err != nil {
			t.Errorf("unmount /nix: %v", err)
		}
		writable(dir)
	})
	Configure(t)
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "XDG_CACHE_HOME": filepath.Join(home, "cache"), "NIX_REMOTE": "",
		"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
		"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org",
	} {
		t.Setenv(name, value)
	}
}

// Configure gives Nix the settings of tests: builds as this user, without a
// sandbox and without substituters, and settings "NAME = VALUE" besides.
func Configure(t testing.TB, settings ...string) {
	t.Helper()
	dir := t.TempDir()
	settings = append([]string{"build-users-group =", "sandbox = false", "filter-syscalls = false", "substituters =", "max-jobs = 2"}, settings...)
	if err := os.WriteFile(filepath.Join(dir, "nix.conf"), []byte(strings.Join(settings, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NIX_CONF_DIR", dir)
}

// writable lets a store be removed, whose directories are read-only.
func writable(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

// Repo is a Git work tree of a test.
type Repo struct {
	t   testing.TB
	Dir string
	day int
}

// NewRepo makes an empty work tree on the branch main.
func NewRepo(t testing.TB) *Repo {
	t.Helper()
	return NewRepoIn(t, "repo")
}

// NewRepoIn is NewRepo in a directory of that name.
func NewRepoIn(t testing.TB, name string) *Repo {
	t.Helper()
	r := &Repo{t: t, Dir: filepath.Join(t.TempDir(), name)}
	if err := os.Mkdir(r.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.Git("init", "-q", "-b", "main")
	return r
}

// Git runs git in the work tree and returns its output without white space
// around it.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	return Run(r.t, r.Dir, "git", args...)
}

// Write writes a file.
func (r *Repo) Write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// Commit commits all files, a day after the commit before, and returns the
// commit. The first is of 2024-03-01.
func (r *Repo) Commit(message string) string {
	r.t.Helper()
	r.Git("add", "--all")
	r.day++
	date := fmt.Sprintf("2024-03-%02dT12:00:00Z", r.day)
	Run(r.t, r.Dir, "env", "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date, "git",
		"-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", message)
	return r.Git("rev-parse", "HEAD")
}

// Flake is a flake whose attribute modules has the attributes in modules, Nix
// expressions that may use shell NAME SCRIPT DEPS: a derivation of /bin/sh, whose
// script finds the derivations DEPS in $deps.
func Flake(modules string) string {
	return `{ outputs = { self }: let
  shell = name: script: deps: derivation { inherit name deps; system = "` + system() + `"; builder = "/bin/sh"; args = [ "-c" "PATH=/usr/bin:/bin; ${script}" ]; };
in { modules = {
` + modules + `
}; }; }
`
}

// system is what Nix calls this machine.
func system() string {
	var name unix.Utsname
	unix.Uname(&name)
	return unix.ByteSliceToString(name.Machine[:]) + "-linux"
}

// Run runs a command that has to succeed, and returns its standard output
// without white space around it.
func Run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}
