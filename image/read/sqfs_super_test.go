package read

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/image/imagetest"
)

// TestTables flips bits on which the kernel will not mount an image, though all
// that its files need is in its place.
func TestTables(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte(imagetest.Text(1, 9000)), 0o644))
	name := filepath.Join(t.TempDir(), "image")
	imagetest.NeedTools(t, "mksquashfs")
	imagetest.Command(t, "mksquashfs", squash("-comp", "zstd", "-Xcompression-level", "5")(dir, name)...)
	data, err := os.ReadFile(name)
	must(t, err)
	for what, at := range map[string]int{
		"bytes used": 40, "id table": 48, "xattr table": 56, "its high byte": 63, "fragment table": 80, "export table": 88, "compressor's options": 96,
	} {
		damaged := bytes.Clone(data)
		damaged[at] ^= 4
		if _, err := New(bytes.NewReader(damaged), int64(len(damaged))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestExtendedAttributes wants images to be read that have them.
func TestExtendedAttributes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("x"), 0o644))
	if err := unix.Lsetxattr(file, "user.bigdisk", []byte("value"), 0); err != nil {
		imagetest.Missing(t, "the directory for temporary files has no extended attributes: %v", err)
	}
	name := filepath.Join(t.TempDir(), "image")
	imagetest.NeedTools(t, "mksquashfs")
	imagetest.Command(t, "mksquashfs", dir, name, "-quiet", "-no-progress", "-xattrs")
	im, err := Open(name)
	must(t, err)
	defer im.Close()
	if fs := im.fs.(*squashfs); fs.sb.XattrTable == sqfsNone {
		t.Error("the image has none")
	}
	if _, err := im.Lookup("file"); err != nil {
		t.Error(err)
	}
}
