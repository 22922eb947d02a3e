package ext4

import (
	"cmp"
	"slices"

	"bigdisk/image"
)

// space says where data goes.
type space interface {
	// open says that up to so many blocks come that should lie together.
	open(blocks int64)
	// take gives at least one block and at most n that follow one another.
	take(n int64) (start, blocks int64, err error)
	// back takes back what was given since open.
	back()
	// end is the block after the last that is given away.
	end() int64
}

// line gives blocks one after the other.
type line struct{ next, opened int64 }

func (l *line) open(int64) { l.opened = l.next }
func (l *line) back()      { l.next = l.opened }
func (l *line) end() int64 { return l.next }

func (l *line) take(n int64) (start, blocks int64, err error) {
	l.next += n
	return l.next - n, n, nil
}

// span is the blocks from start to before end.
type span struct{ start, end int64 }

func (s span) blocks() int64 { return s.end - s.start }

// spans are in no order until normal has put them into one.
type spans []span

// add appends a run of blocks, to the last span if it goes on there.
func (s *spans) add(start, blocks int64) {
	if n := len(*s); n > 0 && (*s)[n-1].end == start {
		(*s)[n-1].end += blocks
		return
	}
	if blocks > 0 {
		*s = append(*s, span{start, start + blocks})
	}
}

// normal sorts the spans and joins those that touch. It reports whether two
// had a block in common.
func (s *spans) normal() (overlap bool) {
	slices.SortFunc(*s, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	out := (*s)[:0]
	for _, x := range *s {
		if n := len(out); n > 0 && x.start <= out[n-1].end {
			overlap = overlap || x.start < out[n-1].end
			out[n-1].end = max(out[n-1].end, x.end)
			continue
		}
		out = append(out, x)
	}
	*s = out
	return overlap
}

// blocks is how many there are in all.
func (s spans) blocks() (n int64) {
	for _, x := range s {
		n += x.blocks()
	}
	return n
}

// extents sorts the spans and returns them as ranges of bytes.
func (s *spans) extents() []image.Extent {
	s.normal()
	var out []image.Extent
	for _, x := range *s {
		out = append(out, image.Extent{Offset: x.start * blockSize, Length: x.blocks() * blockSize})
	}
	return out
}

// from returns those of the sorted spans that end after a block.
func (s spans) from(block int64) spans {
	i, _ := slices.BinarySearchFunc(s, block, func(x span, block int64) int {
		if x.end > block {
			return 1
		}
		return -1
	})
	return s[i:]
}

// meets reports whether the sorted spans have a block of [start, end).
func (s spans) meets(start, end int64) bool {
	rest := s.from(start)
	return len(rest) > 0 && rest[0].start < end
}

// gaps are what lies between the sorted spans in [start, end).
func (s spans) gaps(start, end int64) spans {
	var out spans
	for _, x := range s.from(start) {
		if x.start >= end {
			break
		}
		out.add(start, x.start-start)
		start = max(start, x.end)
	}
	out.add(start, end-start)
	return out
}
