package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bigdisk/image"
)

// options are the program's flags.
type options struct {
	store, lock, cache, scratch string
	rounds                      int
	limit                       time.Duration
	scale                       []int
	only                        []string
}

// bench is one run of the program.
type bench struct {
	options
	ctx     context.Context
	self    string   // this program
	bigdisk string   // the program that is measured
	dir     string   // scratch, removed at the end
	paths   []string // the closure's store paths, in the store's directory
}

// table is what --only picks.
type table struct {
	name  string
	what  string
	store bool // it is about the store of --store
	make  func(*bench) error
}

// tables are in the order in which they are made.
func tables() []table {
	return []table{
		{"squashfs", "one image beside mksquashfs, tar2sqfs and go-diskfs", true, (*bench).squashfs},
		{"front", "time against size for the levels of compression", true, (*bench).front},
		{"blocks", "block sizes, with the time of a cold random read, for which images are mounted as root", true, (*bench).blocks},
		{"cache", "from a binary cache, for which Nix makes a store as root", true, (*bench).cacheTable},
		{"ext4", "one image beside mke2fs -d and go-diskfs", true, (*bench).ext4},
		{"targz", "archives that Compute Engine imports, beside cat and tar | pigz --best", true, (*bench).targz},
		{"base", "the next release, on the base of the last one", true, (*bench).base},
		{"pack", "the work of a build spread over four machines", true, (*bench).pack},
		{"db", "the store's database beside nix-store --load-db, 100,000 paths", false, (*bench).database},
		{"scale", "synthetic stores of up to a million paths, as --scale says", false, (*bench).scaleTable},
		{"releases", "four releases of the store, as bytes", true, (*bench).releases},
	}
}

func tableNames() []string {
	var names []string
	for _, t := range tables() {
		names = append(names, t.name)
	}
	return names
}

func run(ctx context.Context, o options) (err error) {
	picked, err := pick(o)
	if err != nil {
		return err
	}
	b := &bench{options: o, ctx: ctx}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(o.scratch, "bigdisk-bench-"); err != nil {
		return err
	}
	defer removeAll(b.dir)
	if err := os.Setenv("TMPDIR", b.dir); err != nil { // what is killed leaves its files there
		return err
	}
	b.bigdisk = filepath.Join(b.dir, "bigdisk")
	if _, err := measure(ctx, "go", "build", "-o", b.bigdisk, "./cmd/bigdisk"); err != nil {
		return err
	}
	if slices.ContainsFunc(picked, func(t table) bool { return t.store }) {
		if err := b.readStore(); err != nil {
			return err
		}
	}
	for _, t := range picked {
		if err := t.make(b); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return nil
}

// pick returns the tables that are asked for.
func pick(o options) ([]table, error) {
	picked := tables()
	for _, name := range o.only {
		if !slices.Contains(tableNames(), name) {
			return nil, fmt.Errorf("--only %s: there is no such table: there are %s", name, strings.Join(tableNames(), ", "))
		}
	}
	if len(o.only) > 0 {
		picked = slices.DeleteFunc(picked, func(t table) bool { return !slices.Contains(o.only, t.name) })
	}
	for _, t := range picked {
		if t.store && o.store == "" {
			return nil, fmt.Errorf("table %s is about a store: give --store DIR and --lock FILE", t.name)
		}
	}
	return picked, nil
}

// readStore lets bigdisk say what the closure is, and reads all of that once,
// so that every contender finds it in the page cache.
func (b *bench) readStore() error {
	first := b.build("first", "--compression", "none")
	if _, err := measure(b.ctx, first.steps[0]...); err != nil {
		return err
	}
	m, err := image.ReadManifest(first.out + manifestSuffix)
	if err != nil {
		return err
	}
	for _, p := range m.Paths {
		b.paths = append(b.paths, filepath.Join(b.store, string(p.Path)))
	}
	fmt.Printf("%d store paths, %d files, %.2f GB; best of %d rounds\n", m.Totals.StorePaths, m.Totals.Files, float64(m.Totals.Bytes)/1e9, b.rounds)
	return removeImage(first.out)
}

func (b *bench) out(suffix string) string { return filepath.Join(b.dir, "image"+suffix) }

// build is bigdisk making a squashfs from the store.
func (b *bench) build(name string, flags ...string) contender {
	return b.buildTo(b.out(".sqsh"), name, flags...)
}

// buildTo is bigdisk making an image from the store.
func (b *bench) buildTo(out, name string, flags ...string) contender {
	return contender{name: name, out: out, steps: []step{append(step{
		b.bigdisk, "build", "--lock", b.lock, "--from", b.store, "--progress", "none", "-o", out,
	}, flags...)}}
}
