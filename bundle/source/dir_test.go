package source_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
)

// A store that is not what its database says.
func TestBadDir(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, at, db string)
		is     error
		says   string
	}{
		{"byte changed", func(t *testing.T, at, _ string) { write(t, at+"/a/0", "12345679") }, source.ErrMismatch, "NAR hash"},
		{"file longer", func(t *testing.T, at, _ string) { write(t, at+"/a/0", "1234567890abcdef!") }, source.ErrMismatch, "NarSize"},
		{"file more", func(t *testing.T, at, _ string) { write(t, at+"/more", "") }, source.ErrMismatch, "NarSize"},
		{"file less", func(t *testing.T, at, _ string) { must(t, os.Remove(at+"/a/0")) }, source.ErrMismatch, "NarSize"},
		{"executable", func(t *testing.T, at, _ string) { must(t, os.Chmod(at+"/a/0", 0o755)) }, source.ErrMismatch, "NarSize"},
		{"pipe", func(t *testing.T, at, _ string) { must(t, syscall.Mkfifo(at+"/pipe", 0o644)) }, nil, "named pipe"},
		{"missing", func(t *testing.T, at, _ string) { must(t, os.RemoveAll(at)) }, source.ErrNotFound, "on disk it was not found"},
		{"bad hash", execute("UPDATE ValidPaths SET hash = 'md5:00'"), store.ErrBadHash, "db.sqlite"},
		{"no size", execute("UPDATE ValidPaths SET narSize = NULL"), nil, "NAR size 0"},
		{"bad deriver", execute("UPDATE ValidPaths SET deriver = 'x'"), store.ErrBadPath, "deriver"},
		{"bad reference", execute("UPDATE ValidPaths SET path = '/nix/store/x' WHERE path LIKE '%-exe'"), store.ErrBadPath, "db.sqlite"},
		{"dangling reference", execute("DELETE FROM ValidPaths WHERE path LIKE '%-file'"), nil, "a reference to path number"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, root := sourcetest.Sample(t), t.TempDir()
			m.WriteStore(t, root)
			p := find(t, m, "tree")
			test.change(t, root+string(p), root+"/nix/var/nix/db/db.sqlite")
			s := parse(t, root, source.Options{})
			defer s.Close()
			files, err := read(t, s, p)
			if err == nil {
				t.Fatalf("it gave %d files", len(files))
			}
			if n := strings.Count(err.Error(), string(p)); n > 1 {
				t.Errorf("%v names the path %d times", err, n)
			}
			if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), string(p)) {
				t.Errorf("got %v, want %v and %q", err, test.is, test.says)
			}
		})
	}
}

func find(t testing.TB, m *sourcetest.Memory, name string) store.Path {
	t.Helper()
	for _, p := range m.Paths() {
		if p.Name() == name {
			return p
		}
	}
	t.Fatalf("no %s", name)
	return ""
}

func write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(text), 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func execute(script string) func(t *testing.T, at, db string) {
	return func(t *testing.T, _, db string) {
		conn, err := sqlite.OpenConn(db, sqlite.OpenReadWrite)
		must(t, err)
		defer conn.Close()
		must(t, sqlitex.ExecuteTransient(conn, "PRAGMA foreign_keys = off", nil))
		for statement := range strings.SplitSeq(script, ";") {
			must(t, sqlitex.ExecuteTransient(conn, statement, nil))
		}
	}
}

// What a Nix that runs has written is seen, although it is only in the log.
func TestDirInUse(t *testing.T) {
	m, root := sourcetest.Sample(t), t.TempDir()
	m.WriteStore(t, root)
	db := root + "/nix/var/nix/db/db.sqlite"
	conn, err := sqlite.OpenConn(db, sqlite.OpenReadWrite, sqlite.OpenWAL)
	must(t, err)
	defer conn.Close()
	must(t, sqlitex.ExecuteTransient(conn, "PRAGMA wal_autocheckpoint = 0", nil))
	p := m.Paths()[0]
	must(t, sqlitex.Execute(conn, "UPDATE ValidPaths SET deriver = ?", &sqlitex.ExecOptions{Args: []any{string(p) + ".drv"}}))
	s := parse(t, root, source.Options{})
	defer s.Close()
	if info, err := s.Info(t.Context(), p); err != nil || info.Deriver != p+".drv" {
		t.Errorf("got %+v, %v", info, err)
	}
	// And so is what it writes later.
	must(t, sqlitex.Execute(conn, "UPDATE ValidPaths SET sigs = 'a b'", nil))
	if info, err := s.Info(t.Context(), p); err != nil || len(info.Sigs) != 2 {
		t.Errorf("got %+v, %v", info, err)
	}
}

// A log that cannot be read must not be passed over.
func TestDirLostLog(t *testing.T) {
	m, root := sourcetest.Sample(t), t.TempDir()
	m.WriteStore(t, root)
	db := root + "/nix/var/nix/db/db.sqlite"
	must(t, os.Mkdir(db+"-journal", 0o755))
	if s, err := source.Parse(root, source.Options{}); err == nil {
		s.Close()
		t.Error("opened, with a journal that cannot be read")
	} else if !strings.Contains(err.Error(), "db.sqlite-journal") {
		t.Errorf("got %v", err)
	}
	must(t, os.Remove(db+"-journal"))
	write(t, db, strings.Repeat("not a database ", 1000))
	if _, err := source.Parse(root, source.Options{}); err == nil || !strings.Contains(err.Error(), db) {
		t.Errorf("got %v", err)
	}
}

// Nothing is written beside the database, not even by who could.
func TestDirIsLeftAlone(t *testing.T) {
	m, root := sourcetest.Sample(t), t.TempDir()
	m.WriteStore(t, root)
	db := root + "/nix/var/nix/db"
	execute("PRAGMA journal_mode = wal")(t, "", db+"/db.sqlite")
	before := list(t, db)
	s := parse(t, root, source.Options{})
	if _, err := read(t, s, m.Paths()[0]); err != nil {
		t.Error(err)
	}
	if now := list(t, db); now != before {
		t.Errorf("there are now %s, before %s", now, before)
	}
	s.Close()
	if now := list(t, db); now != before {
		t.Errorf("there are now %s, before %s", now, before)
	}
}

func list(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	must(t, err)
	return fmt.Sprint(names)
}

// An unprivileged user may read a store that belongs to root.
func TestDirUnprivileged(t *testing.T) {
	if at := os.Getenv("TEST_STORE"); at != "" {
		s := parse(t, at, source.Options{})
		defer s.Close()
		if _, err := read(t, s, store.Path(os.Getenv("TEST_PATH"))); err != nil {
			t.Error(err)
		}
		return
	}
	needRoot(t, "become another user")
	m := sourcetest.Sample(t)
	root, err := os.MkdirTemp("", "store")
	must(t, err)
	defer os.RemoveAll(root)
	m.WriteStore(t, root)
	execute("PRAGMA journal_mode = wal")(t, "", root+"/nix/var/nix/db/db.sqlite")
	must(t, os.Chmod(root, 0o755))
	binary, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(root+"/test", binary, 0o755))
	cmd := exec.Command(root+"/test", "-test.run", "^TestDirUnprivileged$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TEST_STORE="+root, "TEST_PATH="+string(find(t, m, "tree")))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestDirUnprivileged") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// needRoot makes sure that the test may do what only root may.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("not root, which it takes to %s", why)
	}
	t.Skipf("not root, which it takes to %s", why)
}

// tmpfs mounts a small file system of its own.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	needRoot(t, "mount a tmpfs")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("something is left open on the scratch disk: %v", err)
		}
	})
	return dir
}

// A full scratch disk is nobody's fault but ours: it is said, and no other
// source is asked.
func TestFullScratch(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.NewMemory()
	p := m.Add(t, "large", []sourcetest.File{sourcetest.Reg("", strings.Repeat("large ", 1<<19))})
	opts := fast(t, key)
	opts.ScratchDir, opts.MaxInMemory = tmpfs(t, "1m"), -1
	first, second := newWeb(t), newWeb(t)
	n, packed := m.NarInfo(t, p, "zstd", key)
	first.put(n, packed)
	second.put(n, packed)
	s := source.Chain([]source.Source{parse(t, first.URL, opts), parse(t, second.URL, opts)}, nil)
	defer s.Close()
	_, err := read(t, s, p)
	if !errors.Is(err, spool.ErrScratch) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{string(p), opts.ScratchDir + " is full"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if second.count(n.URL) != 0 || first.count(n.URL) != 1 {
		t.Error("it was tried again, or elsewhere")
	}
	checkEmpty(t, opts.ScratchDir)
}

func TestReadOnlyMount(t *testing.T) {
	m, dir := sourcetest.Sample(t), tmpfs(t, "16m")
	m.WriteStore(t, dir)
	execute("PRAGMA journal_mode = wal")(t, "", filepath.Join(dir, "nix/var/nix/db/db.sqlite"))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s := parse(t, dir, source.Options{})
	for _, p := range m.Paths() {
		if _, err := read(t, s, p); err != nil {
			t.Error(err)
		}
	}
	must(t, s.Close())
}
