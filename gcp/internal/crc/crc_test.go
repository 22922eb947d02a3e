package crc_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"bigdisk/gcp/internal/crc"
)

var polynomials = map[string]uint32{"IEEE": crc32.IEEE, "Castagnoli": crc32.Castagnoli}

func TestJoin(t *testing.T) {
	data := make([]byte, 70_001)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for name, poly := range polynomials {
		table := crc32.MakeTable(poly)
		whole := crc32.Checksum(data, table)
		for _, at := range []int{0, 1, 2, 255, 4096, 65_535, 65_536, 70_000, 70_001} {
			a, b := data[:at], data[at:]
			if got := crc.Join(poly, crc32.Checksum(a, table), crc32.Checksum(b, table), int64(len(b))); got != whole {
				t.Errorf("%s: joined at %d: %08x, want %08x", name, at, got, whole)
			}
		}
	}
}

func TestZeros(t *testing.T) {
	for name, poly := range polynomials {
		table := crc32.MakeTable(poly)
		for _, n := range []int{0, 1, 3, 512, 65_536, 1<<20 + 7} {
			if got, want := crc.Zeros(poly, int64(n)), crc32.Checksum(make([]byte, n), table); got != want {
				t.Errorf("%s: %d zeros: %08x, want %08x", name, n, got, want)
			}
		}
	}
	// Far beyond what could be summed byte by byte: halves must make a whole.
	const tebi = int64(1) << 40
	half := crc.Zeros(crc32.Castagnoli, 32*tebi)
	if got, want := crc.Join(crc32.Castagnoli, half, half, 32*tebi), crc.Zeros(crc32.Castagnoli, 64*tebi); got != want {
		t.Errorf("64 TiB of zeros: %08x from halves, %08x at once", got, want)
	}
}

func FuzzJoin(f *testing.F) {
	f.Add([]byte("a"), []byte("b"))
	f.Add([]byte(""), []byte("only the second"))
	f.Add(make([]byte, 300), []byte{0})
	table := crc32.MakeTable(crc32.Castagnoli)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got := crc.Join(crc32.Castagnoli, crc32.Checksum(a, table), crc32.Checksum(b, table), int64(len(b)))
		if want := crc32.Update(crc32.Checksum(a, table), table, b); got != want {
			t.Errorf("%08x, want %08x", got, want)
		}
	})
}

func ExampleJoin() {
	a, b := []byte("disk."), []byte("raw")
	joined := crc.Join(crc32.IEEE, crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), int64(len(b)))
	fmt.Println(joined == crc32.ChecksumIEEE([]byte("disk.raw")))
	// Output: true
}
