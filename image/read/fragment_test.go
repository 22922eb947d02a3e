package read

import (
	"os"
	"path/filepath"
	"testing"

	"bigdisk/image/imagetest"
)

// TestSmallFragments sees that a fragment block that is nearly empty takes no
// whole block's memory: in an image of a million small store paths, most are.
func TestSmallFragments(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "small"), []byte("a few bytes, and again a few bytes"), 0o644))
	name := filepath.Join(t.TempDir(), "image.sqsh")
	imagetest.NeedTools(t, "mksquashfs")
	imagetest.Command(t, "mksquashfs", squash()(dir, name)...)
	im, err := Open(name)
	must(t, err)
	defer im.Close()
	b, err := im.fs.(*squashfs).loadFragment(0)
	must(t, err)
	if len(b) == 0 || cap(b) > 4096 {
		t.Errorf("a fragment of %d bytes takes %d", len(b), cap(b))
	}
}
