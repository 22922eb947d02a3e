package storedb

import (
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle/store"
)

// ids numbers store paths from 1 on, in their own order.
type ids struct {
	paths []store.Path
	// start has, for each value of the first digits of a digest, the index of
	// the first path with that value or a higher one: digests are random, so
	// few paths share one.
	start  []uint32
	digits int
}

const (
	base32Digits = "0123456789abcdfghijklmnpqrsvwxyz"
	bitsPerDigit = 5
	maxDigits    = 4 // 4 MiB of start
	fewPaths     = 8 // with one start: looked at one by one
)

// add gives p, a valid path, the next number. Paths must ascend.
func (x *ids) add(p store.Path) error {
	if n := len(x.paths); n > 0 && p <= x.paths[n-1] {
		if p == x.paths[n-1] {
			return fmt.Errorf("%s comes twice", p)
		}
		return fmt.Errorf("%s comes after %s: paths must be sorted", p, x.paths[n-1])
	}
	if int64(len(x.paths)) == maxPaths {
		return fmt.Errorf("more than %d store paths", int64(maxPaths))
	}
	x.paths = append(x.paths, p)
	return nil
}

// seal makes x ready for find.
func (x *ids) seal() {
	x.digits = 1
	for x.digits < maxDigits && len(x.paths)>>(bitsPerDigit*x.digits) > 0 {
		x.digits++
	}
	x.start = make([]uint32, 1<<(bitsPerDigit*x.digits)+1)
	for _, p := range x.paths {
		x.start[x.bucket(p)+1]++
	}
	for i := 1; i < len(x.start); i++ {
		x.start[i] += x.start[i-1]
	}
}

// bucket is the number that the first digits of p's digest write, or -1 if
// they are no digits.
func (x *ids) bucket(p store.Path) int {
	const at = len(store.Dir) + 1
	if len(p) < at+maxDigits {
		return -1
	}
	n := 0
	for i := range x.digits {
		digit := strings.IndexByte(base32Digits, p[at+i])
		if digit < 0 {
			return -1
		}
		n = n<<bitsPerDigit | digit
	}
	return n
}

// find returns the number of p, or 0 if it has none.
func (x *ids) find(p store.Path) uint32 {
	b := x.bucket(p)
	if b < 0 {
		return 0
	}
	from, to := x.start[b], x.start[b+1]
	if to-from > fewPaths {
		i, _ := slices.BinarySearch(x.paths[from:to], p)
		from += uint32(i)
		to = min(from+1, to)
	}
	// Comparing for equality alone is fast where strings share their bytes.
	for i := from; i < to; i++ {
		if x.paths[i] == p {
			return i + 1
		}
	}
	return 0
}
