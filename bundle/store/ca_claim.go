package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// CheckCA returns nil if the path has no content address, or one from which it
// follows. No signature covers the address, and Nix refuses to read a database
// with one that it cannot parse, and to copy a path with another's. So it is an
// error that wraps [ErrBadCA]. Unlike [PathInfo.Certified] it knows every hash
// of Nix's, and says nothing of the contents.
func (i *PathInfo) CheckCA() error {
	if i.CA == "" {
		return nil
	}
	path, err := i.claimedPath()
	if err != nil {
		return err
	}
	if path != i.Path {
		return fmt.Errorf("%w: from %q follows %s, not %s", ErrBadCA, clip(i.CA), path, i.Path)
	}
	return nil
}

// claimedPath is the store path that follows from the content address
// (makeFixedOutputPath in Nix's src/libstore/store-dir-config.cc).
func (i *PathInfo) claimedPath() (Path, error) {
	fixed, ok := strings.CutPrefix(i.CA, "fixed:")
	if _, err := ParseCA(i.CA); err == nil || !ok {
		return i.CAPath()
	}
	method := ""
	for _, m := range []string{"r:", "git:"} {
		if rest, ok := strings.CutPrefix(fixed, m); ok {
			method, fixed = m, rest
			break
		}
	}
	algorithm, text, _ := strings.Cut(fixed, ":")
	digest, err := decodeDigest(algorithm, text)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", ErrBadCA, clip(i.CA), err)
	}
	if len(i.References) > 0 {
		return "", fmt.Errorf("%w: %q cannot go with references", ErrBadCA, clip(i.CA))
	}
	inner := sha256.Sum256([]byte("fixed:out:" + method + algorithm + ":" + hex.EncodeToString(digest) + ":"))
	return makePath("output:out", inner, i.Path.Name()), nil
}

// decodeDigest reads a digest of any of Nix's algorithms, in base 16, Nix's
// base 32 or base 64.
func decodeDigest(algorithm, text string) ([]byte, error) {
	sizes := map[string]int{"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "blake3": 32}
	size, ok := sizes[algorithm]
	if !ok {
		return nil, fmt.Errorf("%q is no hash of Nix's", clip(algorithm))
	}
	switch len(text) {
	case hex.EncodedLen(size):
		return hex.DecodeString(text)
	case base64.StdEncoding.EncodedLen(size):
		return base64.StdEncoding.Strict().DecodeString(text)
	}
	return decodeBase32(text, size)
}
