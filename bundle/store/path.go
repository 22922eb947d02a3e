// Package store holds the words of a Nix store that every other package
// speaks: store paths, hashes, path infos and the entries of a path's tree.
//
// It imports nothing of bigdisk, so bundle, image and gcp can share it without
// knowing each other.
package store

import (
	"errors"
	"fmt"
	"strings"
)

// Dir is the logical store directory. Store paths with another one are
// refused: the hash in a store path depends on it.
const Dir = "/nix/store"

// DigestLen is the number of base-32 characters before the name in a store path.
const DigestLen = 32

// MaxNameLen is the longest name Nix accepts in a store path, in bytes.
const MaxNameLen = 211

// ErrBadPath is wrapped by every error of [ParsePath].
var ErrBadPath = errors.New("not a store path")

// Path is a validated absolute store path, /nix/store/DIGEST-NAME, without
// anything below it. Make one with [ParsePath] or [ParseBase] and trust it
// after. It works as a map key and sorts as its string does.
type Path string

// ParsePath checks s as Nix does: the store directory, 32 characters of Nix's
// base 32, a dash, and a name of 1 to 211 characters of [0-9a-zA-Z+._?=-] that
// is not "." or ".." nor starts with ".-" or "..-".
func ParsePath(s string) (Path, error) {
	base, ok := strings.CutPrefix(s, Dir+"/")
	if !ok {
		return "", fmt.Errorf("%w: %q is not in %s", ErrBadPath, clip(s), Dir)
	}
	if err := checkBase(base); err != nil {
		return "", err
	}
	return Path(s), nil
}

// ParseBase checks the last component of a store path, as narinfos write it.
func ParseBase(base string) (Path, error) {
	if err := checkBase(base); err != nil {
		return "", err
	}
	return Path(Dir + "/" + base), nil
}

func checkBase(base string) error {
	if len(base) < DigestLen+2 || base[DigestLen] != '-' {
		return fmt.Errorf("%w: %q has no 32-character digest and name", ErrBadPath, clip(base))
	}
	for i := range DigestLen {
		if !digestByte(base[i]) {
			return fmt.Errorf("%w: %q has %q in its digest, which Nix's base 32 does not", ErrBadPath, clip(base), base[i])
		}
	}
	name := base[DigestLen+1:]
	if len(name) > MaxNameLen {
		return fmt.Errorf("%w: the name in %q is %d characters, over %d", ErrBadPath, clip(base), len(name), MaxNameLen)
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return fmt.Errorf("%w: %q has %q in its name", ErrBadPath, clip(base), name[i])
		}
	}
	if name == "." || name == ".." || strings.HasPrefix(name, ".-") || strings.HasPrefix(name, "..-") {
		return fmt.Errorf("%w: the name in %q starts with a dot component", ErrBadPath, clip(base))
	}
	return nil
}

// The characters of a name and of a digest, as bits: of those below 64 and of
// those from 64 to 127.
const (
	digits  = 0x3ff << '0'
	letters = 1<<26 - 1

	nameLow    = digits | 1<<'+' | 1<<'-' | 1<<'.' | 1<<'?' | 1<<'='
	nameHigh   = letters<<('A'-64) | letters<<('a'-64) | 1<<('_'-64)
	digestHigh = letters << ('a' - 64) &^ (1<<('e'-64) | 1<<('o'-64) | 1<<('t'-64) | 1<<('u'-64))
)

func nameByte(c byte) bool { return in(c, nameLow, nameHigh) }

func digestByte(c byte) bool { return in(c, digits, digestHigh) }

func in(c byte, low, high uint64) bool {
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < 128 && high>>(c-64)&1 != 0
}

// clip shortens what somebody else wrote before it goes into an error.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Base returns DIGEST-NAME, the path's name in the store directory.
func (p Path) Base() string { return string(p[len(Dir)+1:]) }

// Digest returns the 32 base-32 characters that tell the path from all others.
func (p Path) Digest() string { return string(p[len(Dir)+1 : len(Dir)+1+DigestLen]) }

// Name returns what follows the digest and its dash.
func (p Path) Name() string { return string(p[len(Dir)+1+DigestLen+1:]) }

// String returns the whole path.
func (p Path) String() string { return string(p) }

// IsDerivation reports whether the path is a store derivation (its name ends
// in .drv).
func (p Path) IsDerivation() bool { return strings.HasSuffix(string(p), ".drv") }
