package filesum

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"bigdisk/image"
)

// TestSums wants equal sums for equal files only, however their blocks come.
func TestSums(t *testing.T) {
	block := bytes.Repeat([]byte{7}, BlockSize)
	zero := make([]byte, BlockSize)
	join := func(blocks ...[]byte) []byte { return bytes.Join(blocks, nil) }
	files := [][]byte{
		nil, {0}, {1}, {0, 0}, {1, 0}, zero, join(zero, zero), block, join(block, zero), join(zero, block),
		join(block, zero, block), join(block, block), join(block, zero[:9]), join(block, block[:9]),
		join(zero, zero, block, zero), join(zero, block, zero, zero), append(make([]byte, 1<<20-1), 1),
	}
	h, seen := New(), map[image.FileSum]int{}
	for i, f := range files {
		h.Write(f)
		sum := h.End(int64(len(f)))
		if j, ok := seen[sum]; ok {
			t.Errorf("files %d and %d have the same sum", i, j)
		}
		seen[sum] = i
		for _, cut := range []int{1, 100, BlockSize - 1, BlockSize + 1, 3 * BlockSize / 2} {
			for rest := f; len(rest) > 0; {
				n := min(cut, len(rest))
				h.Add(rest[:n])
				rest = rest[n:]
			}
			if h.End(int64(len(f))) != sum {
				t.Fatalf("file %d has another sum when it comes in pieces of %d bytes", i, cut)
			}
		}
		for cut := BlockSize; cut < len(f); cut += BlockSize {
			h.Write(f[:cut])
			h.Write(f[cut:])
			if h.End(int64(len(f))) != sum {
				t.Fatalf("file %d has another sum when cut at byte %d", i, cut)
			}
		}
	}
}

// TestZeros wants a hole to count as the zeros that it reads as.
func TestZeros(t *testing.T) {
	data := make([]byte, 5*BlockSize+100)
	copy(data[2*BlockSize:], "something")
	h := New()
	h.Write(data)
	want := h.End(int64(len(data)))
	h.Zeros(2)
	h.Blocks(data[2*BlockSize : 3*BlockSize])
	h.Zeros(1)
	h.Zeros(2)
	if got := h.End(int64(len(data))); got != want {
		t.Errorf("with holes %x, with zeros %x", got, want)
	}
}

// TestStable pins sums: those of images that are published are compared with
// them.
func TestStable(t *testing.T) {
	h := New()
	for data, want := range map[string]string{
		"hello\n": "eef176f1f6fd7ded1114a4dd73482859",
	} {
		h.Write([]byte(data))
		sum := h.End(int64(len(data)))
		if got := fmt.Sprintf("%x", sum[:16]); got != want {
			t.Errorf("%q: %s, not %s", data, got, want)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	for _, size := range []int{300, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size)
			for i := range p {
				p[i] = byte(rand.Uint32())
			}
			h := New()
			b.SetBytes(int64(size))
			for b.Loop() {
				h.Write(p)
				h.End(int64(size))
			}
		})
	}
}
