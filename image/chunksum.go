package image

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// ChunkSums are the SHA-256s of an image's chunks, in order; see [Digest]. As
// text they are one base64 string.
type ChunkSums []HexSHA256

// chunkSumsPart is how many sums a manifest has in one string: those of 16 GiB.
const chunkSumsPart = 4096

// Digest is the image's SHA-256 by chunks.
func (s ChunkSums) Digest() HexSHA256 {
	h := sha256.New()
	for i := range s {
		h.Write(s[i][:])
	}
	return HexSHA256(h.Sum(nil))
}

// Parts cuts the sums as a manifest has them.
func (s ChunkSums) Parts() []ChunkSums {
	var parts []ChunkSums
	for len(s) > 0 {
		n := min(len(s), chunkSumsPart)
		parts = append(parts, s[:n:n])
		s = s[n:]
	}
	return parts
}

// MarshalText writes base64.
func (s ChunkSums) MarshalText() ([]byte, error) {
	raw := make([]byte, 0, len(s)*len(HexSHA256{}))
	for i := range s {
		raw = append(raw, s[i][:]...)
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

// UnmarshalText reads base64 of whole sums.
func (s *ChunkSums) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("chunk sums: %w", err)
	}
	const size = len(HexSHA256{})
	if len(raw)%size != 0 {
		return fmt.Errorf("chunk sums of %d bytes are not whole sums of %d", len(raw), size)
	}
	*s = make(ChunkSums, len(raw)/size)
	for i := range *s {
		copy((*s)[i][:], raw[i*size:])
	}
	return nil
}

// ChunkSums are the SHA-256s of the image's chunks; nil if the manifest has
// none.
func (m *Manifest) ChunkSums() ChunkSums {
	var all ChunkSums
	for _, part := range m.Chunks {
		all = append(all, part...)
	}
	return all
}

// validateChunks wants the chunks' sums, if there are any, to make the image's.
func (m *Manifest) validateChunks() error {
	if m.Chunks == nil {
		return nil
	}
	sums := m.ChunkSums()
	if m.Image.Chunk <= 0 || int64(len(sums)) != (m.Image.Size-1)/m.Image.Chunk+1 {
		return fmt.Errorf("chunks: %d sums of an image of %d bytes", len(sums), m.Image.Size)
	}
	if sums.Digest() != m.Image.SHA256 {
		return fmt.Errorf("chunks: their sums do not make the image's sha256")
	}
	return nil
}
