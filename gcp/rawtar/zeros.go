package rawtar

import (
	"bytes"

	"github.com/klauspost/compress/flate"
)

// maxZeros is the length of the longest run of zeros that is one block.
const maxZeros = 8 * chunk

// zeroBlocks are complete deflate blocks that stand for chunk, 2*chunk and so
// on up to maxZeros zero bytes.
type zeroBlocks [][]byte

func newZeroBlocks() (zeroBlocks, error) {
	var blocks zeroBlocks
	zeros := make([]byte, maxZeros)
	for n := chunk; n <= maxZeros; n *= 2 {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(zeros[:n]); err != nil {
			return nil, err
		}
		if err := w.Flush(); err != nil {
			return nil, err
		}
		blocks = append(blocks, b.Bytes())
	}
	return blocks, nil
}

// append appends n zeros, a multiple of chunk, to out.
func (z zeroBlocks) append(out []byte, n int64) []byte {
	for i := len(z) - 1; i >= 0; i-- {
		for length := int64(chunk) << i; n >= length; n -= length {
			out = append(out, z[i]...)
		}
	}
	return out
}

// isZero says whether there is nothing but zeros in data.
func isZero(data []byte) bool {
	if len(data) == 0 {
		return true
	}
	return data[0] == 0 && bytes.Equal(data[1:], data[:len(data)-1])
}
