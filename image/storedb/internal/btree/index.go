package btree

import "fmt"

// Index fills an index.
type Index struct {
	t *tree
	// div is the entry after a full leaf, which divides it from the next if
	// there is a next; empty while the leaf has room.
	div []byte
}

// Index starts filling the empty index whose root page is root.
func (f *File) Index(root uint32) (*Index, error) {
	t, err := f.newTree(root, indexLeaf, indexInterior)
	if err != nil {
		return nil, err
	}
	x := &Index{t: t}
	t.finish = x.finish
	return x, nil
}

// Append adds an entry. Entries must come in the index's order, which is for
// the caller to know. An entry of more than about a quarter of a page is an
// error.
func (x *Index) Append(record []byte) error {
	t := x.t
	if most := (t.f.size-12)*64/255 - 23; len(record) > most {
		return fmt.Errorf("an index entry of %d bytes is over %d", len(record), most)
	}
	t.cell = AppendVarint(t.cell[:0], uint64(len(record)))
	t.cell = append(t.cell, record...)
	if len(x.div) == 0 {
		if t.leaf.fits(len(t.cell)) {
			t.leaf.add(t.cell, nil)
		} else {
			x.div = append(x.div, t.cell...)
		}
		return t.f.err
	}
	t.endLeaf(x.div)
	x.div = x.div[:0]
	t.leaf.add(t.cell, nil)
	return t.f.err
}

// finish makes sure that the last leaf has an entry: if all that is left is
// what would divide it from the one before, that one's last entry does instead.
func (x *Index) finish() {
	if len(x.div) == 0 {
		return
	}
	x.t.endLeaf(x.t.leaf.pop())
	x.t.leaf.add(x.div, nil)
}
