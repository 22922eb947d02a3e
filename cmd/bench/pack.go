package main

import (
	"fmt"
	"os"
)

// shards is over how many machines the pack table spreads the work.
const shards = 4

// pack measures a build that takes everything from a cache, and the filling of
// that cache in parts. The parts run one after the other, as they would on
// machines of their own.
func (b *bench) pack() error {
	cache := b.out(".cache")
	defer removeAll(cache)
	all := []contender{b.buildTo(b.out(".full.sqsh"), "full build")}
	for i := range shards {
		c := contender{name: fmt.Sprintf("pack --shard %d/%d", i, shards), steps: []step{{
			b.bigdisk, "pack", "--shard", fmt.Sprintf("%d/%d", i, shards), "--cache", cache,
			"--lock", b.lock, "--from", b.store, "--progress", "none",
		}}}
		if i == 0 {
			c.reset = func() error { return removeAll(cache) }
		}
		all = append(all, c)
	}
	all = append(all, b.buildTo(b.out(".packed.sqsh"), "build --cache", "--cache", cache))
	rows, err := race(b.ctx, b.rounds, all)
	if err != nil {
		return err
	}
	if full, packed := rows[0].size, rows[len(rows)-1].size; full != packed {
		return fmt.Errorf("the full build has %d bytes, that from the cache %d", full, packed)
	}
	printTable(os.Stdout, "squashfs, spread over machines", rows)
	return nil
}
