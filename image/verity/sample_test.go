package verity

import (
	"context"
	"errors"
	"testing"
)

func TestVerifyBlocks(t *testing.T) {
	for _, n := range sizes {
		d := randomDisk(n)
		tree, err := Append(context.Background(), d, int64(n), Options{})
		if err != nil {
			t.Fatal(err)
		}
		count := tree.Offset / BlockSize
		some := []int64{count - 1, 0, count / 2, 0}
		check := func(blocks ...int64) error { return VerifyBlocks(context.Background(), d, tree, blocks) }
		for _, blocks := range [][]int64{nil, some} {
			if err := check(blocks...); err != nil {
				t.Errorf("%d bytes, blocks %d: %v", n, blocks, err)
			}
		}
		for _, at := range []int64{0, count - 1} {
			d.b[at*BlockSize+7] ^= 1
			if err := check(at); !errors.Is(err, ErrMismatch) {
				t.Errorf("%d bytes: block %d is changed: %v", n, at, err)
			}
			if err := check(); err != nil != (count == 1) { // a single block is the tree's top
				t.Errorf("%d bytes: no block was asked for: %v", n, err)
			}
			d.b[at*BlockSize+7] ^= 1
		}
		for i, l := range levels(tree.Offset) {
			d.b[l.start] ^= 1
			if err := check(0); !errors.Is(err, ErrMismatch) {
				t.Errorf("%d bytes: level %d is changed: %v", n, i, err)
			}
			d.b[l.start] ^= 1
		}
		for _, bad := range []int64{-1, count} {
			if err := check(bad); err == nil {
				t.Errorf("%d bytes: there is a block %d", n, bad)
			}
		}
		other := *tree
		other.RootHash[3] ^= 1
		if err := VerifyBlocks(context.Background(), d, &other, nil); !errors.Is(err, ErrMismatch) {
			t.Errorf("%d bytes: another root hash: %v", n, err)
		}
		other = *tree
		other.UUID[3] ^= 1
		if err := VerifyBlocks(context.Background(), d, &other, nil); !errors.Is(err, ErrMismatch) {
			t.Errorf("%d bytes: another UUID: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := randomDisk(10 * BlockSize)
	tree, err := Append(context.Background(), d, 10*BlockSize, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyBlocks(ctx, d, tree, []int64{1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
