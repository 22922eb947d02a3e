package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/zeebo/blake3"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
)

// TestDigest makes the digest as the README says that it can be made.
func TestDigest(t *testing.T) {
	const path = "/nix/store/00000000000000000000000000000000-a"
	m := &image.Manifest{Paths: []image.ManifestPath{
		{Path: path, NarHash: store.Hash{1}, DataSum: &image.DataSum{2}},
		{Path: path + "b", NarHash: store.Hash{3}},
	}}
	m.Image.Size = 12345
	m.Image.Metadata = image.ManifestMetadata{Extents: []image.Extent{{Offset: 0, Length: 96}, {Offset: 500, Length: 7}}, SHA256: image.HexSHA256{4}}
	lines := fmt.Sprintf("size 12345\nmetadata 0 96\nmetadata 500 7\nmetadata sha256 04%062d\n", 0) +
		fmt.Sprintf("%s %s 02%062d\n%sb %s -\n", path, store.Hash{1}, 0, path, store.Hash{3})
	if want := image.HexSHA256(sha256.Sum256([]byte(lines))); m.Digest() != want {
		t.Errorf("%s, not %s, of\n%s", m.Digest(), want, lines)
	}
}

// TestHashExtents hashes ranges as one.
func TestHashExtents(t *testing.T) {
	data := []byte(imagetest.Noise(1, 3<<20+77))
	extents := []image.Extent{{Offset: 2<<20 - 5, Length: 1<<20 + 50}, {Offset: 0, Length: 99}, {Offset: 3 << 20, Length: 77}}
	var all []byte
	for _, x := range extents {
		all = append(all, data[x.Offset:x.Offset+x.Length]...)
	}
	var done int64
	add := func(n int64) { done += n }
	got, err := image.HashExtents(t.Context(), bytes.NewReader(data), extents, add)
	if want := image.HexSHA256(sha256.Sum256(all)); err != nil || got != want || done != int64(len(all)) {
		t.Errorf("%s, %d bytes, %v; want %s, %d", got, done, err, want, len(all))
	}
	files := image.FileSums{{1}, {2}}
	for i := range files {
		all = append(all, files[i][:]...)
	}
	sum, err := image.SumData(t.Context(), bytes.NewReader(data), extents, files, add)
	if want := image.DataSum(blake3.Sum256(all)); err != nil || sum != want {
		t.Errorf("%s, %v; want %s", sum, err, want)
	}
}

func TestHashExtentsFails(t *testing.T) {
	short, all := bytes.NewReader(make([]byte, 99)), []image.Extent{{Length: 99}}
	none := func(int64) {}
	if _, err := image.HashExtents(t.Context(), short, []image.Extent{{Length: 100}}, none); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an image that is too short: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := image.HashExtents(ctx, short, all, none); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled hash: %v", err)
	}
	if _, err := image.SumData(ctx, short, all, nil, none); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled sum: %v", err)
	}
}
