package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/source"
	"bigdisk/cmd/bench/rebuild"
)

// What the releases table is about.
const (
	releaseCount   = 4
	rebuiltPercent = 15
)

// rebuilt is what rebuildCommand says of the store that it made.
type rebuilt struct {
	Changed []int // new paths by release
	rebuild.Redundancy
}

// rebuildCommand makes a store of several releases. Bench calls it, so that it
// takes none of its memory.
func rebuildCommand() *cobra.Command {
	var from, lockFile, to string
	c := &cobra.Command{
		Use:   "rebuild --store DIR --lock FILE -o DIR",
		Short: "make a store of several releases of a store",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return makeReleases(c.Context(), from, lockFile, to)
		},
	}
	f := c.Flags()
	f.StringVar(&from, "store", "", "the store")
	f.StringVar(&lockFile, "lock", "", "its lock file")
	f.StringVarP(&to, "output", "o", "", "the new store; its lock file is in it")
	return c
}

// What lies in the new store besides.
const (
	releasesLock = "modules.json"
	releasesInfo = "rebuilt.json"
)

func makeReleases(ctx context.Context, from, lockFile, to string) error {
	f, err := os.Open(lockFile)
	if err != nil {
		return err
	}
	defer f.Close()
	parsed, err := lock.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", lockFile, err)
	}
	s, err := source.Parse(from, source.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := rebuild.Write(ctx, rebuild.Options{From: s, Entries: parsed.Entries, To: to, Releases: releaseCount, Percent: rebuiltPercent})
	if err != nil {
		return err
	}
	if err := writeLock(filepath.Join(to, releasesLock), r.Entries); err != nil {
		return err
	}
	redundancy, err := rebuild.Measure(filepath.Join(to, "nix/store"))
	if err != nil {
		return err
	}
	text, err := json.Marshal(rebuilt{r.Changed, *redundancy})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, releasesInfo), text, 0o644)
}

// releases weighs images of four releases in one store.
func (b *bench) releases() error {
	root := b.out(".releases")
	defer removeAll(root)
	if _, err := measure(b.ctx, b.self, "rebuild", "--store", b.store, "--lock", b.lock, "-o", root); err != nil {
		return err
	}
	var info rebuilt
	text, err := os.ReadFile(filepath.Join(root, releasesInfo))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return err
	}
	printRebuilt(&info)
	build := func(name, suffix string, flags ...string) contender {
		c := b.buildTo(b.out(suffix), name, flags...)
		c.lockedBy(b.lock, filepath.Join(root, releasesLock))
		c.lockedBy(b.store, root)
		return c
	}
	for _, size := range []string{"256K", "1M"} {
		rows, err := race(b.ctx, 1, []contender{
			build("bigdisk, zstd:default", ".sqsh", "--block-size", size),
			build("bigdisk, zstd:better", ".better.sqsh", "--block-size", size, "--compression", "zstd:better"),
			b.mksquashfs("mksquashfs, zstd 3", "3", size, []string{filepath.Join(root, "nix/store")}),
		})
		if err != nil {
			return err
		}
		printTable(os.Stdout, "four releases, squashfs, "+size+" blocks", rows)
	}
	return b.releasesExt4(root, &info, build("bigdisk", ".raw"))
}

func printRebuilt(r *rebuilt) {
	part := func(n int64) string { return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(r.Blocks)) }
	fmt.Printf("\n%d releases; store paths that are new in each: %v; %d files, %.2f GB\n", len(r.Changed), r.Changed, r.Files, float64(r.Bytes)/1e9)
	fmt.Printf("in whole blocks of 4 KiB: %.2f GB; of that in files that are there before: %s; in blocks that are there before: %s\n",
		float64(r.Blocks)/1e9, part(r.Blocks-r.OnceBlocks), part(r.Blocks-r.DifferentBlocks))
	fmt.Printf("each different file once: %.2f GB; each different block once: %.2f GB\n", float64(r.OnceBlocks)/1e9, float64(r.DifferentBlocks)/1e9)
}

// releasesExt4 changes the store: it has Nix optimise it.
func (b *bench) releasesExt4(root string, info *rebuilt, ours contender) error {
	image := b.out(".mke2fs.raw")
	size := fmt.Sprintf("%dM", info.Blocks/1e6*5/4+1024)
	mke2fs := step{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", root, image, size}
	all := []contender{ours, {name: "mke2fs -d, no journal", out: image, steps: []step{mke2fs}}}
	rows, err := race(b.ctx, 1, all)
	if err != nil {
		return err
	}
	if present("nix-store") {
		if _, err := measure(b.ctx, "nix-store", "--option", "build-users-group", "", "--store", "local?root="+root, "--optimise"); err != nil {
			return err
		}
		// The links that Nix finds files by are not for the image.
		if err := removeAll(filepath.Join(root, "nix/store/.links")); err != nil {
			return err
		}
		after, err := race(b.ctx, 1, []contender{{name: "nix-store --optimise, mke2fs -d", out: image, steps: []step{mke2fs}}})
		if err != nil {
			return err
		}
		rows = append(rows, after...)
	}
	printTable(os.Stdout, "four releases, ext4", rows)
	return nil
}
