package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Hash is a SHA-256 digest. It is the only algorithm that Nix uses for NAR
// hashes; a narinfo with another one is refused.
type Hash [sha256.Size]byte

// ErrBadHash is wrapped by every error of [ParseHash].
var ErrBadHash = errors.New("not a SHA-256 hash")

// base32Chars is Nix's alphabet: no e, o, u, t.
const base32Chars = "0123456789abcdfghijklmnpqrsvwxyz"

// base32Len is the length of a SHA-256 digest in Nix's base 32.
const base32Len = (sha256.Size*8-1)/5 + 1

// ParseHash reads "sha256:" followed by base 16, Nix's base 32 or base 64, or
// the SRI form "sha256-" with base 64.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if digest, ok := strings.CutPrefix(s, "sha256-"); ok {
		return h, h.decodeBase64(digest)
	}
	digest, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return h, fmt.Errorf("%w: %q does not start with sha256:", ErrBadHash, clip(s))
	}
	switch len(digest) {
	case hex.EncodedLen(len(h)):
		if _, err := hex.Decode(h[:], []byte(digest)); err != nil {
			return h, fmt.Errorf("%w: %q: %w", ErrBadHash, digest, err)
		}
		return h, nil
	case base32Len:
		return h, h.decodeBase32(digest)
	default:
		return h, h.decodeBase64(digest)
	}
}

func (h *Hash) decodeBase64(s string) error {
	if len(s) != base64.StdEncoding.EncodedLen(len(h)) {
		return fmt.Errorf("%w: %q has the wrong length", ErrBadHash, clip(s))
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%w: %q is not base 64", ErrBadHash, s)
	}
	copy(h[:], b)
	return nil
}

func (h *Hash) decodeBase32(s string) error {
	b, err := decodeBase32(s, len(h))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadHash, err)
	}
	copy(h[:], b)
	return nil
}

// Base16 returns the digest in lower-case hexadecimal, with no prefix.
func (h Hash) Base16() string { return hex.EncodeToString(h[:]) }

// Base32 returns the digest in Nix's base 32, with no prefix.
func (h Hash) Base32() string { return EncodeBase32(h[:]) }

// String returns "sha256:" and the digest in Nix's base 32, as narinfos and
// fingerprints write it.
func (h Hash) String() string { return "sha256:" + h.Base32() }

// IsZero reports whether the hash was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText writes the form of [Hash.String].
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads every form that [ParseHash] does.
func (h *Hash) UnmarshalText(text []byte) error {
	v, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = v
	return nil
}

// EncodeBase32 writes b as Nix does (libutil's printHash32): the alphabet
// without e, o, u, t, least significant five bits last.
func EncodeBase32(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	n := (len(b)*8-1)/5 + 1
	out := make([]byte, n)
	for i := range n {
		bit := (n - 1 - i) * 5
		at, shift := bit/8, bit%8
		v := uint(b[at]) >> shift
		if at+1 < len(b) {
			v |= uint(b[at+1]) << (8 - shift)
		}
		out[i] = base32Chars[v&31]
	}
	return string(out)
}

// decodeBase32 reads exactly size bytes of Nix's base 32.
func decodeBase32(s string, size int) ([]byte, error) {
	if len(s) != (size*8-1)/5+1 {
		return nil, fmt.Errorf("%q has the wrong length for base 32", clip(s))
	}
	out := make([]byte, size)
	for i := range len(s) {
		v := base32Value(s[len(s)-1-i])
		if v < 0 {
			return nil, fmt.Errorf("%q has %q, which Nix's base 32 does not", s, s[len(s)-1-i])
		}
		at, shift := i*5/8, i*5%8
		out[at] |= byte(v << shift)
		carry := byte(v >> (8 - shift))
		if at+1 < size {
			out[at+1] |= carry
		} else if carry != 0 {
			return nil, fmt.Errorf("%q has bits past its end", s)
		}
	}
	return out, nil
}

func base32Value(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'd':
		return int(c-'a') + 10
	case 'f' <= c && c <= 'n':
		return int(c-'f') + 14
	case 'p' <= c && c <= 's':
		return int(c-'p') + 23
	case 'v' <= c && c <= 'z':
		return int(c-'v') + 27
	}
	return -1
}
