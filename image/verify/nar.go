package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"bigdisk/bundle/store"
)

// narHasher computes hash and size of a NAR as a tree is walked, after Nix's
// doc/manual/source/protocols/nix-archive.md. It is not the serialiser that
// images are built with.
type narHasher struct {
	h    hash.Hash
	size int64
	buf  []byte // small tokens, until there are many
	pad  int    // zeros that the file in progress needs
}

func newNarHasher() *narHasher {
	n := &narHasher{h: sha256.New(), buf: make([]byte, 0, 8<<10)}
	n.reset()
	return n
}

// reset starts another archive.
func (n *narHasher) reset() {
	n.h.Reset()
	n.size, n.buf, n.pad = 0, n.buf[:0], 0
	n.str("nix-archive-1")
}

// str adds a string: its length in 64 bits, its bytes, zeros up to a multiple
// of 8.
func (n *narHasher) str(s string) {
	if len(n.buf)+len(s)+16 > cap(n.buf) {
		n.flush()
	}
	n.buf = binary.LittleEndian.AppendUint64(n.buf, uint64(len(s)))
	n.buf = append(n.buf, s...)
	n.buf = append(n.buf, zeros[:-len(s)&7]...)
}

var zeros [8]byte

func (n *narHasher) flush() {
	n.h.Write(n.buf)
	n.size += int64(len(n.buf))
	n.buf = n.buf[:0]
}

// enter starts a name in a directory; leave ends it.
func (n *narHasher) enter(name string) {
	n.str("entry")
	n.str("(")
	n.str("name")
	n.str(name)
	n.str("node")
}

func (n *narHasher) leave() { n.str(")") }

// node starts a file, directory or symlink. A directory is ended by leave
// after what it holds; a regular file by its size bytes through data and endFile.
func (n *narHasher) node(kind store.Kind, size int64, executable bool, target string) {
	n.str("(")
	n.str("type")
	n.str(kind.String())
	switch kind {
	case store.Symlink:
		n.str("target")
		n.str(target)
		n.str(")")
	case store.Regular:
		if executable {
			n.str("executable")
			n.str("")
		}
		n.str("contents")
		n.flush()
		n.buf = binary.LittleEndian.AppendUint64(n.buf, uint64(size))
		n.flush()
		n.pad = int(-size & 7)
	}
}

// data adds a regular file's bytes.
func (n *narHasher) data(p []byte) {
	n.h.Write(p)
	n.size += int64(len(p))
}

func (n *narHasher) endFile() {
	n.buf = append(n.buf, zeros[:n.pad]...)
	n.str(")")
}

// sum ends the archive.
func (n *narHasher) sum() (store.Hash, int64) {
	n.flush()
	var h store.Hash
	n.h.Sum(h[:0])
	return h, n.size
}
