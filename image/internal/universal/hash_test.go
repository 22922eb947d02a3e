package universal

import (
	"bytes"
	"testing"
)

// TestTags wants equal tags for equal blocks only, and other tags under
// another key.
func TestTags(t *testing.T) {
	blocks := [][]byte{nil, {0}, {1}, {0, 0}, make([]byte, 4096), make([]byte, 1<<20), append(make([]byte, 1<<20-1), 1)}
	keys := [2]*Hash{}
	for i := range keys {
		h, err := New()
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = h
	}
	seen := map[string]int{}
	for i, b := range blocks {
		tag := keys[0].Append(nil, b)
		if len(tag) != TagSize || !bytes.Equal(tag, keys[0].Append(nil, bytes.Clone(b))) {
			t.Errorf("block %d has the tag %x, and not always", i, tag)
		}
		if j, ok := seen[string(tag)]; ok {
			t.Errorf("blocks %d and %d have the same tag", i, j)
		}
		seen[string(tag)] = i
		if bytes.Equal(tag, keys[1].Append(nil, b)) {
			t.Errorf("block %d has the same tag under another key", i)
		}
	}
}

func BenchmarkTag(b *testing.B) {
	h, err := New()
	if err != nil {
		b.Fatal(err)
	}
	block, tag := make([]byte, 256<<10), make([]byte, 0, TagSize)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		h.Append(tag, block)
	}
}
