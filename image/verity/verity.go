// Package verity appends a dm-verity hash tree to a finished image, and checks
// one: with it the kernel refuses, block by block, to read what is not what
// was built.
//
// In flow the bytes of a filesystem, out flow a superblock and a tree of
// SHA-256 digests behind it, and the root hash that vouches for all. The
// format is version 1 of the kernel's
// Documentation/admin-guide/device-mapper/verity.rst with the superblock of
// cryptsetup (struct verity_sb in lib/verity/verity.c), so that
//
//	veritysetup open IMAGE NAME IMAGE ROOTHASH --hash-offset=OFFSET
//
// works. Data and hash blocks have 4 KiB.
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const (
	// BlockSize is the size of data and hash blocks in bytes.
	BlockSize = 4096
	// digestsPerBlock is how many digests a hash block holds.
	digestsPerBlock = BlockSize / sha256.Size
	// SaltSize is the salt's length in bytes.
	SaltSize = 32

	superblockSize = 512

	magic     = "verity\x00\x00"
	algorithm = "sha256"
)

// ErrMismatch is wrapped by errors about bytes that the tree does not vouch for.
var ErrMismatch = errors.New("does not match its dm-verity hash tree")

// Tree describes a hash tree.
type Tree struct {
	// RootHash vouches for everything.
	RootHash [sha256.Size]byte
	// Offset is where the superblock starts and so how many bytes are
	// protected, rounded up to whole blocks.
	Offset int64
	// Size is the length of superblock and tree in bytes.
	Size int64
	Salt [SaltSize]byte
	UUID [16]byte
}

// SaltHex returns the salt in hexadecimal.
func (t *Tree) SaltHex() string { return hex.EncodeToString(t.Salt[:]) }

// UUIDString returns the UUID as it is usually written.
func (t *Tree) UUIDString() string {
	u := t.UUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// superblock is struct verity_sb, 512 bytes.
type superblock struct {
	Signature     [8]byte
	Version       uint32   // 1
	HashType      uint32   // 1: the salt comes before the data
	UUID          [16]byte // at 16
	Algorithm     [32]byte
	DataBlockSize uint32
	HashBlockSize uint32
	DataBlocks    uint64
	SaltSize      uint16
	_             [6]byte
	Salt          [256]byte // at 88
	_             [168]byte
}

func (t *Tree) superblock() []byte {
	sb := superblock{
		Version: 1, HashType: 1, UUID: t.UUID, DataBlockSize: BlockSize, HashBlockSize: BlockSize,
		DataBlocks: uint64(t.Offset / BlockSize), SaltSize: SaltSize,
	}
	copy(sb.Signature[:], magic)
	copy(sb.Algorithm[:], algorithm)
	copy(sb.Salt[:], t.Salt[:])
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, &sb); err != nil {
		panic(err) // a fixed-size struct into memory
	}
	return append(b.Bytes(), make([]byte, BlockSize-b.Len())...)
}

// Read reads the superblock at offset and returns the tree it describes,
// without the root hash, which is not on the disk. It fails if there is none,
// or if it is not of the kind that [Append] makes.
func Read(r io.ReaderAt, offset int64) (*Tree, error) {
	if offset < 0 || offset%BlockSize != 0 {
		return nil, fmt.Errorf("verity superblock at %d, not at a multiple of %d", offset, BlockSize)
	}
	b := make([]byte, superblockSize)
	if _, err := r.ReadAt(b, offset); err != nil {
		return nil, fmt.Errorf("verity superblock at %d: %w", offset, err)
	}
	if string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("no verity superblock at %d", offset)
	}
	t := &Tree{Offset: offset, Size: treeSize(offset / BlockSize)}
	copy(t.UUID[:], b[16:])
	copy(t.Salt[:], b[88:])
	if !bytes.Equal(t.superblock()[:superblockSize], b) {
		return nil, fmt.Errorf("verity superblock at %d: not version 1 with sha256, blocks of %d bytes, a salt of %d and %d data blocks",
			offset, BlockSize, SaltSize, offset/BlockSize)
	}
	return t, nil
}

// level is one level of the tree: where its hash blocks start, in bytes from
// the image's start, and how many there are.
type level struct{ start, blocks int64 }

// levels returns the tree's levels, the one with the data blocks' digests first. On the disk
// they come the other way round, the top one first behind the superblock. A
// single data block has no levels: its digest is the root hash.
func levels(offset int64) []level {
	var out []level
	for n := offset / BlockSize; n > 1; {
		n = (n + digestsPerBlock - 1) / digestsPerBlock
		out = append(out, level{blocks: n})
	}
	at := offset + BlockSize
	for i := len(out) - 1; i >= 0; i-- {
		out[i].start = at
		at += out[i].blocks * BlockSize
	}
	return out
}

// treeSize returns the length of superblock and tree over n data blocks.
func treeSize(n int64) int64 {
	size := int64(BlockSize)
	for _, l := range levels(n * BlockSize) {
		size += l.blocks * BlockSize
	}
	return size
}
