package btree

import "encoding/binary"

// pageKind is the first byte of a b-tree page.
type pageKind byte

const (
	indexInterior pageKind = 0x02
	tableInterior pageKind = 0x05
	indexLeaf     pageKind = 0x0a
	tableLeaf     pageKind = 0x0d
)

func (k pageKind) interior() bool { return k == indexInterior || k == tableInterior }

// headerLen is the length of a page's header; interior pages have four more
// bytes, the number of their rightmost child.
func (k pageKind) headerLen() int {
	if k.interior() {
		return 12
	}
	return 8
}

// page is a b-tree page that is being filled: cell pointers grow up from its
// header, cells down from its end.
type page struct {
	kind  pageKind
	buf   []byte
	cells int
	top   int // where the last cell starts
}

func newPage(kind pageKind, size int) *page {
	return &page{kind: kind, buf: make([]byte, size), top: size}
}

// fits reports whether another cell of n bytes has room.
func (p *page) fits(n int) bool {
	return p.kind.headerLen()+2*(p.cells+1)+n <= p.top
}

// add adds a cell made of two parts, which must fit. Cells come in key order.
func (p *page) add(a, b []byte) {
	p.top -= len(a) + len(b)
	copy(p.buf[p.top:], a)
	copy(p.buf[p.top+len(a):], b)
	binary.BigEndian.PutUint16(p.buf[p.pointer(p.cells):], uint16(p.top))
	p.cells++
}

// pop takes the last cell away and returns a copy of it.
func (p *page) pop() []byte {
	end := len(p.buf)
	if p.cells > 1 {
		end = int(binary.BigEndian.Uint16(p.buf[p.pointer(p.cells-2):]))
	}
	cell := append([]byte(nil), p.buf[p.top:end]...)
	clear(p.buf[p.top:end])
	p.top = end
	p.cells--
	clear(p.buf[p.pointer(p.cells) : p.pointer(p.cells)+2])
	return cell
}

func (p *page) pointer(cell int) int { return p.kind.headerLen() + 2*cell }

// finish fills the header in and returns the page's bytes; right is the
// rightmost child of an interior page.
func (p *page) finish(right uint32) []byte {
	p.buf[0] = byte(p.kind)
	binary.BigEndian.PutUint16(p.buf[3:], uint16(p.cells))
	binary.BigEndian.PutUint16(p.buf[5:], uint16(p.top)) // 65536 is written as 0
	if p.kind.interior() {
		binary.BigEndian.PutUint32(p.buf[8:], right)
	}
	return p.buf
}

// reset empties the page and zeroes it, so that nothing of its last use shows.
func (p *page) reset() {
	clear(p.buf)
	p.cells, p.top = 0, len(p.buf)
}
