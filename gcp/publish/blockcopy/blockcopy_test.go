package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// file makes a file of so many bytes with data at the places.
func file(t testing.TB, name string, size int64, data map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, b := range data {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = c.Read(b) // never fails
	return b
}

func contents(t testing.TB, f *os.File, size int64) []byte {
	t.Helper()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

// TestCopy: the device equals the image up to the image's end, and what was
// right is not written.
func TestCopy(t *testing.T) {
	const size = 3*pieceSize + 12345
	src := file(t, "image", size, map[int64][]byte{0: noise(1, 100_000), pieceSize - 50: noise(2, 200), 2*pieceSize + 7: noise(3, 300_000), size - 9: noise(4, 9)})
	for name, test := range map[string]struct {
		before map[int64][]byte
		most   int64 // bytes written
	}{
		"blank":      {nil, 700_000},
		"full":       {map[int64][]byte{0: noise(9, size+blockSize)}, size},
		"one change": {map[int64][]byte{0: noise(1, 100_000), pieceSize - 50: noise(2, 200), 2*pieceSize + 7: noise(3, 300_000), size - 9: noise(4, 9), 3 * pieceSize: []byte("x")}, blockSize},
	} {
		t.Run(name, func(t *testing.T) {
			dst := file(t, "device", size+blockSize, test.before)
			tail := contents(t, dst, size+blockSize)[size:]
			var seen atomic.Int64
			stats, err := Copy(t.Context(), dst, src, size, 3, func(n int64) { seen.Add(n) })
			if err != nil {
				t.Fatal(err)
			}
			got := contents(t, dst, size+blockSize)
			if !bytes.Equal(got[:size], contents(t, src, size)) || !bytes.Equal(got[size:], tail) {
				t.Error("the device does not equal the image, or was changed past it")
			}
			if stats.Same+stats.Written != size || seen.Load() != size || stats.Written > test.most || stats.Written == 0 {
				t.Errorf("%+v of %d, at most %d to be written, %d told", stats, size, test.most, seen.Load())
			}
			if stats, err := Copy(t.Context(), dst, src, size, 1, nil); err != nil || stats.Written != 0 {
				t.Errorf("again: %+v %v", stats, err)
			}
		})
	}
}

// TestRandom holds copies of random images to random devices against the images.
func TestRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		size := 1 + r.Int64N(2*pieceSize)
		scatter := func() map[int64][]byte {
			data := make(map[int64][]byte)
			for range r.IntN(20) {
				at := r.Int64N(size)
				data[at] = noise(r.Uint64N(5), int(min(size-at, r.Int64N(3*blockSize))))
			}
			return data
		}
		src, dst := file(t, "image", size, scatter()), file(t, "device", size+r.Int64N(100), scatter())
		if _, err := Copy(t.Context(), dst, src, size, 2, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(contents(t, dst, size), contents(t, src, size)) {
			t.Fatalf("copy %d of %d bytes differs", i, size)
		}
	}
}

func TestRefused(t *testing.T) {
	src := file(t, "image", 1000, nil)
	if _, err := Copy(t.Context(), file(t, "small", 999, nil), src, 1000, 1, nil); err == nil || !strings.Contains(err.Error(), "has 999 bytes, and the image has 1000") {
		t.Errorf("a device too small: %v", err)
	}
	if _, err := Copy(t.Context(), file(t, "device", 3000, nil), file(t, "short", 1000, map[int64][]byte{0: noise(1, 1000)}), 2000, 1, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an image that has become shorter: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Copy(ctx, file(t, "device", 1000, nil), src, 1000, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestOpen: the device may appear late, or never.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "google-svc-v1")
	if _, err := Open(t.Context(), path, 0); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "did not appear in 0s") {
		t.Errorf("got %v", err)
	}
	late := time.AfterFunc(50*time.Millisecond, func() { _ = os.WriteFile(path, []byte("x"), 0o666) })
	defer late.Stop()
	f, err := Open(t.Context(), path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, path+"x", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkSame copies what is there already, from the page cache: what finding
// that out costs.
func BenchmarkSame(b *testing.B) {
	const size = 64 << 20
	data := map[int64][]byte{0: noise(1, size)}
	src, dst := file(b, "image", size, data), file(b, "device", size, data)
	b.SetBytes(size)
	for b.Loop() {
		if stats, err := Copy(b.Context(), dst, src, size, 2, nil); err != nil || stats.Written != 0 {
			b.Fatal(stats, err)
		}
	}
}

func ExampleCopy() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image, device := filepath.Join(dir, "image"), filepath.Join(dir, "device")
	_ = os.WriteFile(image, []byte("a new version"), 0o666)
	_ = os.WriteFile(device, []byte("an old version, and more"), 0o666)
	src, _ := os.Open(image)
	defer src.Close()
	dst, _ := os.OpenFile(device, os.O_RDWR, 0)
	defer dst.Close()
	for range 2 {
		stats, err := Copy(context.Background(), dst, src, 13, 1, nil)
		fmt.Println(stats.Same, stats.Written, err)
	}
	// Output:
	// 0 13 <nil>
	// 13 0 <nil>
}
