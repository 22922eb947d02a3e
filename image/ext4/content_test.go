package ext4

import (
	"testing"

	"bigdisk/image"
)

// TestContentKey wants a file and its executable twin to be told apart, since
// an inode has one mode, and other files to be told apart as their sums are.
func TestContentKey(t *testing.T) {
	a, b := image.FileSum{1}, image.FileSum{2}
	keys := map[contentKey]bool{}
	for _, sum := range []image.FileSum{a, b} {
		for _, exec := range []bool{false, true} {
			keys[newContentKey(sum, exec)] = true
		}
	}
	if len(keys) != 4 {
		t.Errorf("%d keys of 4 files", len(keys))
	}
}
