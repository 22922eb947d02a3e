package imagetest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Facts is everything about a file that an image promises to keep.
type Facts struct {
	Mode   fs.FileMode
	Mtime  int64 // nanoseconds
	Size   int64 // of a regular file
	Target string
	Digest [sha256.Size]byte
	UID    uint32
	GID    uint32
}

// ReadTree reads every file at and below root; "." is root itself.
func ReadTree(t testing.TB, root string) map[string]Facts {
	t.Helper()
	tree := make(map[string]Facts)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		tree[name], err = readFacts(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func readFacts(path string) (Facts, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return Facts{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	f := Facts{Mode: info.Mode(), Mtime: info.ModTime().UnixNano(), UID: stat.Uid, GID: stat.Gid}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		f.Target, err = os.Readlink(path)
	case info.Mode().IsRegular():
		f.Size = info.Size()
		f.Digest, err = fileDigest(path)
	}
	return f, err
}

func fileDigest(path string) (digest [sha256.Size]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return digest, err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return digest, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// DiffTrees names every file that is not the same in both trees.
func DiffTrees(got, want map[string]Facts) []string {
	var diffs []string
	for name, w := range want {
		if g, ok := got[name]; !ok {
			diffs = append(diffs, name+" is missing")
		} else if g != w {
			diffs = append(diffs, fmt.Sprintf("%s is %v, want %v", name, g, w))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			diffs = append(diffs, name+" is too much")
		}
	}
	slices.Sort(diffs)
	return diffs
}

// CheckSame fails unless the trees are the same.
func CheckSame(t testing.TB, got, want map[string]Facts) {
	t.Helper()
	if diffs := DiffTrees(got, want); len(diffs) > 0 {
		t.Errorf("%d files differ:\n%s", len(diffs), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
	}
}
