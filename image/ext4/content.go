package ext4

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"bigdisk/image/internal/universal"
)

// contentHash tells files apart while their blocks pass by, three times as
// fast as SHA-256 alone would: each block gets a tag, and the tags go through
// SHA-256. Digests only decide which files are the same; what an image's
// identity needs of the contents is a CRC-32C.
type contentHash struct {
	block *universal.Hash
	tags  []byte
	sum   hash.Hash
	crc   uint32
}

// contentDigest is the first half of a SHA-256.
type contentDigest [16]byte

func newContentHash() (*contentHash, error) {
	block, err := universal.New()
	if err != nil {
		return nil, err
	}
	h := &contentHash{block: block, sum: sha256.New()}
	h.reset()
	return h, nil
}

func (h *contentHash) reset() {
	h.sum.Reset()
	h.crc = ^uint32(0)
}

// write takes blocks of a file.
func (h *contentHash) write(p []byte) {
	h.crc = crc32c(h.crc, p)
	h.tags = h.tags[:0]
	for ; len(p) > 0; p = p[blockSize:] {
		h.tags = h.block.Append(h.tags, p[:blockSize])
	}
	h.sum.Write(h.tags)
}

// end takes what else makes a file what it is: where in the file its blocks
// are, how many such runs there are, its size and its executable bit. Read
// from its end, that and the blocks can mean one file only. It returns what
// identical files share, and the checksum of the same.
func (h *contentHash) end(runs *list[extent], first int, size int64, exec bool) (digest contentDigest, crc uint32) {
	le := binary.LittleEndian
	text := h.tags[:0]
	for i := first; i < runs.n; i++ {
		run := runs.at(i)
		text = le.AppendUint32(text, run.block)
		text = le.AppendUint16(text, run.len)
	}
	text = le.AppendUint64(text, uint64(runs.n-first))
	text = le.AppendUint64(text, uint64(size))
	if exec {
		text = append(text, 1)
	} else {
		text = append(text, 0)
	}
	h.tags = text
	h.sum.Write(text)
	var sum [sha256.Size]byte
	h.sum.Sum(sum[:0])
	return contentDigest(sum[:len(digest)]), crc32c(h.crc, text)
}
