package squashfs

import (
	"testing"

	"bigdisk/image/imagetest"
)

// BenchmarkCompress compresses blocks of text, as a worker does.
func BenchmarkCompress(b *testing.B) {
	for _, s := range []string{"zstd:fastest", "zstd:default", "zstd:better", "zstd:best", "gzip", "lz4"} {
		for name, size := range map[string]int{"4K": 4 << 10, "128K": 128 << 10, "1M": 1 << 20} {
			b.Run(s+"/"+name, func(b *testing.B) {
				c, err := ParseCompression(s)
				if err != nil {
					b.Fatal(err)
				}
				comp, err := c.newCompressor(size)
				if err != nil {
					b.Fatal(err)
				}
				src := []byte(imagetest.Text(1, size))
				dst := make([]byte, 0, 2*size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := comp.compress(dst, src); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestMetadataSpills writes more metadata than is kept in memory.
func TestMetadataSpills(t *testing.T) {
	s := &spill{dir: t.TempDir()}
	defer s.close()
	var want []byte
	for i := range uint64(40) {
		p := []byte(imagetest.Noise(i, 1<<20-7))
		want = append(want, p...)
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if s.file == nil {
		t.Fatal("40 MiB are still in memory")
	}
	var got sink
	if err := s.copyTo(&got); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%d bytes came back, of %d, or not the same", len(got), len(want))
	}
}

type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}
