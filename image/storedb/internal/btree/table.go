package btree

import (
	"encoding/binary"
	"fmt"
)

// Table fills a table that has row numbers.
type Table struct {
	t    *tree
	last int64
}

// Table starts filling the empty table whose root page is root.
func (f *File) Table(root uint32) (*Table, error) {
	t, err := f.newTree(root, tableLeaf, tableInterior)
	if err != nil {
		return nil, err
	}
	t.finish = func() {}
	return &Table{t: t}, nil
}

// Append adds a row. Row numbers must be positive and ascend.
func (t *Table) Append(row int64, record []byte) error {
	if row <= t.last {
		return fmt.Errorf("row %d comes after row %d", row, t.last)
	}
	cell := t.t.tableCell(row, record)
	if !t.t.leaf.fits(len(cell)) {
		t.t.endLeaf(AppendVarint(nil, uint64(t.last)))
	}
	t.t.leaf.add(cell, nil)
	t.last = row
	return t.t.f.err
}

// tableCell makes a leaf's cell: length, row number, as much of the record as
// may lie in the page, and where the rest is.
func (t *tree) tableCell(row int64, record []byte) []byte {
	t.cell = AppendVarint(t.cell[:0], uint64(len(record)))
	t.cell = AppendVarint(t.cell, uint64(row))
	local := localPayload(len(record), t.f.size)
	t.cell = append(t.cell, record[:local]...)
	if local < len(record) {
		first := t.f.overflow(record[local:])
		t.cell = binary.BigEndian.AppendUint32(t.cell, first)
	}
	return t.cell
}

// localPayload is how much of a row's record of n bytes lies in its leaf, in
// pages of size bytes (section 1.6, "table leaf").
func localPayload(n, size int) int {
	most := size - 35
	if n <= most {
		return n
	}
	least := (size-12)*32/255 - 23
	if local := least + (n-least)%(size-4); local <= most {
		return local
	}
	return least
}
