package btree

import (
	"encoding/binary"
	"fmt"
)

// tree is what tables and indexes have in common: a leaf that is being filled,
// and the divisions between the leaves that are already written.
type tree struct {
	f        *File
	root     uint32
	interior pageKind
	leaf     *page
	cell     []byte
	// leaves and divs describe the level above the leaves: leaf i, then what
	// divides it from leaf i+1, an interior cell without its child pointer.
	leaves []uint32
	divs   cells
	// finish ends the last leaf.
	finish func()
}

// cells is a list of cells in one piece of memory.
type cells struct {
	data []byte
	ends []int
}

func (c *cells) add(cell []byte) {
	c.data = append(c.data, cell...)
	c.ends = append(c.ends, len(c.data))
}

func (c *cells) len() int { return len(c.ends) }

func (c *cells) at(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.data[start:c.ends[i]]
}

func (f *File) newTree(root uint32, leaf, interior pageKind) (*tree, error) {
	if root < 2 || int(root) > len(f.skeleton)/f.size {
		return nil, fmt.Errorf("page %d is not a root page of the empty database", root)
	}
	at := f.skeleton[int(root-1)*f.size:]
	if pageKind(at[0]) != leaf || binary.BigEndian.Uint16(at[3:]) != 0 {
		return nil, fmt.Errorf("page %d is not an empty page of its kind", root)
	}
	t := &tree{f: f, root: root, interior: interior, leaf: newPage(leaf, f.size)}
	f.trees = append(f.trees, t)
	return t, nil
}

// endLeaf writes the leaf, and notes what divides it from the next.
func (t *tree) endLeaf(div []byte) {
	t.leaves = append(t.leaves, t.f.append(t.leaf.finish(0)))
	t.divs.add(div)
	t.leaf.reset()
}

func (t *tree) finishLeaves() {
	if t.leaf.cells == 0 {
		return // the root stays as SQLite made it
	}
	t.finish()
	if len(t.leaves) == 0 {
		t.f.setRoot(t.root, t.leaf.finish(0))
		return
	}
	t.leaves = append(t.leaves, t.f.append(t.leaf.finish(0)))
}

// finishInterior builds the levels above the leaves, the lowest first.
func (t *tree) finishInterior() {
	children, divs := t.leaves, &t.divs
	for len(children) > 0 {
		children, divs = t.level(children, divs)
	}
	t.leaves, t.divs = nil, cells{}
}

// level writes the interior pages over children and returns those pages and
// their divisions, or nothing once a level fits in the root.
func (t *tree) level(children []uint32, divs *cells) (pages []uint32, up *cells) {
	p := newPage(t.interior, t.f.size)
	up = &cells{}
	child := make([]byte, 4)
	for i := range divs.len() {
		div := divs.at(i)
		right := children[i]
		if p.fits(4 + len(div)) {
			binary.BigEndian.PutUint32(child, right)
			p.add(child, div)
			continue
		}
		last := i == divs.len()-1
		if last { // the next page would have no cell: leave it the last two children
			cell := p.pop()
			right, div = binary.BigEndian.Uint32(cell), cell[4:]
		}
		pages = append(pages, t.f.append(p.finish(right)))
		up.add(div)
		p.reset()
		if last {
			binary.BigEndian.PutUint32(child, children[i])
			p.add(child, divs.at(i))
		}
	}
	right := children[len(children)-1]
	if len(pages) == 0 {
		t.f.setRoot(t.root, p.finish(right))
		return nil, nil
	}
	return append(pages, t.f.append(p.finish(right))), up
}
