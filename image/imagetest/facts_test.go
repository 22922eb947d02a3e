package imagetest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDiffTrees shows that a comparison that passes means something: each
// change to a tree, down to one byte, is seen.
func TestDiffTrees(t *testing.T) {
	changes := map[string]func(dir string) error{
		"byte":       func(d string) error { return rewrite(filepath.Join(d, "sub/file"), "contentz") },
		"length":     func(d string) error { return rewrite(filepath.Join(d, "sub/file"), "content") },
		"mode":       func(d string) error { return os.Chmod(filepath.Join(d, "sub/file"), 0o755) },
		"link":       func(d string) error { return relink(filepath.Join(d, "link"), "sub") },
		"link kind":  func(d string) error { return relink(filepath.Join(d, "sub/file"), "file") },
		"missing":    func(d string) error { return os.Remove(filepath.Join(d, "sub/file")) },
		"additional": func(d string) error { return rewrite(filepath.Join(d, "sub/more"), "") },
		"time": func(d string) error {
			return syscall.Utimes(filepath.Join(d, "sub"), []syscall.Timeval{{Sec: 2}, {Sec: 2}})
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			a, b := sampleTree(t), sampleTree(t)
			CheckSame(t, ReadTree(t, a), ReadTree(t, b))
			if err := change(b); err != nil {
				t.Fatal(err)
			}
			if len(DiffTrees(ReadTree(t, a), ReadTree(t, b))) == 0 {
				t.Error("the change was not seen")
			}
		})
	}
}

func sampleTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	steps := []error{
		os.Mkdir(filepath.Join(dir, "sub"), 0o755),
		rewrite(filepath.Join(dir, "sub/file"), "contents"),
		os.Symlink("sub/file", filepath.Join(dir, "link")),
		lutimes(filepath.Join(dir, "link")), lutimes(filepath.Join(dir, "sub")), lutimes(dir),
	}
	for _, err := range steps {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rewrite writes a file and sets its time to 1.
func rewrite(path, contents string) error {
	if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
		return err
	}
	return lutimes(path)
}

func relink(path, target string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// lutimes sets a file's times to 1, as Nix does, without following a link.
func lutimes(path string) error {
	one := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, one, unix.AT_SYMLINK_NOFOLLOW)
}
