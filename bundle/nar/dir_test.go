package nar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/nar"
)

// onDisk makes a tree of files below a new directory, and returns its root.
func onDisk(t testing.TB, files []file) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, f := range files {
		path := filepath.Join(root, f.Path)
		var err error
		switch f.Kind.String() {
		case "directory":
			err = os.Mkdir(path, 0o755)
		case "symlink":
			err = os.Symlink(f.Target, path)
		default:
			mode := fs.FileMode(0o644)
			if f.Executable {
				mode = 0o755
			}
			err = os.WriteFile(path, []byte(f.data), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A tree on disk gives what the Reader gives of its archive, and Dump gives
// that archive.
func TestDirReader(t *testing.T) {
	for name, files := range trees() {
		t.Run(name, func(t *testing.T) {
			root := onDisk(t, files)
			d := nar.OpenDir(root)
			got, err := readAll(d)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, files) {
				t.Errorf("read %v, made %v", got, files)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			var dump bytes.Buffer
			if err := nar.Dump(t.Context(), &dump, root); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(dump.Bytes(), archive(t, files)) {
				t.Error("Dump differs from the Writer's archive")
			}
		})
	}
}

// Nix and Dump agree to the byte, and each reads what the other writes.
func TestNixStoreDump(t *testing.T) {
	for name, files := range trees() {
		t.Run(name, func(t *testing.T) {
			root := onDisk(t, files)
			theirs := nixStore(t, nil, "--dump", root)
			var ours bytes.Buffer
			if err := nar.Dump(t.Context(), &ours, root); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(ours.Bytes(), theirs) {
				t.Error("nix-store --dump gives another archive")
			}
			got, err := readAll(nar.NewReader(bytes.NewReader(theirs)))
			if err != nil || !slices.Equal(got, files) {
				t.Errorf("read %v of Nix's archive of %v: %v", got, files, err)
			}
			restored := filepath.Join(t.TempDir(), "restored")
			nixStore(t, archive(t, files), "--restore", restored)
			if got, err := readAll(nar.OpenDir(restored)); err != nil || !slices.Equal(got, files) {
				t.Errorf("Nix restored %v of %v: %v", got, files, err)
			}
		})
	}
}

// Only the owner's bit makes a file executable, as Nix has it.
func TestExecutable(t *testing.T) {
	for mode, want := range map[fs.FileMode]bool{0o644: false, 0o744: true, 0o654: false, 0o645: false, 0o500: true, 0o4711: true} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(nar.OpenDir(path))
		if err != nil || got[0].Executable != want {
			t.Errorf("mode %o: %v, %v", mode, got, err)
		}
		theirs, err := readAll(nar.NewReader(bytes.NewReader(nixStore(t, nil, "--dump", path))))
		if err != nil || theirs[0].Executable != want {
			t.Errorf("mode %o: Nix says %v, %v", mode, theirs, err)
		}
	}
}

// nixStore runs nix-store.
func nixStore(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("nix-store"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nix-store is missing")
		}
		t.Skip("needs nix-store")
	}
	cmd := exec.Command("nix-store", args...)
	cmd.Env = append(os.Environ(), "NIX_REMOTE=local?root="+t.TempDir(), "NIX_CONFIG=build-users-group =")
	cmd.Stdin = bytes.NewReader(in)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errOut.String())
	}
	return out.Bytes()
}

func TestDirReaderRefuses(t *testing.T) {
	tests := []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"missing", func(string) error { return nil }, "no such file"},
		{"named pipe", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), unix.Mkfifo(filepath.Join(dir, "x"), 0o644))
		}, "root/x: a named pipe"},
		{"socket", func(dir string) error {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return unix.Mknod(filepath.Join(dir, "x"), unix.S_IFSOCK|0o644, 0)
		}, "root/x: a socket"},
		{"too deep", func(dir string) error {
			return os.MkdirAll(dir+strings.Repeat("/d", nar.MaxDepth), 0o755)
		}, "more than 64 levels"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			if err := test.make(root); err != nil {
				t.Fatal(err)
			}
			d := nar.OpenDir(root)
			_, err := readAll(d)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), root) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if _, again := d.Next(); again != err {
				t.Errorf("then %v", again)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A file that grows or shrinks while it is read is never taken for whole.
func TestFileChanges(t *testing.T) {
	const size = 100_000
	for _, now := range []int64{0, 10, size - 1, size + 1, 2 * size} {
		for _, buf := range []int{1000, size, 10 * size} {
			root := onDisk(t, []file{directory(""), regular("f", strings.Repeat("x", size)), regular("g", "")})
			d := nar.OpenDir(root)
			for range 2 {
				if _, err := d.Next(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Truncate(filepath.Join(root, "f"), now); err != nil {
				t.Fatal(err)
			}
			var err error
			for b := make([]byte, buf); err == nil; {
				_, err = d.Read(b)
			}
			if !errors.Is(err, nar.ErrChanged) {
				t.Errorf("from %d to %d bytes, %d at once: %v", size, now, buf, err)
			}
			if _, next := d.Next(); next != err {
				t.Errorf("then Next says %v", next)
			}
			d.Close()
		}
	}
}

// The end is checked even when the caller takes exactly the file's size.
func TestFileGrowsUnseen(t *testing.T) {
	root := onDisk(t, []file{directory(""), regular("f", "1234")})
	d := nar.OpenDir(root)
	defer d.Close()
	for range 2 {
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(d, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "f"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(); !errors.Is(err, nar.ErrChanged) {
		t.Error(err)
	}
}

// Symlinks are read, not followed, even at the root.
func TestSymlinkNotFollowed(t *testing.T) {
	root := onDisk(t, []file{directory(""), symlink("loop", "."), symlink("out", "/etc")})
	got, err := readAll(nar.OpenDir(filepath.Join(root, "out")))
	if err != nil || len(got) != 1 || got[0].Target != "/etc" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := readAll(nar.OpenDir(root)); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDirReaderClose(t *testing.T) {
	before := openFiles(t)
	d := nar.OpenDir(onDisk(t, trees()["deep"]))
	for range 20 {
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	if _, err := d.Next(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestDumpCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := onDisk(t, trees()["large file"])
	if err := nar.Dump(ctx, io.Discard, root); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Nix and the Reader agree on which names may stand in an archive. Unsorted
// ones are left out: Nix 2.8 means to refuse them but does not.
func TestNixAcceptsTheSame(t *testing.T) {
	for _, names := range [][]string{{"a"}, {"a", "b"}, {"a", "a"}, {""}, {"."}, {".."}, {"a/b"}, {"a\x00"}} {
		data := []byte(entries(names...))
		_, ours := readAll(nar.NewReader(bytes.NewReader(data)))
		cmd := exec.Command("nix-store", "--restore", filepath.Join(t.TempDir(), "out"))
		cmd.Stdin = bytes.NewReader(data)
		nixStore(t, nil, "--version")
		if theirs := cmd.Run(); (theirs == nil) != (ours == nil) {
			t.Errorf("names %q: we say %v, Nix %v", names, ours, theirs)
		}
	}
}

func BenchmarkDirReader(b *testing.B) {
	files := []file{directory("")}
	for i := range 1000 {
		files = append(files, regular(string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}), strings.Repeat("line\n", i%200)))
	}
	root := onDisk(b, files)
	b.SetBytes(int64(len(archive(b, files))))
	b.ReportAllocs()
	for b.Loop() {
		if err := nar.Dump(b.Context(), io.Discard, root); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(files))*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
