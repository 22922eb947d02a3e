package ext4

import (
	"testing"

	"bigdisk/image/internal/treegen"
)

// TestContentHash wants equal digests for equal files only, under keys that
// differ, and checksums that do not depend on the key.
func TestContentHash(t *testing.T) {
	type content struct {
		seed   uint64
		blocks int64
		at     int64
		size   int64
		exec   bool
	}
	contents := []content{
		{1, 2, 0, 8192, false}, {2, 2, 0, 8192, false}, {1, 1, 0, 8192, false}, {1, 2, 1, 8192, false},
		{1, 2, 0, 8191, false}, {1, 2, 0, 8192, true}, {1, 0, 0, 0, false}, {1, 0, 0, 0, true}, {1, 0, 0, 8192, false},
	}
	digests := map[contentDigest]content{}
	sums := map[uint32]content{}
	for range 2 {
		h, err := newContentHash()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range contents {
			var runs list[extent]
			if c.blocks > 0 {
				runs.add(newExtent(c.at, 100, c.blocks))
			}
			digest := func() (contentDigest, uint32) {
				h.reset()
				treegen.Noise(c.blocks*blockSize, c.seed*2).WriteTo(blockSink{h})
				return h.end(&runs, 0, c.size, c.exec)
			}
			d, crc := digest()
			if again, _ := digest(); again != d {
				t.Errorf("%+v has two digests", c)
			}
			if other, ok := digests[d]; ok && (other != c || c.blocks > 0) {
				t.Errorf("%+v and %+v have the same digest", c, other)
			}
			if other, ok := sums[crc]; ok && other != c {
				t.Errorf("%+v and %+v have the same checksum", c, other)
			}
			digests[d], sums[crc] = c, c
		}
	}
	if len(sums) != len(contents) {
		t.Errorf("%d checksums of %d contents", len(sums), len(contents))
	}
}

type blockSink struct{ h *contentHash }

func (s blockSink) Write(p []byte) (int, error) {
	s.h.write(p)
	return len(p), nil
}

func TestDigestTable(t *testing.T) {
	var table digestTable
	const n = 5000
	key := func(i int) *contentDigest { return &contentDigest{byte(i), byte(i >> 8), 0, 0, 7} }
	for round := range 2 {
		for i := range n {
			ino := table.find(key(i))
			if want := uint32(i * round); *ino != want {
				t.Fatalf("%d: inode %d, not %d", i, *ino, want)
			}
			*ino = uint32(i)
		}
	}
}

// TestRewind takes files back that end in the batch they began in, in a later
// one, and at a batch's border; nothing stale may stay.
func TestRewind(t *testing.T) {
	var items []treegen.Item
	sizes := []int64{1, blockSize, batchData - blockSize, batchData, batchData + 1, 3*batchData + 5}
	for i, name := range "abcdefghijklmnopqrstuvwx" {
		data := treegen.Noise(sizes[i%len(sizes)], uint64(2*(i%len(sizes))))
		items = append(items, treegen.File(string(name), data))
	}
	tree := treegen.Of(items...)
	path, layout := build(t, tree, smallImage)
	if want := int64(1 + blockSize + 6*batchData - blockSize + 6); layout.UniqueBytes != want {
		t.Errorf("%d unique bytes, not %d", layout.UniqueBytes, want)
	}
	fsck(t, path)
	checkMounted(t, path, tree, 1)
	once := treegen.Of(items[:len(sizes)]...)
	_, alone := build(t, once, smallImage)
	if layout.Size != alone.Size {
		t.Errorf("%d bytes with each file four times, %d with each once", layout.Size, alone.Size)
	}
}
