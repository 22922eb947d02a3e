package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
)

// CAMethod is what of a content-addressed path its hash is of.
type CAMethod uint8

// The methods of Nix's src/libstore/content-address.cc that are known here.
const (
	// CAText is the bytes of a single file, such as builtins.toFile and
	// derivations have it; such a path may have references.
	CAText CAMethod = iota + 1
	// CAFlat is the bytes of a single file without references, as nix-store
	// --add-fixed has it.
	CAFlat
	// CANar is the NAR serialisation, as nix-store --add-fixed --recursive has
	// it.
	CANar
)

// CA is a content address with SHA-256.
type CA struct {
	Method CAMethod
	Hash   Hash
}

// ErrBadCA is wrapped by every error of [ParseCA].
var ErrBadCA = errors.New("not a content address")

// ErrContents is wrapped when a file is not what its content address says.
var ErrContents = errors.New("contents do not match the content address")

// ParseCA reads "text:", "fixed:" or "fixed:r:" followed by a SHA-256, as
// narinfos and databases write it. Other methods and hashes are an error:
// paths with them need a signature.
func ParseCA(s string) (CA, error) {
	for _, m := range []CAMethod{CANar, CAFlat, CAText} {
		if digest, ok := strings.CutPrefix(s, m.prefix()); ok {
			h, err := ParseHash(digest)
			if err == nil && strings.HasPrefix(digest, "sha256-") {
				err = fmt.Errorf("%w: Nix knows the form with a hyphen not here", ErrBadHash)
			}
			if err != nil {
				return CA{}, fmt.Errorf("%w: %q: %w", ErrBadCA, clip(s), err)
			}
			return CA{Method: m, Hash: h}, nil
		}
	}
	return CA{}, fmt.Errorf("%w: %q does not start with text:, fixed: or fixed:r:", ErrBadCA, clip(s))
}

func (m CAMethod) prefix() string {
	switch m {
	case CAText:
		return "text:"
	case CAFlat:
		return "fixed:"
	case CANar:
		return "fixed:r:"
	}
	return ""
}

// String writes the content address as Nix does.
func (c CA) String() string { return c.Method.prefix() + c.Hash.String() }

// CAPath recomputes the store path from the info's content address, name and
// references (Nix's makeFixedOutputPathFromCA). It is an error if the address
// cannot be read, or cannot go with the references. A path that it gives back
// is not yet proved to hold what the address says: see [PathInfo.Certified].
func (i *PathInfo) CAPath() (Path, error) {
	ca, err := ParseCA(i.CA)
	if err != nil {
		return "", err
	}
	refs, self := i.othersAndSelf()
	switch ca.Method {
	case CANar:
		return makePath(makeType("source", refs, self), ca.Hash, i.Path.Name()), nil
	case CAText:
		if self {
			return "", fmt.Errorf("%w: %q cannot go with a reference to itself", ErrBadCA, i.CA)
		}
		return makePath(makeType("text", refs, false), ca.Hash, i.Path.Name()), nil
	}
	if self || len(refs) > 0 {
		return "", fmt.Errorf("%w: %q cannot go with references", ErrBadCA, i.CA)
	}
	inner := sha256.Sum256([]byte("fixed:out:sha256:" + ca.Hash.Base16() + ":"))
	return makePath("output:out", inner, i.Path.Name()), nil
}

// othersAndSelf returns the sorted references to other paths, and whether the
// path refers to itself.
func (i *PathInfo) othersAndSelf() (others []Path, self bool) {
	for _, r := range i.References {
		if r == i.Path {
			self = true
		} else {
			others = append(others, r)
		}
	}
	slices.Sort(others)
	return slices.Compact(others), self
}

// makeType is Nix's function of that name: what a path's digest says of its
// references.
func makeType(kind string, refs []Path, self bool) string {
	var b strings.Builder
	b.WriteString(kind)
	for _, r := range refs {
		b.WriteByte(':')
		b.WriteString(string(r))
	}
	if self {
		b.WriteString(":self")
	}
	return b.String()
}

// makePath is Nix's makeStorePath: the digest is the SHA-256 of what the path
// is, folded to 160 bits.
func makePath(kind string, h Hash, name string) Path {
	sum := sha256.Sum256([]byte(kind + ":sha256:" + h.Base16() + ":" + Dir + ":" + name))
	var digest [20]byte
	for i, b := range sum {
		digest[i%len(digest)] ^= b
	}
	return Path(Dir + "/" + EncodeBase32(digest[:]) + "-" + name)
}

// Certified returns the content address that vouches for the path, so that it
// needs no signature: one from which the store path follows. Its contents must
// still be held to it: a tree by its NAR hash, which Certified has found to be
// the address's, a single file by [CA.Check].
//
// Not certified, although Nix may be able to: other hashes than SHA-256, and
// trees that refer to themselves, whose address is of something else than the
// NAR. Those need a signature here.
func (i *PathInfo) Certified() (CA, bool) {
	ca, err := ParseCA(i.CA)
	if err != nil {
		return CA{}, false
	}
	if path, err := i.CAPath(); err != nil || path != i.Path {
		return CA{}, false
	}
	if ca.Method == CANar && (ca.Hash != i.NarHash || slices.Contains(i.References, i.Path)) {
		return CA{}, false
	}
	return ca, true
}

// Check returns contents that end in an error wrapping [ErrContents] unless
// they are what the address says. For a [CANar] these are the contents
// themselves, whose NAR hash must be checked anyway; for the others they must
// be one file, not executable, with the address's hash.
func (c CA) Check(contents Contents) Contents {
	if c.Method == CANar {
		return contents
	}
	return &flatContents{Contents: contents, want: c.Hash, hash: sha256.New()}
}

// flatContents hashes a single file on its way through.
type flatContents struct {
	Contents
	want Hash
	hash hash.Hash
	err  error
	file bool
}

// Next implements [Contents].
func (f *flatContents) Next() (*Entry, error) {
	if f.err != nil {
		return nil, f.err
	}
	if f.file {
		if _, err := io.Copy(io.Discard, f); err != nil {
			return nil, err
		}
	}
	e, err := f.Contents.Next()
	switch {
	case err == io.EOF && f.file:
		f.err = f.end()
		return nil, f.err
	case err == io.EOF:
		err = fmt.Errorf("%w: no file", ErrContents)
	case err == nil && !f.file && e.Kind == Regular && !e.Executable:
		f.file = true
		return e, nil
	case err == nil:
		err = fmt.Errorf("%w: not a single file that is not executable", ErrContents)
	}
	f.err = err
	return nil, err
}

// Read implements [Contents].
func (f *flatContents) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.Contents.Read(p)
	f.hash.Write(p[:n])
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// end is io.EOF if the file was the right one.
func (f *flatContents) end() error {
	var got Hash
	f.hash.Sum(got[:0])
	if got != f.want {
		return fmt.Errorf("%w: the file's hash is sha256:%s, not sha256:%s", ErrContents, hex.EncodeToString(got[:]), f.want.Base16())
	}
	return io.EOF
}
