package squashfs

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"testing"

	"bigdisk/bundle/store"
)

// TestLookupCost counts what the kernel reads to find a name in a long listing:
// the index up to the last entry that is not after the name (as
// get_dir_index_using_name does), and the listing from there to the name.
func TestLookupCost(t *testing.T) {
	for _, c := range []struct{ names, most int }{ // most is in metadata blocks
		{names: 100, most: 1},
		{names: 10_000, most: 4},
		{names: 1_000_000, most: 24},
	} {
		var d directory
		for i := range c.names {
			name := fmt.Sprintf("%032d-package-%d.%d", i*7919%1_000_003, i, i%10)
			d.children = append(d.children, child{name: name, number: uint32(i + 2), kind: store.Directory})
		}
		slices.SortFunc(d.children, func(x, y child) int { return cmp.Compare(x.name, y.name) })
		refs := make([]ref, c.names)
		for i := range refs {
			refs[i] = makeRef(int64(d.children[i].number)*32/metadataSize*metadataSize, 0)
		}
		comp, err := Compression{name: "none"}.newCompressor(metadataSize)
		if err != nil {
			t.Fatal(err)
		}
		l, err := (&dirTable{meta: newMetaWriter(io.Discard, comp)}).add(&d, refs)
		if err != nil {
			t.Fatal(err)
		}
		var at, index, worst int64
		for _, x := range l.index {
			worst = max(worst, index+int64(x.at)-at)
			at, index = int64(x.at), index+int64(len(x.append(nil)))
		}
		worst = max(worst, index+l.size-at)
		if got := (worst + metadataSize - 1) / metadataSize; got > int64(c.most) {
			t.Errorf("a look-up among %d names reads up to %d metadata blocks of %d, want at most %d", c.names, got, l.size/metadataSize+1, c.most)
		}
	}
}
