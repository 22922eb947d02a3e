// Package universal hashes blocks of files to tell whether they are the same,
// at memory speed: the image writers look at every byte to store identical
// files once, and a hash like SHA-256 would cost them more than the writing.
package universal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
)

// TagSize is the length of a tag in bytes.
const TagSize = 16

// Hash makes tags: GMAC under a key that is drawn anew by each [New] and that
// nobody gets to know.
//
// Under such a key GMAC is a universal hash: two different blocks of up to 1
// MiB have the same tag with a probability of at most 2^-112, whoever made
// them, as long as no tag gets out of the program. So tags are for comparing,
// within one run; nothing that is written may depend on them. A Hash must not
// be used by two goroutines at once.
type Hash struct {
	mac   cipher.AEAD
	nonce []byte // always the same: the tags are secret
}

// New draws a key.
func New() (*Hash, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("drawing a key: %w", err)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("keying AES: %w", err)
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making GMAC: %w", err)
	}
	return &Hash{mac: mac, nonce: make([]byte, mac.NonceSize())}, nil
}

// Append appends the tag of a block to tags.
func (h *Hash) Append(tags, block []byte) []byte { return h.mac.Seal(tags, h.nonce, nil, block) }
