package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

// File is what a tree is appended to.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Options are the choices of [Append].
type Options struct {
	// Seed is what salt and UUID are derived from: the same seed gives the same
	// tree. Take something that stands for the contents, such as a hash of them.
	Seed [sha256.Size]byte
	// Workers is how many goroutines hash at once; 1 if it is less.
	Workers int
}

// chunkBlocks is how many blocks are hashed in one piece. It is a multiple of
// digestsPerBlock, so that pieces never share a hash block.
const chunkBlocks = 2 * digestsPerBlock

// Append writes superblock and tree behind the first length bytes of f, which
// it pads to a whole block with zeros. It reads the data once, in pieces of
// 1 MiB, and keeps no more than one piece for each worker.
func Append(ctx context.Context, f File, length int64, o Options) (*Tree, error) {
	if length <= 0 {
		return nil, fmt.Errorf("verity: no data to protect")
	}
	t := newTree(length, o.Seed)
	if pad := t.Offset - length; pad > 0 {
		if _, err := f.WriteAt(make([]byte, pad), length); err != nil {
			return nil, fmt.Errorf("verity: padding: %w", err)
		}
	}
	if _, err := f.WriteAt(t.superblock(), t.Offset); err != nil {
		return nil, fmt.Errorf("verity: superblock: %w", err)
	}
	h := newHasher(t.Salt)
	below := level{0, t.Offset / BlockSize}
	for _, l := range levels(t.Offset) {
		if err := h.level(ctx, f, below, l.start, o.Workers); err != nil {
			return nil, fmt.Errorf("verity: %w", err)
		}
		below = l
	}
	root, err := h.digests(f, below.start, 1)
	if err != nil {
		return nil, fmt.Errorf("verity: %w", err)
	}
	copy(t.RootHash[:], root)
	return t, nil
}

func newTree(length int64, seed [sha256.Size]byte) *Tree {
	t := &Tree{Offset: (length + BlockSize - 1) / BlockSize * BlockSize}
	t.Size = treeSize(t.Offset / BlockSize)
	t.Salt = sha256.Sum256(append([]byte("bigdisk verity salt\n"), seed[:]...))
	id := sha256.Sum256(append([]byte("bigdisk verity uuid\n"), seed[:]...))
	copy(t.UUID[:], id[:])
	t.UUID[6] = t.UUID[6]&0x0f | 0x80 // RFC 9562, version 8
	t.UUID[8] = t.UUID[8]&0x3f | 0x80
	return t
}

// hasher hashes blocks with a salt before each.
type hasher struct {
	salt [SaltSize]byte
	zero [sha256.Size]byte // the digest of a block of zeros
	bufs sync.Pool
}

func newHasher(salt [SaltSize]byte) *hasher {
	h := &hasher{salt: salt}
	sum := sha256.New()
	sum.Write(salt[:])
	sum.Write(zeroBlock[:])
	sum.Sum(h.zero[:0])
	h.bufs.New = func() any {
		b := make([]byte, chunkBlocks*BlockSize)
		return &b
	}
	return h
}

var zeroBlock [BlockSize]byte

// digests reads n blocks at off and returns their digests, one after the other.
func (h *hasher) digests(r io.ReaderAt, off, n int64) ([]byte, error) {
	buf := h.bufs.Get().(*[]byte)
	defer h.bufs.Put(buf)
	data := (*buf)[:n*BlockSize]
	if _, err := r.ReadAt(data, off); err != nil {
		return nil, fmt.Errorf("block %d: %w", off/BlockSize, err)
	}
	out := make([]byte, 0, (n*sha256.Size+BlockSize-1)/BlockSize*BlockSize)
	sum := sha256.New()
	for ; len(data) > 0; data = data[BlockSize:] {
		block := data[:BlockSize]
		if block[0] == 0 && bytes.Equal(block, zeroBlock[:]) {
			out = append(out, h.zero[:]...)
			continue
		}
		sum.Reset()
		sum.Write(h.salt[:])
		sum.Write(block)
		out = sum.Sum(out)
	}
	return out, nil
}

// level writes, from start on, the hash blocks over the blocks of one level.
func (h *hasher) level(ctx context.Context, f File, below level, start int64, workers int) error {
	return h.each(ctx, f, below, workers, func(first int64, digests []byte) error {
		if pad := -len(digests) & (BlockSize - 1); pad > 0 {
			digests = append(digests, make([]byte, pad)...)
		}
		_, err := f.WriteAt(digests, start+first*sha256.Size)
		return err
	})
}

// each hashes all blocks of a level, in pieces, and gives use the number of a
// piece's first block and the digests. use runs in several goroutines.
func (h *hasher) each(ctx context.Context, r io.ReaderAt, l level, workers int, use func(first int64, digests []byte) error) error {
	g, running := errgroup.WithContext(ctx)
	g.SetLimit(max(1, workers))
	for first := int64(0); first < l.blocks && running.Err() == nil; first += chunkBlocks {
		g.Go(func() error {
			digests, err := h.digests(r, l.start+first*BlockSize, min(chunkBlocks, l.blocks-first))
			if err != nil {
				return err
			}
			return use(first, digests)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// Verify reads everything that t vouches for and holds it against the tree,
// and the tree against its root hash. What differs is an error that wraps
// [ErrMismatch] and names a block.
func Verify(ctx context.Context, r io.ReaderAt, t *Tree, workers int) error {
	on, err := Read(r, t.Offset)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if on.Salt != t.Salt || on.UUID != t.UUID {
		return fmt.Errorf("verity superblock: %w: another salt or UUID", ErrMismatch)
	}
	h := newHasher(t.Salt)
	below := level{0, t.Offset / BlockSize}
	for _, l := range levels(t.Offset) {
		if err := h.compare(ctx, r, below, l.start, workers); err != nil {
			return err
		}
		below = l
	}
	root, err := h.digests(r, below.start, 1)
	if err != nil {
		return err
	}
	if !bytes.Equal(root, t.RootHash[:]) {
		return fmt.Errorf("the tree: %w: its root hash is %x, not %x", ErrMismatch, root, t.RootHash)
	}
	return nil
}

// compare holds the blocks of one level against the digests of the level above.
func (h *hasher) compare(ctx context.Context, r io.ReaderAt, below level, start int64, workers int) error {
	return h.each(ctx, r, below, workers, func(first int64, digests []byte) error {
		want := make([]byte, (len(digests)+BlockSize-1)/BlockSize*BlockSize)
		if _, err := r.ReadAt(want, start+first*sha256.Size); err != nil {
			return fmt.Errorf("hash block: %w", err)
		}
		for i := 0; i < len(digests); i += sha256.Size {
			if !bytes.Equal(digests[i:i+sha256.Size], want[i:i+sha256.Size]) {
				at := below.start + (first+int64(i/sha256.Size))*BlockSize
				return fmt.Errorf("the block at byte %d: %w", at, ErrMismatch)
			}
		}
		if rest := want[len(digests):]; !bytes.Equal(rest, zeroBlock[:len(rest)]) {
			return fmt.Errorf("the hash block at byte %d: %w: bytes after its last digest", start+first*sha256.Size, ErrMismatch)
		}
		return nil
	})
}
