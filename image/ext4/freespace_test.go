package ext4

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFreeSpace gives blocks out of random spans, and holds them against a map
// of what is free.
func TestFreeSpace(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var free spans
		at, blocks := int64(10), map[int64]bool{}
		for range rnd.IntN(20) {
			at += 1 + rnd.Int64N(50)
			n := 1 + rnd.Int64N(1+int64(600>>rnd.IntN(9)))
			free = append(free, span{at, at + n})
			at += n
		}
		end, most := at+5, at+5+rnd.Int64N(2000)
		for _, x := range append(slices.Clone(free), span{end, most}) {
			for b := x.start; b < x.end; b++ {
				blocks[b] = true
			}
		}
		s := newFreeSpace(free, end, most)
		use := func(start, n int64) {
			for b := start; b < start+n; b++ {
				if !blocks[b] {
					t.Fatalf("seed %d: block %d was not free", seed, b)
				}
				delete(blocks, b)
			}
		}
		for len(blocks) > 0 {
			want := 1 + rnd.Int64N(int64(min(len(blocks), 500)))
			if start, err := s.run(want); rnd.IntN(4) == 0 && err == nil {
				use(start, want)
				continue
			} else if err == nil {
				s.change(slices.IndexFunc(s.free, func(x span) bool { return x.start == start+want }), -want)
			}
			before := slices.Clone(s.free)
			taken, err := s.takeAll(want)
			if err != nil {
				t.Fatalf("seed %d: %d of %d blocks: %v", seed, want, len(blocks), err)
			}
			if rnd.IntN(3) == 0 {
				s.back()
				if !slices.Equal(s.free, before) {
					t.Fatalf("seed %d: %v after taking back, not %v", seed, s.free, before)
				}
				continue
			}
			if fits := slices.ContainsFunc(before, func(x span) bool { return x.blocks() >= want }); fits && len(taken) != 1 && want <= worthSplitting {
				t.Errorf("seed %d: %d blocks in %d pieces, though they fit into one", seed, want, len(taken))
			}
			for _, x := range taken {
				use(x.start, x.blocks())
			}
		}
		if _, _, err := s.take(1); err != errNoRoom {
			t.Errorf("seed %d: when nothing is left: %v", seed, err)
		}
		if s.end() != most {
			t.Errorf("seed %d: the end is %d, not %d", seed, s.end(), most)
		}
	}
}

// TestSpans covers lists of spans.
func TestSpans(t *testing.T) {
	s := spans{{30, 40}, {10, 20}, {20, 25}, {50, 60}}
	if s.normal() || !slices.Equal(s, spans{{10, 25}, {30, 40}, {50, 60}}) || s.blocks() != 35 {
		t.Errorf("%v", s)
	}
	if over := (&spans{{1, 5}, {4, 6}}).normal(); !over {
		t.Error("an overlap was not seen")
	}
	if got := s.gaps(0, 70); !slices.Equal(got, spans{{0, 10}, {25, 30}, {40, 50}, {60, 70}}) {
		t.Errorf("gaps %v", got)
	}
	if got := s.gaps(12, 35); !slices.Equal(got, spans{{25, 30}}) {
		t.Errorf("gaps %v", got)
	}
	for block, want := range map[int64]bool{9: false, 10: true, 24: true, 25: false, 59: true, 60: false} {
		if s.meets(block, block+1) != want {
			t.Errorf("block %d", block)
		}
	}
}
