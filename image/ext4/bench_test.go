package ext4

import (
	"testing"

	"bigdisk/image/internal/treegen"
)

// benchTree measures entries and bytes, without a disk.
func benchTree(b *testing.B, tree treegen.Tree, bytes int64) {
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := write(discard{}, tree, smallImage); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPaths writes a store of 20,000 paths, most of them without data.
func BenchmarkPaths(b *testing.B) { benchTree(b, treegen.Store(20_000), 0) }

// BenchmarkIndex writes a directory of 100,000 names.
func BenchmarkIndex(b *testing.B) { benchTree(b, treegen.LongNames("long", 100_000), 0) }

// BenchmarkData writes 64 MiB of one file; what makes the bytes takes part.
func BenchmarkData(b *testing.B) {
	benchTree(b, treegen.Of(treegen.File("a", treegen.Noise(64<<20, 1))), 64<<20)
}

// BenchmarkHoles writes 64 MiB of zero bytes as bytes.
func BenchmarkHoles(b *testing.B) {
	zeros := make([]byte, 1<<20)
	b.SetBytes(64 << 20)
	for b.Loop() {
		w, err := NewWriter(b.Context(), discard{}, smallImage)
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Create(file("a", 64<<20)); err != nil {
			b.Fatal(err)
		}
		for range 64 {
			if _, err := w.Write(zeros); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
