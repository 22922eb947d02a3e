package ext4

import "slices"

// freeSpace gives blocks of the spans that are free: of the first in which all
// that should lie together fits, or else of several.
type freeSpace struct {
	free spans // what is left of each; the last is what lies past today's end
	// most is a tree over all but the last: most[1] is the greatest number of
	// blocks in a span, most[2i] and most[2i+1] are those of the halves.
	most   []int64
	leaves int
	hint   int64 // blocks that the open file may still need
	now    int   // the span in use; -1 is none
	taken  []taken
}

// taken is what has been given of a span since open.
type taken struct {
	span   int
	blocks int64
}

// worthSplitting is how many blocks a part of a large file should have: 1 MiB.
const worthSplitting = 256

// newFreeSpace takes the free spans of an image that ends at block end and may
// grow to most blocks.
func newFreeSpace(free spans, end, most int64) *freeSpace {
	s := &freeSpace{free: append(slices.Clone(free), span{end, max(end, most)}), leaves: 1, now: -1}
	for s.leaves < len(free) {
		s.leaves *= 2
	}
	s.most = make([]int64, 2*s.leaves)
	for i, x := range free {
		s.most[s.leaves+i] = x.blocks()
	}
	for i := s.leaves - 1; i > 0; i-- {
		s.most[i] = max(s.most[2*i], s.most[2*i+1])
	}
	return s
}

func (s *freeSpace) clone() *freeSpace {
	c := *s
	c.free, c.most, c.taken = slices.Clone(s.free), slices.Clone(s.most), nil
	return &c
}

func (s *freeSpace) tail() int { return len(s.free) - 1 }

func (s *freeSpace) end() int64 { return s.free[s.tail()].start }

func (s *freeSpace) open(blocks int64) {
	s.hint, s.now, s.taken = blocks, -1, s.taken[:0]
}

func (s *freeSpace) take(n int64) (start, blocks int64, err error) {
	if s.now < 0 || s.free[s.now].blocks() == 0 {
		if s.now = s.choose(max(s.hint, n)); s.now < 0 {
			return 0, 0, errNoRoom
		}
	}
	start, blocks = s.free[s.now].start, min(n, s.free[s.now].blocks())
	s.change(s.now, blocks)
	if last := len(s.taken) - 1; last >= 0 && s.taken[last].span == s.now {
		s.taken[last].blocks += blocks
	} else {
		s.taken = append(s.taken, taken{s.now, blocks})
	}
	s.hint -= blocks
	return start, blocks, nil
}

func (s *freeSpace) back() {
	for _, t := range s.taken {
		s.change(t.span, -t.blocks)
	}
	s.now, s.taken = -1, s.taken[:0]
}

// run gives n blocks that follow one another.
func (s *freeSpace) run(n int64) (start int64, err error) {
	i := s.first(n)
	if i < 0 && s.free[s.tail()].blocks() >= n {
		i = s.tail()
	}
	if i < 0 {
		return 0, errNoRoom
	}
	start = s.free[i].start
	s.change(i, n)
	return start, nil
}

// takeAll gives n blocks in as few spans as there are.
func (s *freeSpace) takeAll(n int64) (spans, error) {
	var out spans
	s.open(n)
	for n > 0 {
		start, blocks, err := s.take(n)
		if err != nil {
			return nil, err
		}
		out.add(start, blocks)
		n -= blocks
	}
	return out, nil
}

// choose returns the span to take from when n blocks should lie together.
func (s *freeSpace) choose(n int64) int {
	if i := s.first(n); i >= 0 {
		return i
	}
	if i := s.first(min(n, worthSplitting)); i >= 0 {
		return i
	}
	if s.free[s.tail()].blocks() > 0 {
		return s.tail()
	}
	return s.first(1)
}

// first returns the first span of n blocks or more, the last left out; -1 is
// none.
func (s *freeSpace) first(n int64) int {
	if s.most[1] < n || s.tail() == 0 {
		return -1
	}
	i := 1
	for i < s.leaves {
		i *= 2
		if s.most[i] < n {
			i++
		}
	}
	return i - s.leaves
}

// change takes blocks from the front of a span, or gives some back.
func (s *freeSpace) change(i int, blocks int64) {
	s.free[i].start += blocks
	if i == s.tail() {
		return
	}
	at := s.leaves + i
	s.most[at] = s.free[i].blocks()
	for at /= 2; at > 0; at /= 2 {
		s.most[at] = max(s.most[2*at], s.most[2*at+1])
	}
}
