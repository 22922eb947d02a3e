package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/image/internal/treegen"
)

// TestFeatures holds the superblock against what was asked for.
func TestFeatures(t *testing.T) {
	opts := Options{RoundTo: 1 << 20, Label: "bigdisk-1234567", UID: 70_000, GID: 80_000}
	path, _ := build(t, treegen.Symlinks("s"), opts)
	head := mustTool(t, "dumpe2fs", "-h", path)
	for _, line := range []string{
		"Filesystem volume name:   bigdisk-1234567\n",
		"Filesystem features:      dir_index sparse_super2 filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum read-only\n",
		"Filesystem state:         clean\n",
		"Reserved block count:     0\n",
		"Default directory hash:   half_md4\n",
		"Inode size:	          256\n",
		"Checksum type:            crc32c\n",
	} {
		if !strings.Contains(head, line) {
			t.Errorf("no line %q in:\n%s", line, head)
		}
	}
	c := treegen.Checker{Ignore: lostFound, UID: opts.UID, GID: opts.GID}
	if err := c.Check(mount(t, path, "ro"), treegen.Symlinks("s")); err != nil {
		t.Error(err)
	}
}

// TestReadOnly asks for a writable mount of an image that is not.
func TestReadOnly(t *testing.T) {
	path, _ := build(t, treegen.Store(10), smallImage)
	before := fileSum(t, path)
	dir := mount(t, path, "rw")
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); err == nil {
		t.Error("the image was written to")
	}
	unmount(t, dir)
	if fileSum(t, path) != before {
		t.Error("mounting changed the image")
	}
}

// TestWritable writes to a mounted image until it is nearly full: into a big
// indexed directory, over old files, and big files.
func TestWritable(t *testing.T) {
	for _, opts := range []Options{
		{RoundTo: 1 << 20, Writable: true},
		{Size: 200 << 20, Writable: true},
	} {
		tree := treegen.Store(20_000)
		path, _ := build(t, tree, opts)
		dir := mount(t, path, "rw")
		db := filepath.Join(dir, "nix", "store")
		for i := range 3000 {
			name := filepath.Join(db, fmt.Sprintf("%d-new", i))
			if err := os.WriteFile(name, []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 8<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		var removed []string
		n := 0
		for item := range tree {
			if n++; n%7 == 0 && strings.Count(item.Path, "/") == 2 && item.Data != nil {
				if err := os.Remove(filepath.Join(dir, item.Path)); err != nil {
					t.Fatal(err)
				}
				removed = append(removed, item.Path)
			}
		}
		if len(removed) == 0 {
			t.Fatal("nothing was removed: the test shows nothing")
		}
		unmount(t, dir)
		fsck(t, path)
		dir = mount(t, path, "ro")
		for i := range 3000 {
			name := fmt.Sprintf("%d-new", i)
			if got, err := os.ReadFile(filepath.Join(dir, "nix", "store", name)); err != nil || !strings.HasSuffix(string(got), "/nix/store/"+name) {
				t.Fatalf("%s holds %q, %v", name, got, err)
			}
		}
		for _, name := range removed {
			if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", name, err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(dir, "big")); err != nil || !bytes.Equal(got, make([]byte, 8<<20)) {
			t.Errorf("big has %d bytes, %v", len(got), err)
		}
		unmount(t, dir)
	}
}
