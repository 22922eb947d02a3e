package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"bigdisk/image"
	"bigdisk/image/imagetest"
)

// plainDigest is the definition, without anything clever.
func plainDigest(data []byte, chunk int) image.HexSHA256 {
	if chunk == 0 {
		return sha256.Sum256(data)
	}
	h := sha256.New()
	for len(data) > 0 {
		n := min(chunk, len(data))
		sum := sha256.Sum256(data[:n])
		h.Write(sum[:])
		data = data[n:]
	}
	return image.HexSHA256(h.Sum(nil))
}

// TestDigest hashes a sparse file with data at both ends of its hole.
func TestDigest(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sparse")
	const size = 40<<20 + 4321
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{5, 36<<20 - 3} {
		if _, err := f.WriteAt([]byte(imagetest.Noise(uint64(at), 100)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []int{0, 1 << 20, image.ChunkSize, 64 << 20} {
		for _, jobs := range []int{1, 7} {
			for kind, r := range map[string]io.ReaderAt{"file": f, "reader": bytes.NewReader(data)} {
				var done atomic.Int64
				got, err := image.Digest(t.Context(), r, size, int64(chunk), jobs, func(n int64) { done.Add(n) })
				if want := plainDigest(data, chunk); err != nil || got != want {
					t.Errorf("%s in chunks of %d: %s, want %s (%v)", kind, chunk, got, want, err)
				}
				if done.Load() != size {
					t.Errorf("%s in chunks of %d: %d of %d bytes are reported", kind, chunk, done.Load(), size)
				}
			}
		}
	}
}

func TestDigestFails(t *testing.T) {
	none := func(int64) {}
	short := bytes.NewReader(make([]byte, 99))
	for _, chunk := range []int64{0, 10} {
		if _, err := image.Digest(t.Context(), short, 100, chunk, 2, none); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a file that is too short, in chunks of %d: %v", chunk, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := image.Digest(ctx, short, 99, chunk, 2, none); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled digest in chunks of %d: %v", chunk, err)
		}
	}
	if _, err := image.Digest(t.Context(), short, 1<<62, 1, 2, none); err == nil {
		t.Error("2^62 chunks are accepted")
	}
}

// TestChunks wants the sums of chunks to make the digest, to go through a
// manifest's text, and known ones not to be read.
func TestChunks(t *testing.T) {
	data := []byte(imagetest.Noise(1, 1<<20+77))
	const chunk = 4096
	none := func(int64) *image.HexSHA256 { return nil }
	sums, err := image.SumChunks(t.Context(), bytes.NewReader(data), int64(len(data)), chunk, 3, none, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	want := plainDigest(data, chunk)
	if sums.Digest() != want {
		t.Errorf("%s, not %s", sums.Digest(), want)
	}
	var again image.ChunkSums
	text, err := sums.MarshalText()
	if err := errors.Join(err, again.UnmarshalText(text)); err != nil || again.Digest() != want {
		t.Errorf("after going through text: %v", err)
	}
	if err := again.UnmarshalText(text[:44]); err == nil {
		t.Error("half a sum was read")
	}
	odd := func(i int64) *image.HexSHA256 {
		if i%2 == 0 {
			return nil
		}
		clear(data[i*chunk : min((i+1)*chunk, int64(len(data)))])
		return &sums[i]
	}
	got, err := image.SumChunks(t.Context(), bytes.NewReader(data), int64(len(data)), chunk, 3, odd, func(int64) {})
	if err != nil || got.Digest() != want {
		t.Errorf("with every other chunk known: %v", err)
	}
	parts := make(image.ChunkSums, 10_000).Parts()
	if len(parts) != 3 || len(parts[0]) != 4096 || len(parts[2]) != 10_000-8192 {
		t.Errorf("%d parts", len(parts))
	}
}
