package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// testRepo is a work tree with the files of each commit.
func testRepo(t *testing.T, commits ...map[string]string) (dir string, ids []string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("git is not installed")
	}
	dir = t.TempDir()
	run(t, dir, "init", "-q", "-b", "main")
	for i, files := range commits {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run(t, dir, "add", ".")
		t.Setenv("GIT_AUTHOR_DATE", fmt.Sprintf("2024-01-%02dT23:30:00-05:00", i+1))
		t.Setenv("GIT_COMMITTER_DATE", fmt.Sprintf("2024-02-%02dT12:00:00Z", i+1))
		run(t, dir, "commit", "-q", "--allow-empty", "-m", fmt.Sprint(i))
		ids = append(ids, strings.TrimSpace(run(t, dir, "rev-parse", "HEAD")))
	}
	return dir, ids
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=T", "-c", "user.email=t@example.org"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func open(t *testing.T, dir string) *Repo {
	t.Helper()
	r, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOpen(t *testing.T) {
	dir, _ := testRepo(t, map[string]string{"a": "1"})
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_DIR", "/nowhere") // as in a hook
	if r := open(t, sub); r.Dir() != dir {
		t.Errorf("%s, want %s", r.Dir(), dir)
	}
	if _, err := Open(t.Context(), t.TempDir()); !errors.Is(err, ErrNoRepository) {
		t.Errorf("%v", err)
	}
	t.Setenv("PATH", "")
	if _, err := Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "git is not installed") {
		t.Errorf("%v", err)
	}
}

func TestResolve(t *testing.T) {
	dir, ids := testRepo(t, map[string]string{"a": "1"}, map[string]string{"a": "2"})
	r := open(t, dir)
	for revision, want := range map[string]string{"HEAD": ids[1], "main~1": ids[0], ids[0][:9]: ids[0]} {
		if got, err := r.Resolve(t.Context(), revision); got != want || err != nil {
			t.Errorf("%s: %s, %v", revision, got, err)
		}
	}
	for _, revision := range []string{"nope", "--all", "HEAD:a", ""} {
		if _, err := r.Resolve(t.Context(), revision); !errors.Is(err, ErrNoRevision) {
			t.Errorf("%q: %v", revision, err)
		}
	}
}

func TestChanged(t *testing.T) {
	dir, _ := testRepo(t, map[string]string{"a": "1", "b c": "1", "d": "1"})
	r := open(t, dir)
	check := func(want ...string) {
		t.Helper()
		got, err := r.Changed(t.Context())
		slices.Sort(got)
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	check()
	for _, name := range []string{"b c", "untracked"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("2"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "rm", "-q", "d")
	check("b c", "d")
}

func TestReadFile(t *testing.T) {
	dir, ids := testRepo(t, map[string]string{"a": "one"}, map[string]string{"a": "two"})
	r := open(t, dir)
	for i, want := range []string{"one", "two"} {
		var got []byte
		err := r.ReadFile(t.Context(), ids[i], "a", func(f io.Reader) (err error) {
			got, err = io.ReadAll(f)
			return err
		})
		if string(got) != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if err := r.ReadFile(t.Context(), ids[0], "b", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	stop := errors.New("stop")
	if err := r.ReadFile(t.Context(), ids[0], "a", func(io.Reader) error { return stop }); err != stop {
		t.Errorf("%v, want what read says", err)
	}
}

func TestHistory(t *testing.T) {
	dir, ids := testRepo(t, nil, nil, nil)
	r := open(t, dir)
	none := strings.Repeat("0", 40)
	got, err := r.NotInHistory(t.Context(), ids[1], []string{ids[0], ids[2], ids[1], none, none})
	if !slices.Equal(got, []string{ids[2], none}) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	got, err = r.Missing(t.Context(), []string{ids[0], none, ids[2]})
	if !slices.Equal(got, []string{none}) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	dates, err := r.Dates(t.Context(), []string{ids[0], ids[2]})
	want := map[string]Dates{ids[0]: {"2024-01-01", "2024-02-01"}, ids[2]: {"2024-01-03", "2024-02-03"}}
	if !reflect.DeepEqual(dates, want) || err != nil {
		t.Errorf("%v, %v", dates, err)
	}
	if _, err := r.NotInHistory(t.Context(), none, ids); err == nil {
		t.Error("the history of nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.NotInHistory(ctx, ids[1], ids); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestShallow(t *testing.T) {
	dir, _ := testRepo(t, nil, nil)
	clone := filepath.Join(t.TempDir(), "clone")
	run(t, dir, "clone", "-q", "--depth", "1", "file://"+dir, clone)
	for dir, want := range map[string]bool{dir: false, clone: true} {
		if got, err := open(t, dir).Shallow(t.Context()); got != want || err != nil {
			t.Errorf("%s: %t, %v", dir, got, err)
		}
	}
}

func Example() {
	ctx := context.Background()
	repo, err := Open(ctx, "/no/such/directory")
	fmt.Println(repo == nil, err != nil)
	// Output: true true
}
