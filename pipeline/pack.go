package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/store"
	"bigdisk/pipeline/progress"
)

// Shard is the part of a closure that one of several machines packs: part
// Index, from 0, of Count.
type Shard struct{ Index, Count int }

// PackResult sums up what Pack did.
type PackResult struct {
	Shard int `json:"shard"` // from 0
	Of    int `json:"of"`
	// Paths counts the shard's store paths, Found those that were in the cache,
	// and NarBytes sums the sizes of all of them.
	Paths    int64   `json:"paths"`
	Found    int64   `json:"found"`
	NarBytes int64   `json:"narBytes"`
	Seconds  float64 `json:"seconds"`
}

// Pack fills the cache that opts name with a part of what a build with the
// same options takes from it. All machines that pack a part of the same
// closure agree on the parts without talking to each other. Run again, it goes
// on where it was killed.
func Pack(ctx context.Context, opts BuildOptions, shard Shard) (*PackResult, error) {
	start := time.Now()
	if opts.Cache == "" {
		return nil, fmt.Errorf("%w: nothing to fill: give --cache", ErrUsage)
	}
	if shard.Count < 1 || shard.Index < 0 || shard.Index >= shard.Count {
		return nil, fmt.Errorf("%w: there is no shard %d of %d: the first is 0", ErrUsage, shard.Index, shard.Count)
	}
	if opts.Output == "" {
		opts.Output = "packed.sqsh" // is not written; its suffix names the format
	}
	b, err := open(ctx, opts)
	if err != nil {
		return nil, err
	}
	result := &PackResult{Shard: shard.Index, Of: shard.Count}
	err = b.pack(ctx, shard, result)
	if err = b.close(ctx, err); err != nil {
		return nil, err
	}
	result.Seconds = time.Since(start).Seconds()
	return result, nil
}

func (b *builder) pack(ctx context.Context, shard Shard, result *PackResult) error {
	if err := b.given.read(b.opts); err != nil {
		return err
	}
	plan, err := b.resolve(ctx)
	if err != nil {
		return err
	}
	part := partOf(plan, shard)
	for _, i := range part {
		result.NarBytes += plan.info(i).NarSize
	}
	result.Paths = int64(len(part))
	stage := b.opts.Progress.Stage("pack", progress.Bytes, result.NarBytes)
	defer stage.Finish()
	var found atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openers + b.opts.Jobs)
	for _, i := range part {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			info := plan.info(i)
			there, err := b.packOne(ctx, info)
			if err != nil {
				return plan.blame(i, err)
			}
			if there {
				found.Add(1)
			}
			stage.Add(info.NarSize)
			return nil
		})
	}
	err = group.Wait()
	result.Found = found.Load()
	return err
}

func (b *builder) packOne(ctx context.Context, info *store.PathInfo) (there bool, err error) {
	if there, err = b.packer.cache.Has(ctx, b.packer.key(info)); there || err != nil {
		return there, err
	}
	entries, err := b.packer.pack(ctx, b.source, info)
	for i := range entries {
		if k := entries[i].Kept; k != nil {
			k.Unit.Release()
			break
		}
	}
	return false, err
}

// partOf returns a shard's paths, as indices into the plan's order: the largest
// path goes to the shard that has the fewest bytes so far, then the next.
func partOf(plan *plan, shard Shard) []int {
	var all []int
	for i, path := range plan.order {
		if !watches(plan, path) {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b int) int {
		x, y := plan.info(a), plan.info(b)
		return cmp.Or(cmp.Compare(y.NarSize, x.NarSize), strings.Compare(string(x.Path), string(y.Path)))
	})
	loads := make([]int64, shard.Count)
	var part []int
	for _, i := range all {
		least := 0
		for j := range loads {
			if loads[j] < loads[least] {
				least = j
			}
		}
		loads[least] += plan.info(i).NarSize
		if least == shard.Index {
			part = append(part, i)
		}
	}
	return part
}
