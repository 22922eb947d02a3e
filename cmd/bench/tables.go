package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mksquashfs makes a squashfs of the sources, with zstd.
func (b *bench) mksquashfs(name, level, blockSize string, sources []string) contender {
	out := b.out(".mk.sqsh")
	argv := append(step{"mksquashfs"}, sources...)
	argv = append(argv, out, "-comp", "zstd", "-Xcompression-level", level, "-b", blockSize, "-no-progress", "-noappend")
	return contender{name: name, out: out, steps: []step{argv}}
}

// copied puts a copy of the closure before the steps of c, which read it.
func (b *bench) copied(c contender, steps ...step) contender {
	at := b.out(".copy")
	c.name = "cp -a + " + c.name
	c.reset = func() error {
		if err := removeAll(at); err != nil {
			return err
		}
		return os.Mkdir(at, 0o755)
	}
	argv := append(append(step{"cp", "-a"}, b.paths...), at)
	c.steps = append([]step{argv}, steps...)
	return c
}

const blockSize = "1M"

func (b *bench) squashfs() error {
	tree, err := b.linked()
	if err != nil {
		return err
	}
	defer removeAll(tree)
	mk := b.mksquashfs("mksquashfs, zstd 3", "3", blockSize, b.paths)
	fromCopy := b.mksquashfs(mk.name, "3", blockSize, []string{b.out(".copy")})
	rows, err := race(b.ctx, b.rounds, []contender{
		b.build("bigdisk, zstd:default", "--block-size", blockSize),
		mk,
		b.copied(fromCopy, fromCopy.steps...),
		b.tar2sqfs(),
		b.diskfs("squashfs", tree),
	})
	if err == nil {
		printTable(os.Stdout, "squashfs, "+blockSize+" blocks", rows)
	}
	return err
}

func (b *bench) tar2sqfs() contender {
	out := b.out(".t2.sqsh")
	names := make([]string, len(b.paths))
	for i, p := range b.paths {
		names[i] = filepath.Base(p)
	}
	script := fmt.Sprintf("tar -C %q -cf - %s | tar2sqfs -q -f -c zstd -X level=3 -b %s %q",
		filepath.Dir(b.paths[0]), strings.Join(names, " "), blockSize, out)
	c := contender{name: "tar + tar2sqfs, zstd 3", out: out, steps: []step{{"sh", "-c", script}}}
	if !present("tar2sqfs") {
		c.steps = []step{{"tar2sqfs"}} // race names it and leaves it out
	}
	return c
}

func (b *bench) front() error {
	var all []contender
	for _, level := range []string{"fastest", "default", "better"} {
		all = append(all, b.build("bigdisk, zstd:"+level, "--block-size", blockSize, "--compression", "zstd:"+level))
	}
	for _, level := range []string{"1", "3", "6", "9"} {
		all = append(all, b.mksquashfs("mksquashfs, zstd "+level, level, blockSize, b.paths))
	}
	rows, err := race(b.ctx, b.rounds, all)
	if err == nil {
		printTable(os.Stdout, "time against size, "+blockSize+" blocks", rows)
	}
	return err
}

func (b *bench) blocks() error {
	var all []contender
	look := func(out string) ([]string, error) {
		d, err := coldRead(out)
		return []string{fmt.Sprintf("%.2f ms", d.Seconds()*1e3)}, err
	}
	for _, size := range []string{"64K", "128K", "256K", "512K", "1M"} {
		ours := b.build("bigdisk, zstd:default, "+size, "--block-size", size)
		theirs := b.mksquashfs("mksquashfs, zstd 3, "+size, "3", size, b.paths)
		ours.look, theirs.look = look, look
		all = append(all, ours, theirs)
	}
	rows, err := race(b.ctx, b.rounds, all)
	if err == nil {
		printTable(os.Stdout, "block size", rows, "cold random read")
	}
	return err
}

// cacheTable needs Nix, and as root, for "nix copy" makes a store.
func (b *bench) cacheTable() error {
	if b.cache == "" {
		fmt.Fprintln(os.Stderr, "left out: the cache table, for want of --cache")
		return nil
	}
	ours := b.build("bigdisk, zstd:default", "--no-check-sigs", "--block-size", blockSize)
	for i, arg := range ours.steps[0] {
		if arg == b.store {
			ours.steps[0][i] = b.cache
		}
	}
	fresh := b.out(".fresh")
	roots := make([]string, len(b.paths))
	for i, p := range b.paths {
		roots[i] = "/nix/store/" + filepath.Base(p)
	}
	mk := b.mksquashfs("mksquashfs, zstd 3", "3", blockSize, []string{b.out(".copy")})
	mk.name = "nix copy + cp -a + " + mk.name
	mk.reset = func() error {
		if err := removeAll(fresh); err != nil {
			return err
		}
		return removeAll(b.out(".copy"))
	}
	mk.steps = append([]step{
		append(step{"nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--option", "build-users-group", "",
			"--from", b.cache, "--to", fresh}, roots...),
		{"cp", "-a", filepath.Join(fresh, "nix/store"), b.out(".copy")},
	}, mk.steps...)
	rows, err := race(b.ctx, b.rounds, []contender{ours, mk})
	if err == nil {
		printTable(os.Stdout, "from a binary cache", rows)
	}
	return err
}

// linked makes a tree that holds the closure and nothing else, of hard links.
func (b *bench) linked() (string, error) {
	tree := b.out(".tree")
	if err := os.MkdirAll(filepath.Join(tree, "nix/store"), 0o755); err != nil {
		return "", err
	}
	if _, err := measure(b.ctx, append(append([]string{"cp", "-al"}, b.paths...), filepath.Join(tree, "nix/store"))...); err != nil {
		return "", fmt.Errorf("hard links to the store, which must be on the disk of --scratch: %w", err)
	}
	return tree, nil
}

// diskfs is go-diskfs making an image of a tree, if it can.
func (b *bench) diskfs(format, tree string) contender {
	out := b.out(".diskfs." + format)
	return contender{name: "go-diskfs", out: out, limit: b.limit, steps: []step{
		{b.self, "diskfs", "--format", format, "--tree", tree, "-o", out},
	}}
}

func (b *bench) ext4() error {
	tree, err := b.linked()
	if err != nil {
		return err
	}
	defer removeAll(tree)
	ours := b.buildTo(b.out(".raw"), "bigdisk")
	image := b.out(".mke2fs.raw")
	fresh := func() error { return os.WriteFile(image, nil, 0o644) }
	mke2fs := step{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, image, "5G"}
	copied := b.copied(contender{name: "mke2fs -d, no journal", out: image}, step{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", b.out(".copy"), image, "5G"})
	flat := b.out(".flat")
	rows, err := race(b.ctx, b.rounds, []contender{
		ours,
		{name: "mke2fs -d, no journal", out: image, reset: fresh, steps: []step{mke2fs}},
		copied,
		{name: "cat of every file into one", out: flat, steps: []step{{"sh", "-c", fmt.Sprintf("find %q -type f -print0 | xargs -0 cat > %q", tree, flat)}}},
		b.diskfs("ext4", tree),
	})
	if err == nil {
		printTable(os.Stdout, "ext4", rows)
	}
	return err
}
