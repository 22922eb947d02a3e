package ext4

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/internal/treegen"
)

// needTool returns where a program is, and skips the test if it is nowhere; a
// CI run must have it.
func needTool(t testing.TB, name string) string {
	t.Helper()
	for _, at := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// tool runs a program and returns what it printed.
func tool(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(needTool(t, name), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustTool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// smallImage keeps test images small.
var smallImage = Options{RoundTo: 1 << 20}

// build writes a tree to a new file.
func build(t testing.TB, tree treegen.Tree, opts Options) (string, *image.Layout) {
	t.Helper()
	return buildIn(t, t.TempDir(), tree, opts)
}

func buildIn(t testing.TB, dir string, tree treegen.Tree, opts Options) (string, *image.Layout) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	layout, err := write(f, tree, opts)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != layout.Size {
		t.Fatalf("the file has %d bytes, the layout says %d (%v)", st.Size(), layout.Size, err)
	}
	return f.Name(), layout
}

// write writes a tree to f.
func write(f File, tree treegen.Tree, opts Options) (*image.Layout, error) {
	w, err := NewWriter(context.Background(), f, opts)
	if err != nil {
		return nil, err
	}
	err = tree.AddTo(w)
	err = errors.Join(err, w.Close())
	return w.Layout(), err
}

var fsckLines = regexp.MustCompile(`^(e2fsck 1\..*|Pass [1-5]: .*|.*: \d+/\d+ files \(.*\), \d+/\d+ blocks)$`)

// fsck fails unless e2fsck finds nothing and says nothing.
func fsck(t testing.TB, path string) {
	t.Helper()
	out := mustTool(t, "e2fsck", "-fn", path)
	for line := range strings.Lines(out) {
		if !fsckLines.MatchString(strings.TrimSpace(line)) {
			t.Errorf("e2fsck: %s", line)
		}
	}
}

// mount mounts an image until the test ends.
func mount(t testing.TB, path, options string) string {
	t.Helper()
	dir, err := tryMount(t, path, options)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func needRoot(t testing.TB) {
	t.Helper()
	imagetest.NeedRoot(t, "mount an image")
}

func tryMount(t testing.TB, path, options string) (string, error) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if out, err := tool(t, "mount", "-t", "ext4", "-o", "loop,"+options, path, dir); err != nil {
		return "", errors.New(out)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir, nil
}

func unmount(t testing.TB, dir string) {
	t.Helper()
	if err := syscall.Unmount(dir, 0); err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unmounting %s: %v", dir, err)
	}
}

// checkMounted holds the kernel's view of an image against the tree.
func checkMounted(t *testing.T, path string, tree treegen.Tree, sample int) {
	t.Helper()
	t.Run("mounted", func(t *testing.T) {
		c := treegen.Checker{Ignore: lostFound, Sample: sample}
		if err := c.Check(mount(t, path, "ro"), tree); err != nil {
			t.Error(err)
		}
	})
}

func fileSum(t testing.TB, path string) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
