package verity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
)

// VerifyBlocks reads only the data blocks with the given numbers, and what
// vouches for them: each is held against the tree level by level, up to the
// root hash. With no blocks it still holds the tree's top against the root
// hash. What differs is an error that wraps [ErrMismatch] and names a block.
func VerifyBlocks(ctx context.Context, r io.ReaderAt, t *Tree, blocks []int64) error {
	on, err := Read(r, t.Offset)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if on.Salt != t.Salt || on.UUID != t.UUID {
		return fmt.Errorf("verity superblock: %w: another salt or UUID", ErrMismatch)
	}
	h := newHasher(t.Salt)
	all := append([]level{{0, t.Offset / BlockSize}}, levels(t.Offset)...)
	top := all[len(all)-1]
	root, err := h.digests(r, top.start, 1)
	if err != nil {
		return err
	}
	if !bytes.Equal(root[:len(t.RootHash)], t.RootHash[:]) {
		return fmt.Errorf("the tree: %w: its root hash is %x, not %x", ErrMismatch, root[:len(t.RootHash)], t.RootHash)
	}
	for _, n := range blocks {
		if n < 0 || n >= all[0].blocks {
			return fmt.Errorf("block %d of %d", n, all[0].blocks)
		}
	}
	numbers := slices.Clone(blocks)
	for i := range len(all) - 1 {
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		for j, n := range numbers {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := h.one(r, all[i], all[i+1], n); err != nil {
				return err
			}
			numbers[j] = n / digestsPerBlock
		}
	}
	return nil
}

// one holds block n of a level against its digest in the level above.
func (h *hasher) one(r io.ReaderAt, below, above level, n int64) error {
	got, err := h.digests(r, below.start+n*BlockSize, 1)
	if err != nil {
		return err
	}
	want := make([]byte, len(h.zero))
	if _, err := r.ReadAt(want, above.start+n*int64(len(want))); err != nil {
		return fmt.Errorf("hash block: %w", err)
	}
	if !bytes.Equal(got[:len(want)], want) {
		return fmt.Errorf("the block at byte %d: %w", below.start+n*BlockSize, ErrMismatch)
	}
	return nil
}
