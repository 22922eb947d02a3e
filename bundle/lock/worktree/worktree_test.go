package worktree_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/lock/worktree"
	"bigdisk/bundle/nixcmd/nixtest"
)

// module is a flake with modules a and b that share a library.
func module(a string) string {
	return strings.Replace(nixtest.Flake(`a = shell "replit-module-a" "echo `+a+` $deps > $out" [ lib ]; b = shell "replit-module-b" "echo b $deps > $out" [ lib ];`),
		"in { modules", `lib = shell "lib" "echo lib > $out" [ ]; in { modules`, 1)
}

// TestUpdate locks, changes, locks again and verifies with a real Nix.
func TestUpdate(t *testing.T) {
	if !nixtest.Enter(t) {
		return
	}
	repo := nixtest.NewRepo(t)
	repo.Write("flake.nix", module("one"))
	first := repo.Commit("one")
	opts := worktree.UpdateOptions{Lock: filepath.Join(repo.Dir, "modules.json")}
	one := update(t, opts, "a:v1-20240301-"+first[:7], "b:v1-20240301-"+first[:7])
	if got := one.Entries[0].Commit.String(); got != first || one.Commit.String() != first {
		t.Errorf("locked at %s, %s, want %s", got, one.Commit, first)
	}
	// The lock file that it wrote is no reason to refuse, committed or not.
	repo.Write("modules.json", string(one.Text))
	repo.Git("add", "modules.json")
	update(t, opts)
	repo.Commit("lock")
	update(t, opts)

	repo.Write("flake.nix", module("two"))
	if _, err := worktree.NewUpdate(t.Context(), opts); !errors.Is(err, worktree.ErrDirty) || !strings.Contains(err.Error(), "flake.nix") {
		t.Errorf("%v", err)
	}
	dirty := opts
	dirty.Dirty = true
	head := repo.Git("rev-parse", "HEAD")
	update(t, dirty, "a:v2-20240302-"+head[:7])
	second := repo.Commit("two")
	two := update(t, opts, "a:v2-20240303-"+second[:7])
	if !strings.HasPrefix(string(two.Text), strings.TrimSuffix(string(one.Text), "\n}")) {
		t.Errorf("the file is not the old one with more at its end:\n%s\n%s", one.Text, two.Text)
	}

	broken := module("three") + " }"
	repo.Write("flake.nix", broken)
	repo.Commit("broken")
	if _, err := worktree.NewUpdate(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "evaluate git+file://"+repo.Dir) || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("%v", err)
	}
}

// update checks which entries are added.
func update(t *testing.T, opts worktree.UpdateOptions, want ...string) *worktree.Update {
	t.Helper()
	u, err := worktree.NewUpdate(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, e := range u.Entries {
		keys = append(keys, e.Key())
	}
	if fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Errorf("added %q, want %q", keys, want)
	}
	if f, err := lock.Parse(strings.NewReader(string(u.Text))); err != nil || len(f.CheckVersions()) > 0 {
		t.Errorf("%v\n%s", err, u.Text)
	}
	return u
}

// history is a repository with a lock file of two entries, at the commits that
// they are locked at.
type history struct {
	*nixtest.Repo
	commits []string
	lock    string
}

func newHistory(t *testing.T) *history {
	t.Helper()
	nixtest.Need(t, "git")
	h := &history{Repo: nixtest.NewRepo(t)}
	h.lock = filepath.Join(h.Dir, "modules.json")
	h.commits = []string{h.Commit("one"), h.Commit("two")}
	h.Write("modules.json", lockText(h.entry("a", 1, 1, h.commits[0]), h.entry("a", 2, 2, h.commits[1])))
	h.Commit("lock")
	return h
}

// entry is an entry in JSON, of the day of March 2024.
func (h *history) entry(id string, version, day int, commit string) string {
	return fmt.Sprintf(`  "%s:v%d-202403%02d-%s": {
    "commit": "%s",
    "path": "/nix/store/%032d-%s"
  }`, id, version, day, commit[:7], commit, version, id)
}

func lockText(entries ...string) string { return "{\n" + strings.Join(entries, ",\n") + "\n}" }

// check checks what is found.
func (h *history) check(t *testing.T, upstream string, want ...string) *worktree.Report {
	t.Helper()
	report, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: h.lock, Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != len(want) {
		t.Fatalf("%q, want %q", report.Problems, want)
	}
	for i, p := range report.Problems {
		if !strings.Contains(p.String(), want[i]) {
			t.Errorf("%q is not in %q", want[i], p)
		}
	}
	return report
}

func TestCheck(t *testing.T) {
	h := newHistory(t)
	report := h.check(t, "HEAD")
	if report.Entries != 2 || report.Commits != 2 || report.Upstream != h.Git("rev-parse", "HEAD") {
		t.Errorf("%+v", report)
	}
	h.check(t, "")
	h.check(t, h.commits[0]) // before there was a lock file
}

// TestCheckUpstream breaks what upstream has, in each way.
func TestCheckUpstream(t *testing.T) {
	h := newHistory(t)
	one, two := h.entry("a", 1, 1, h.commits[0]), h.entry("a", 2, 2, h.commits[1])
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"gone":     {lockText(two), []string{`"a:v1-20240301-` + h.commits[0][:7] + `": it was in the earlier file and is gone`}},
		"changed":  {lockText(strings.Replace(one, "01-a", "02-a", 1), two), []string{"its path was /nix/store/"}},
		"moved":    {lockText(two, one), []string{"it was entry 1 and is entry 2"}},
		"appended": {lockText(one, two, h.entry("b", 1, 2, h.commits[1])), nil},
	} {
		t.Run(name, func(t *testing.T) {
			h.Write("modules.json", c.text)
			h.check(t, "main", c.want...)
		})
	}
	_, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: h.lock, Upstream: "origin/main"})
	if !errors.Is(err, git.ErrNoRevision) || !strings.Contains(err.Error(), "fetch it first") {
		t.Errorf("%v", err)
	}
}

// TestCheckMerge lets two branches add version 3, and merges them both ways in
// which that can go wrong; then does what the message says.
func TestCheckMerge(t *testing.T) {
	h := newHistory(t)
	text := h.read(t)
	branch := func(name string) (commit, added string) {
		h.Git("checkout", "-q", "-b", name, "main")
		commit = h.Commit(name)
		day := h.Git("show", "-s", "--format=%ad", "--date=format:%d", commit)
		added = strings.TrimSuffix(text, "\n}") + ",\n" + h.entry("a", 3, atoi(t, day), commit) + "\n}"
		h.Write("modules.json", added)
		h.Commit("lock " + name)
		return commit, added
	}
	_, theirs := branch("theirs")
	_, ours := branch("ours")
	cmd := "merge -q theirs || true"
	nixtest.Run(t, h.Dir, "sh", "-c", "git -c user.name=T -c user.email=t@example.org "+cmd)
	_, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: h.lock, Upstream: "theirs"})
	if err == nil || !strings.Contains(err.Error(), "conflict markers: take upstream's file as it is, then run bigdisk lock update") {
		t.Errorf("%v", err)
	}
	// Both sides kept: the number is there twice.
	both := strings.TrimSuffix(theirs, "\n}") + "," + strings.TrimPrefix(ours, strings.TrimSuffix(text, "\n}")+",")
	h.Write("modules.json", both)
	h.Commit("merged badly")
	h.check(t, "theirs", "version 3 of a is a:v3-")
	// Only ours: theirs is gone.
	h.Write("modules.json", ours)
	h.check(t, "theirs", "it was in the earlier file and is gone")
	h.Write("modules.json", theirs)
	h.check(t, "theirs")
}

func (h *history) read(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.lock)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCheckHistory has commits that are not in the branch: of another branch,
// rebased, and none at all.
func TestCheckHistory(t *testing.T) {
	h := newHistory(t)
	h.Git("checkout", "-q", "-b", "other")
	other := h.Commit("other")
	h.Git("checkout", "-q", "main")
	text := h.read(t)
	with := func(commit string, day int) {
		h.Write("modules.json", strings.TrimSuffix(text, "\n}")+",\n"+h.entry("b", 1, day, commit)+"\n}")
	}
	with(other, 4)
	h.check(t, "", "its commit "+other+" is not in the history of this branch")
	with(strings.Repeat("ab", 20), 4)
	h.check(t, "", "does not exist in this repository")

	// A squashed or rebased branch has the same change under another name.
	h.Git("checkout", "-q", "-b", "rebased", "main")
	with(other, 4)
	h.Git("-c", "user.name=T", "-c", "user.email=t@example.org", "cherry-pick", "--allow-empty", other)
	h.check(t, "main", "is not in the history of this branch: it was rebased, or is of another branch")
}

func TestCheckDates(t *testing.T) {
	h := newHistory(t)
	h.Write("modules.json", lockText(h.entry("a", 1, 9, h.commits[0])))
	h.check(t, "", "its tag has the date 20240309, but its commit is of 20240301")
}

// TestCheckForm leaves form to the parser, which says where: a rule that is
// broken like any other, but nothing after it can be checked.
func TestCheckForm(t *testing.T) {
	h := newHistory(t)
	good := h.entry("a", 1, 1, h.commits[0])
	for name, c := range map[string]struct{ text, want string }{
		"short commit": {strings.Replace(good, h.commits[0][:7]+`":`, `0000000":`, 1), "the tag ends in 0000000, but the commit starts with"},
		"date":         {strings.Replace(good, "20240301", "20240231", 1), "not a date"},
		"tag":          {strings.Replace(good, ":v1-", ":1-", 1), "tag"},
		"id":           {strings.Replace(good, `"a:`, `"a b:`, 1), "module ID"},
		"path":         {strings.Replace(good, "/nix/store/", "/nix/", 1), "not a store path"},
		"twice":        {good + ",\n" + good, "already"},
	} {
		t.Run(name, func(t *testing.T) {
			h.Write("modules.json", lockText(c.text))
			r, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: h.lock})
			if err != nil || len(r.Problems) != 1 || r.Problems[0].Line == 0 || !strings.Contains(r.Problems[0].Text, c.want) {
				t.Errorf("%+v (%v), want a problem with %q", r, err, c.want)
			}
		})
	}
	_, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: h.lock + "x"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestCheckShallow clones without history.
func TestCheckShallow(t *testing.T) {
	h := newHistory(t)
	clone := filepath.Join(t.TempDir(), "clone")
	nixtest.Run(t, "", "git", "clone", "-q", "--depth", "1", "file://"+h.Dir, clone)
	_, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: filepath.Join(clone, "modules.json")})
	if err == nil || !strings.Contains(err.Error(), "is a shallow clone") || !strings.Contains(err.Error(), "git fetch --unshallow") {
		t.Errorf("%v", err)
	}
	// What it needs to know may be there nevertheless.
	nixtest.Run(t, clone, "git", "fetch", "-q", "--depth", "3")
	if _, err := worktree.Check(t.Context(), worktree.CheckOptions{Lock: filepath.Join(clone, "modules.json")}); err != nil {
		t.Error(err)
	}
}

func TestUpdateOutside(t *testing.T) {
	nixtest.Need(t, "git")
	_, err := worktree.NewUpdate(t.Context(), worktree.UpdateOptions{Lock: filepath.Join(t.TempDir(), "modules.json")})
	if !errors.Is(err, git.ErrNoRepository) {
		t.Errorf("%v", err)
	}
	_, err = worktree.NewUpdate(t.Context(), worktree.UpdateOptions{Lock: "modules.json", Flake: "github:o/r"})
	if err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("%v", err)
	}
}

func ExampleCheck() {
	fmt.Println(worktree.Fix)
	// Output: take upstream's lock file as it is (git checkout UPSTREAM -- FILE), then run bigdisk lock update, which adds what is missing
}
