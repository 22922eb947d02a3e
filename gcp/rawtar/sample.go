package rawtar

const (
	sampleSize  = 512 // bytes in a row that are looked at
	sampleEvery = chunk / 8
	// Two bytes of a sample are the same more often than by chance: below flat
	// times, deflate saves nothing worth its time; above steep times, it always
	// does. Between, a part of the chunk is compressed to see.
	flat, steep = 1.2, 6.0
	trialSize   = chunk / 8
)

// sample is what is looked at of a chunk.
type sample [8 * sampleSize]byte

// take fills the sample from a chunk in pieces, none of whose ends may be in a
// range that is looked at.
func (s *sample) take(pieces ...[]byte) {
	start, n := 0, 0
	for _, piece := range pieces {
		for ; n < len(s); n += sampleSize {
			at := n/sampleSize*sampleEvery - start
			if at >= len(piece) {
				break
			}
			copy(s[n:n+sampleSize], piece[at:])
		}
		start += len(piece)
	}
}

// unevenness is how much more often than by chance two bytes of the sample are
// the same: 1 of random bytes, 256 if there is but one value.
func (s *sample) unevenness() float64 {
	var counts [4][256]uint32 // four, so that one does not wait for another
	for b := s[:]; len(b) >= 4; b = b[4:] {
		counts[0][b[0]]++
		counts[1][b[1]]++
		counts[2][b[2]]++
		counts[3][b[3]]++
	}
	squares := 0
	for i := range 256 {
		c := int(counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i])
		squares += c * c
	}
	// Of n bytes, each value comes n/256 times, give or take its square root.
	const chance = float64(len(s)*len(s)/256 + len(s))
	return float64(squares) / chance
}

// compressible guesses whether deflate would make a chunk smaller by what is
// worth the time: in what is compressed already, all values of a byte are about
// equally frequent.
func (e *encoder) compressible(data []byte) (bool, error) {
	e.sample.take(data)
	u := e.sample.unevenness()
	if u < flat || u >= steep {
		return u >= steep, nil
	}
	var size counter
	e.trial.Reset(&size)
	if _, err := e.trial.Write(data[len(data)-trialSize:]); err != nil {
		return false, err
	}
	err := e.trial.Close()
	return size < trialSize-trialSize/32, err
}

// counter counts what is written to it.
type counter int

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
