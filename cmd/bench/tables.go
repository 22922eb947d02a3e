package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"bigdisk/image"
)

// bench is one run of the program.
type bench struct {
	options
	ctx     context.Context
	bigdisk string   // the program
	paths   []string // the closure's store paths, in the store's directory
	dir     string   // scratch, removed at the end
}

// tables are what --only picks from, in the order they are made.
var tables = []struct {
	name string
	make func(*bench) error
}{
	{"squashfs", (*bench).squashfs}, {"front", (*bench).front}, {"blocks", (*bench).blocks},
	{"cache", (*bench).cacheTable}, {"ext4", (*bench).ext4},
}

func run(ctx context.Context, o options) (err error) {
	for _, name := range o.only {
		if !slices.ContainsFunc(tables, func(t struct {
			name string
			make func(*bench) error
		}) bool {
			return t.name == name
		}) {
			return fmt.Errorf("--only %s: there is no such table", name)
		}
	}
	b := &bench{options: o, ctx: ctx}
	if b.dir, err = os.MkdirTemp(o.scratch, "bigdisk-bench-"); err != nil {
		return err
	}
	defer removeAll(b.dir)
	if err := b.prepare(); err != nil {
		return err
	}
	for _, t := range tables {
		if !slices.Contains(o.only, t.name) {
			continue
		}
		if err := t.make(b); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return nil
}

// prepare builds bigdisk, lets it say what the closure is, and reads all of
// that once, so that every contender finds it in the page cache.
func (b *bench) prepare() error {
	b.bigdisk = filepath.Join(b.dir, "bigdisk")
	if _, err := measure(b.ctx, "go", "build", "-o", b.bigdisk, "./cmd/bigdisk"); err != nil {
		return err
	}
	first := b.build("first", "--compression", "none")
	if _, err := first.run(b.ctx, false); err != nil {
		return err
	}
	if _, err := measure(b.ctx, first.steps[0]...); err != nil {
		return err
	}
	m, err := image.ReadManifest(first.out + ".manifest.json")
	if err != nil {
		return err
	}
	for _, p := range m.Paths {
		b.paths = append(b.paths, filepath.Join(b.store, string(p.Path)))
	}
	fmt.Printf("%d store paths, %d files, %.2f GB; best of %d rounds\n", m.Totals.StorePaths, m.Totals.Files, float64(m.Totals.Bytes)/1e9, b.rounds)
	return removeAll(first.out)
}

func (b *bench) out(suffix string) string { return filepath.Join(b.dir, "image"+suffix) }

// build is bigdisk making a squashfs from the store.
func (b *bench) build(name string, flags ...string) contender {
	out := b.out(".sqsh")
	return contender{name: name, out: out, steps: []step{append(step{
		b.bigdisk, "build", "--lock", b.lock, "--from", b.store, "--progress", "none", "-o", out,
	}, flags...)}}
}

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
	mk := b.mksquashfs("mksquashfs, zstd 3", "3", blockSize, b.paths)
	fromCopy := b.mksquashfs(mk.name, "3", blockSize, []string{b.out(".copy")})
	rows, err := race(b.ctx, b.rounds, []contender{
		b.build("bigdisk, zstd:default", "--block-size", blockSize),
		mk,
		b.copied(fromCopy, fromCopy.steps...),
		b.tar2sqfs(),
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
	if _, err := exec.LookPath("tar2sqfs"); err != nil {
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

// ext4 needs a tree that holds the closure and nothing else: hard links do.
func (b *bench) ext4() error {
	tree := b.out(".tree")
	if err := os.MkdirAll(filepath.Join(tree, "nix/store"), 0o755); err != nil {
		return err
	}
	defer removeAll(tree)
	if _, err := measure(b.ctx, append(append([]string{"cp", "-al"}, b.paths...), filepath.Join(tree, "nix/store"))...); err != nil {
		return fmt.Errorf("hard links to the store, which must be on the disk of --scratch: %w", err)
	}
	ours := b.build("bigdisk, ext4")
	ours.out = b.out(".raw")
	ours.steps[0][slices.Index(ours.steps[0], "-o")+1] = ours.out
	image := b.out(".mke2fs.raw")
	fresh := func() error { return os.WriteFile(image, nil, 0o644) }
	mke2fs := step{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, image, "5G"}
	flat := b.out(".flat")
	rows, err := race(b.ctx, b.rounds, []contender{
		ours,
		{name: "mke2fs -d", out: image, reset: fresh, steps: []step{mke2fs}},
		{name: "cat of every file", out: flat, steps: []step{{"sh", "-c", fmt.Sprintf("find %q -type f -print0 | xargs -0 cat > %q", tree, flat)}}},
	})
	if err == nil {
		printTable(os.Stdout, "ext4", rows)
	}
	return err
}
