package rawtar_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"bigdisk/gcp/rawtar"
	"bigdisk/image/imagetest"
)

// BenchmarkWrite makes archives of 64 MiB of data that stands for a squashfs
// image, an ext4 image, and a disk's empty end; and of the image that the
// environment variable BIGDISK_BENCH_IMAGE names, if there is one.
func BenchmarkWrite(b *testing.B) {
	const size = 64 * mib
	noise := make([]byte, size)
	rand.NewChaCha8([32]byte{9}).Read(noise)
	for name, image := range map[string][]byte{
		"noise": noise, "text": []byte(imagetest.Text(1, size)), "zeros": make([]byte, size),
	} {
		b.Run(name, func(b *testing.B) {
			a := archive(b, image, rawtar.Options{})
			b.SetBytes(size)
			for b.Loop() {
				if err := a.Write(b.Context(), io.Discard, runtime.GOMAXPROCS(0)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("image", benchImage)
}

func benchImage(b *testing.B) {
	name := os.Getenv("BIGDISK_BENCH_IMAGE")
	if name == "" {
		b.Skip("BIGDISK_BENCH_IMAGE names no image")
	}
	a, err := rawtar.Open(name, rawtar.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	b.SetBytes(a.ImageSize())
	for b.Loop() {
		if err := a.Write(b.Context(), io.Discard, runtime.GOMAXPROCS(0)); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzPart makes archives of images put together from pieces of every kind, in
// memory and in a file with holes, and reads them.
func FuzzPart(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4}, uint16(0))
	f.Add([]byte{1, 1, 1, 0, 0, 0, 2, 2, 1}, uint16(7))
	f.Add([]byte{3, 0, 3, 0, 1, 4, 1, 2}, uint16(65_535))
	kinds := [5][]byte{make([]byte, 128<<10), make([]byte, 128<<10), []byte(imagetest.Text(2, 128<<10)), {0}, make([]byte, 128<<10)}
	rand.NewChaCha8([32]byte{4}).Read(kinds[1])
	for i := range kinds[4] {
		kinds[4][i] = kinds[1][i] & 0x3f // uneven, between noise and text
	}
	f.Fuzz(func(t *testing.T, order []byte, cut uint16) {
		if len(order) == 0 || len(order) > 40 {
			return
		}
		var image []byte
		for _, k := range order {
			image = append(image, kinds[int(k)%len(kinds)]...)
		}
		image = image[:max(1, len(image)-int(cut))]
		opts := rawtar.Options{PartSize: mib, Level: 1}
		packed := write(t, archive(t, image, opts), 1)
		if !bytes.Equal(packed, write(t, openFile(t, image, true, opts), 2)) {
			t.Error("a file with holes gives other bytes")
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 512+len(image)) // not the padding, for it takes long
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got[512:], image) {
			t.Errorf("it does not unpack to the image: %v", err)
		}
	})
}
