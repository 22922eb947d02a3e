package rawtar

const (
	sampleSize  = 2 << 10 // bytes in a row that are looked at
	sampleEvery = chunk / 8
	// flat is by how much more often than by chance two bytes of a sample are
	// the same before it counts as compressible.
	flat = 1.10
)

// compressible guesses from samples of a chunk whether deflate would make it
// smaller: in what is compressed already, all values of a byte are about
// equally frequent. It is right about enough chunks to save the time for those
// that would come out as long as they went in.
func compressible(data []byte) bool {
	var counts [4][256]uint32 // four, so that one does not wait for another
	n := 0
	for off := 0; off+sampleSize <= len(data); off += sampleEvery {
		s := data[off : off+sampleSize]
		for ; len(s) >= 4; s = s[4:] {
			counts[0][s[0]]++
			counts[1][s[1]]++
			counts[2][s[2]]++
			counts[3][s[3]]++
		}
		n += sampleSize
	}
	if n == 0 {
		return true
	}
	var squares uint64
	for i := range 256 {
		c := uint64(counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i])
		squares += c * c
	}
	// Of n bytes, each value comes n/256 times, give or take its square root.
	chance := float64(n)*float64(n)/256 + float64(n)
	return float64(squares) > flat*chance
}
