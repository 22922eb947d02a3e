package store

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// CacheNixOSOrgKey is the public key of cache.nixos.org, which Nix trusts
// unless told otherwise.
const CacheNixOSOrgKey = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

// ErrBadKey is wrapped by every error of [ParsePublicKey].
var ErrBadKey = errors.New("not a public key")

// ErrUntrusted is wrapped by every error of [Keys.Check].
var ErrUntrusted = errors.New("no signature by a trusted key")

// PublicKey may vouch for path infos. Make one with [ParsePublicKey].
type PublicKey struct {
	name string
	key  ed25519.PublicKey
}

// ParsePublicKey reads "NAME:BASE64", the form of nix-store
// --generate-binary-cache-key and of trusted-public-keys: an Ed25519 key.
func ParsePublicKey(s string) (PublicKey, error) {
	name, encoded, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return PublicKey{}, fmt.Errorf("%w: %q is not NAME:BASE64", ErrBadKey, clip(s))
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: the part of %q after the colon is not base 64", ErrBadKey, clip(s))
	}
	if len(key) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("%w: %q holds %d bytes, an Ed25519 key has %d", ErrBadKey, clip(s), len(key), ed25519.PublicKeySize)
	}
	return PublicKey{name: name, key: key}, nil
}

// Name is the key's name, which signatures by it start with.
func (k PublicKey) Name() string { return k.name }

// String returns the form that [ParsePublicKey] reads.
func (k PublicKey) String() string {
	return k.name + ":" + base64.StdEncoding.EncodeToString(k.key)
}

// Verify reports whether one of the info's signatures is a good one by k.
func (k PublicKey) Verify(info *PathInfo) bool {
	return k.verify(info.Sigs, []byte(info.Fingerprint()))
}

// verify looks among sigs for a good one. What is not a signature at all is
// passed over.
func (k PublicKey) verify(sigs []string, fingerprint []byte) bool {
	for _, s := range sigs {
		name, encoded, ok := strings.Cut(s, ":")
		if !ok || name != k.name || len(k.key) != ed25519.PublicKeySize {
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil && ed25519.Verify(k.key, fingerprint, sig) {
			return true
		}
	}
	return false
}

// Keys are the keys that may vouch for path infos. Several may have one name.
type Keys []PublicKey

// ParseKeys reads each string with [ParsePublicKey].
func ParseKeys(list []string) (Keys, error) {
	var keys Keys
	for _, s := range list {
		k, err := ParsePublicKey(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Check returns nil if at least one of the info's signatures is a good one by
// one of the keys: what Nix asks of a path that is not content-addressed. Its
// error says who signed the path and who is trusted, and wraps [ErrUntrusted];
// the path is the caller's to name.
// For paths that need no signature see [PathInfo.Certified].
func (ks Keys) Check(info *PathInfo) error {
	fingerprint := []byte(info.Fingerprint())
	for _, k := range ks {
		if k.verify(info.Sigs, fingerprint) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s; trusted: %s", ErrUntrusted, ks.explain(info.Sigs), list(ks.names()))
}

// explain says who signed, and which of the signatures should have been good.
func (ks Keys) explain(sigs []string) string {
	trusted := ks.names()
	var signers, bad []string
	for _, s := range sigs {
		name, _, _ := strings.Cut(s, ":")
		if slices.Contains(trusted, name) {
			bad = append(bad, clip(name))
		} else {
			signers = append(signers, clip(name))
		}
	}
	switch {
	case len(bad) > 0:
		return "the signature by " + list(bad) + " does not match the path's info"
	case len(signers) > 0:
		return "it is signed by " + list(signers)
	}
	return "it is not signed"
}

func (ks Keys) names() []string {
	var names []string
	for _, k := range ks {
		names = append(names, k.name)
	}
	return names
}

// list writes the distinct names, the first few of many.
func list(names []string) string {
	const most = 8
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
