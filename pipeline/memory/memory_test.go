package memory

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Setenv("GOMEMLIMIT", "off")
	debug.SetMemoryLimit(math.MaxInt64)
	if Limit(t.Context()); debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Error("GOMEMLIMIT was set, but not left alone")
	}
	t.Setenv("GOMEMLIMIT", "")
	if Limit(t.Context()); debug.SetMemoryLimit(-1) != SoftLimit {
		t.Errorf("the limit is %d", debug.SetMemoryLimit(-1))
	}
	if live := inUse(); live < 0 || live > SoftLimit {
		t.Errorf("%d bytes are in use", live)
	}
}

func TestSensible(t *testing.T) {
	for _, test := range []struct{ limit, live, want int64 }{
		{1000, 0, 1000}, {1000, 750, 1000}, {1000, 751, 1500}, {1000, 1125, 1500}, {1000, 1126, 2250}, {1000, 100_000, 194581},
	} {
		if got := sensible(test.limit, test.live); got != test.want {
			t.Errorf("%d of %d bytes in use: limit %d, want %d", test.live, test.limit, got, test.want)
		}
	}
}
