package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func mustCreate(t *testing.T, name, content string) *File {
	t.Helper()
	f, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Discard)
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(b)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.sqsh")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustCreate(t, name, "new")
	wantFiles(t, dir, map[string]string{"disk.sqsh": "old", ".disk.sqsh.bigdisk-tmp": "new"})
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Discard()
	wantFiles(t, dir, map[string]string{"disk.sqsh": "new"})
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a second Commit: %v, want %v", err, fs.ErrClosed)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	f := mustCreate(t, filepath.Join(dir, "disk.sqsh"), "new")
	f.Discard()
	f.Discard()
	wantFiles(t, dir, map[string]string{})
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Discard: %v, want %v", err, fs.ErrClosed)
	}
}

// TestSyncFails wants the error of a file that cannot be synced to name it once.
func TestSyncFails(t *testing.T) {
	dir := t.TempDir()
	f := mustCreate(t, filepath.Join(dir, "disk.sqsh"), "new")
	f.File.Close()
	if err := f.Commit(); !errors.Is(err, fs.ErrClosed) || strings.Count(err.Error(), "disk.sqsh") != 1 {
		t.Errorf("got %v", err)
	}
	f.Discard()
	wantFiles(t, dir, map[string]string{})
}

// TestLeftBehind is a process that was killed: its file is there, its lock is not.
func TestLeftBehind(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.sqsh")
	if err := os.WriteFile(TempName(name), []byte("half of a much longer image"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mustCreate(t, name, "whole").Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{"disk.sqsh": "whole"})
}

func TestBusy(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.sqsh")
	mustCreate(t, name, "first")
	if _, err := Create(name); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), name) {
		t.Errorf("a second Create: %v, want one that names the file and is %v", err, ErrBusy)
	}
	wantFiles(t, dir, map[string]string{".disk.sqsh.bigdisk-tmp": "first"})
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(dir, "linked")
	if err := os.Symlink(elsewhere, TempName(linked)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, os.DevNull, linked, filepath.Join(dir, "no", "such", "folder")} {
		if f, err := Create(name); err == nil {
			f.Discard()
			t.Errorf("Create(%s) took it", name)
		}
	}
	if b, err := os.ReadFile(elsewhere); err != nil || string(b) != "mine" {
		t.Errorf("a link in the temporary file's place was followed: %q, %v", b, err)
	}
}

// TestManyWriters lets goroutines fight for one name: every committed content
// must be one writer's, whole.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "disk.sqsh")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			content := strings.Repeat(fmt.Sprint(i), 1000)
			for range 50 {
				f, err := Create(name)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				_, err = f.WriteString(content)
				if err = errors.Join(err, f.Commit()); err != nil {
					t.Error(err)
				}
				f.Discard()
				b, err := os.ReadFile(name)
				if err != nil || len(b) != 1000 || strings.Trim(string(b), string(b[:1])) != "" {
					t.Errorf("the file is torn: %d bytes, %v", len(b), err)
				}
			}
		})
	}
	wg.Wait()
}

func Example() {
	dir, err := os.MkdirTemp("", "atomicfile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	f, err := Create(filepath.Join(dir, "disk.sqsh"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Discard()
	fmt.Fprint(f, "an image")
	if err := f.Commit(); err != nil {
		fmt.Println(err)
		return
	}
	b, err := os.ReadFile(f.Name())
	fmt.Println(string(b), err)
	// Output: an image <nil>
}
