package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image"
)

// base measures a release that adds one small module to the last one.
func (b *bench) base() error {
	locks, err := b.lastRelease()
	if err != nil {
		return err
	}
	fmt.Printf("\nthe base lacks %s, which adds %s of NARs\n", locks.added, megabytes(locks.bytes))
	for _, f := range []struct{ name, suffix string }{{"squashfs", ".sqsh"}, {"ext4", ".raw"}} {
		if err := b.onBase(f.name, f.suffix, locks); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (b *bench) onBase(format, suffix string, locks *releaseLocks) error {
	base := b.buildTo(b.out(".base"+suffix), "base")
	base.lockedBy(b.lock, locks.before)
	if _, err := measure(b.ctx, base.steps[0]...); err != nil {
		return err
	}
	defer removeImage(base.out)

	full := b.buildTo(b.out(".full"+suffix), "full build")
	checked := b.buildTo(b.out(".checked"+suffix), "--base", "--base", base.out)
	trusting := b.buildTo(b.out(".trusting"+suffix), "--base --trust-base", "--base", base.out, "--trust-base")
	cp, synced := b.out(".cp"+suffix), b.out(".synced"+suffix)
	copied := contender{name: "cp of the base", out: cp, steps: []step{{"cp", "--reflink=never", base.out, cp}}}
	copiedSynced := contender{name: "cp and sync, as a build does", out: synced, steps: []step{{"cp", "--reflink=never", base.out, synced}, {"sync", synced}}}
	// One after the other is the same image, so that one sum tells.
	var sums []image.HexSHA256
	note := func(out string) ([]string, error) {
		m, err := image.ReadManifest(out + manifestSuffix)
		if err == nil {
			sums = append(sums, m.Image.SHA256)
		}
		return nil, err
	}
	for _, c := range []*contender{&full, &checked, &trusting} {
		c.lockedBy(b.lock, locks.after)
		c.look = note
	}
	rows, err := race(b.ctx, b.rounds, []contender{full, checked, trusting, copied, copiedSynced})
	if err != nil {
		return err
	}
	for _, sum := range sums {
		if sum != sums[0] {
			return fmt.Errorf("the images differ: %v", sums)
		}
	}
	for i := range rows {
		rows[i].extra = []string{ratio(float64(rows[i].cost.wall), float64(rows[3].cost.wall))}
	}
	printTable(os.Stdout, format+", the next release", rows, "wall to cp")
	return nil
}

// lockedBy makes c build from another lock file.
func (c *contender) lockedBy(old, other string) {
	c.steps[0][slices.Index(c.steps[0], old)] = other
}

// releaseLocks are the lock files of two releases.
type releaseLocks struct {
	before, after string
	added         string // the module that after has besides
	bytes         int64  // of NARs that come with it
}

// lastRelease leaves a small module out of the lock file, and writes both: in
// the later one it is the newest.
func (b *bench) lastRelease() (*releaseLocks, error) {
	f, err := os.Open(b.lock)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	parsed, err := lock.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.lock, err)
	}
	at, bytes, err := smallModule(b.ctx, b.store, parsed.Entries)
	if err != nil {
		return nil, err
	}
	before, after := splitLock(parsed.Entries, at)
	r := &releaseLocks{
		before: filepath.Join(b.dir, "before.json"), after: filepath.Join(b.dir, "after.json"),
		added: parsed.Entries[at].Key(), bytes: bytes,
	}
	return r, cmp.Or(writeLock(r.before, before), writeLock(r.after, after))
}

// splitLock returns the entries without one, and with it as the newest.
func splitLock(entries []lock.Entry, at int) (before, after []lock.Entry) {
	newest := entries[at]
	before = slices.Delete(slices.Clone(entries), at, at+1)
	for _, e := range entries {
		newest.Tag.Date = max(newest.Tag.Date, e.Tag.Date)
	}
	newest.Tag.Date = newest.Tag.Date/10000*10000 + 10000 + 101 // the next New Year's Day
	return before, append(slices.Clone(before), newest)
}

func writeLock(name string, entries []lock.Entry) error {
	text, err := lock.Marshal(entries)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// smallModule finds the entry that adds the most bytes that are under 2 % of
// all: NARs of what no other entry needs. If each adds more, it is the one that
// adds the fewest.
func smallModule(ctx context.Context, from string, entries []lock.Entry) (at int, bytes int64, err error) {
	s, err := source.Parse(from, source.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	roots := make([]store.Path, len(entries))
	for i, e := range entries {
		roots[i] = e.Path
	}
	c, err := bundle.FindClosure(ctx, s, roots, 0)
	if err != nil {
		return 0, 0, err
	}
	small := c.NarBytes() / 50
	for i := range roots {
		rest := slices.Delete(slices.Clone(roots), i, i+1)
		needed, err := c.Order(rest)
		if err != nil {
			return 0, 0, err
		}
		added := c.NarBytes()
		for _, p := range needed {
			info, _ := c.Info(p)
			added -= info.NarSize
		}
		better := added < bytes
		if added <= small {
			better = added > bytes || bytes > small
		}
		if added > 0 && (bytes == 0 || better) {
			at, bytes = i, added
		}
	}
	return at, bytes, nil
}
