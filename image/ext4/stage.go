package ext4

import (
	"fmt"

	"bigdisk/image"
)

// staying says of files' data that it may stay where it is.
type staying struct {
	old *existing
	// twins has, for files with more names than an inode can have, where the
	// data of those inodes starts that may hold blocks of the old image.
	twins map[contentKey][]int64
}

// claim reports whether a new inode may have the runs. An inode with the same
// contents, if there is one, has as many names as it can, and starts at twin.
func (s *staying) claim(runs []image.BlockRun, key contentKey, isNew bool, twin int64) (bool, error) {
	for _, r := range runs {
		if end := r.Physical + r.Length; r.Physical < firstData || end > s.old.blocks || s.old.free.meets(r.Physical, end) {
			return false, fmt.Errorf("%w: blocks %d to %d of a file are not in use", ErrForeign, r.Physical, end)
		}
	}
	if isNew || len(runs) == 0 {
		return true, nil
	}
	starts, known := s.twins[key]
	if !known {
		starts = []int64{twin}
	}
	free := true
	for _, start := range starts {
		free = free && start != runs[0].Physical
	}
	if free {
		starts = append(starts, runs[0].Physical)
	}
	s.twins[key] = starts
	return free, nil
}

// finish writes the metadata where there is room for it.
func (u *Update) finish(f *finisher) error {
	if u.punch && f.uuid == u.old.super.UUID {
		u.same = true
		return u.Abandon()
	}
	f.meta = newBlockWriter(u.disk, 0)
	f.meta.take = func() (int64, int64, error) { return u.space.take(1) }
	u.space.open(int64(f.b.dirs.n + f.b.links.n))
	f.front = &u.front
	place := func() error { return u.place(f) }
	zero := func() error { return u.zeroTables(f.b.inodeCount()) }
	if err := f.run(f.directories, f.symlinks, place, f.inodes, zero, f.groups, f.superblock, u.stage); err != nil {
		return err
	}
	meta := append(spans{{0, 1 + u.geo.descBlocks}}, f.metaBlocks...)
	meta = append(meta, f.tree.runs...)
	for _, p := range []places{u.geo.blockBitmaps, u.geo.inodeBitmaps, u.geo.inodeTables} {
		meta = append(meta, p.spans...)
	}
	f.b.layout.Size = u.geo.blocks * blockSize
	f.b.layout.Metadata = append(f.b.layout.Metadata, meta.extents()...)
	u.layout = &f.b.layout
	return nil
}

// place finds room for all that has none yet, and so decides the geometry.
func (u *Update) place(f *finisher) error {
	if err := f.meta.flush(); err != nil {
		return err
	}
	tree, err := u.space.takeAll(f.allTreeBlocks())
	if err != nil {
		return fmt.Errorf("extent trees: %w", err)
	}
	f.tree = newBlockWriter(u.disk, 0)
	left := tree
	f.tree.take = func() (int64, int64, error) {
		x := left[0]
		left = left[1:]
		return x.start, x.blocks(), nil
	}
	var used spans
	for i := range f.b.extents.n {
		x := f.b.extents.at(i)
		used.add(x.start(), int64(x.len))
	}
	used = append(used, tree...)
	if used.normal() {
		return fmt.Errorf("%w: files have blocks in common", ErrForeign)
	}
	if f.geo, err = u.plan(f.opts, f.b.inodeCount(), used); err != nil {
		return err
	}
	u.geo = f.geo
	return nil
}

// plan finds the geometry of the smallest image that is no smaller than the old
// one, in which used is taken, and takes room for the groups' own blocks.
func (u *Update) plan(opts Options, inodes int64, used spans) (geometry, error) {
	for need := u.space.end(); ; {
		size, err := u.size(opts, need)
		if err != nil {
			return geometry{}, err
		}
		g, least, err := divide(opts, inodes, size)
		if err != nil {
			return g, err
		}
		if least > size {
			need = least
			continue
		}
		space := u.space.clone()
		if err := g.takeGroups(space); err != nil {
			return g, fmt.Errorf("bitmaps and inode tables: %w", err)
		}
		g.used = append(spans{{0, 1 + g.descBlocks}}, used...)
		for _, p := range []places{g.blockBitmaps, g.inodeBitmaps, g.inodeTables} {
			g.used = append(g.used, p.spans...)
		}
		g.used.normal()
		inUse := g.used.blocks()
		if need = max(space.end(), inUse+opts.spare(inUse)); need <= size {
			u.space = space
			return g, nil
		}
	}
}

// size is how many blocks the image gets if it needs so many.
func (u *Update) size(opts Options, need int64) (int64, error) {
	room := u.space.free[u.space.tail()].end
	if need > room {
		return 0, fmt.Errorf("the contents need %d bytes: %w than %d", need*blockSize, errNoRoom, room*blockSize)
	}
	if opts.Size != 0 {
		return opts.Size / blockSize, nil
	}
	if need <= u.old.blocks {
		return u.old.blocks, nil
	}
	round := opts.RoundTo / blockSize
	return min(ceilDiv(need, round)*round, room), nil
}

// takeGroups takes room for the groups' bitmaps and inode tables.
func (g *geometry) takeGroups(s *freeSpace) error {
	for _, p := range []*places{&g.blockBitmaps, &g.inodeBitmaps} {
		taken, err := s.takeAll(g.groups)
		if err != nil {
			return err
		}
		*p = newPlaces(taken)
	}
	var tables spans
	if start, err := s.run(g.groups * g.tableBlocks); err == nil {
		g.inodeTables = newPlaces(spans{{start, start + g.groups*g.tableBlocks}})
		return nil
	}
	for range g.groups {
		start, err := s.run(g.tableBlocks)
		if err != nil {
			return err
		}
		tables.add(start, g.tableBlocks)
	}
	g.inodeTables = newPlaces(tables)
	return nil
}

// zeroTables makes zeros of what is left of the inode tables after so many
// inodes: what was there before may be anything.
func (u *Update) zeroTables(inodes int64) error {
	var rest spans
	for i := ceilDiv(inodes, inodesPerBlock); i < u.geo.groups*u.geo.tableBlocks; i++ {
		rest.add(u.geo.inodeTables.at(i), 1)
	}
	if u.punch {
		return punch(u.disk, rest)
	}
	for _, x := range rest {
		for block := range x.blocks() {
			if _, err := u.disk.WriteAt(zeroBlock[:], (x.start+block)*blockSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// stage writes the copy of the front, from which it gets into its place, and
// sees that all is on the disk.
func (u *Update) stage() error {
	front := u.front.bytes((1 + u.geo.descBlocks) * blockSize)
	u.next = switchRecord{
		Magic: [magicLen]byte([]byte(switchMagic)), Size: u.geo.blocks * blockSize,
		Front: 1 + u.geo.descBlocks, CopySum: crc32c(^uint32(0), front),
	}
	if u.punch {
		u.next.Punch = 1
	}
	var at spans
	if start, err := u.space.run(u.next.Front); err == nil {
		at = spans{{start, start + u.next.Front}}
	} else if at, err = u.space.takeAll(u.next.Front); err != nil || len(at) > maxCopySpans {
		return fmt.Errorf("a copy of %d group descriptor blocks: %w", u.geo.descBlocks, errNoRoom)
	}
	u.next.Spans = uint32(len(at))
	for i, x := range at {
		u.next.Copy[i] = [2]uint64{uint64(x.start), uint64(x.blocks())}
		if _, err := u.disk.WriteAt(front[:x.blocks()*blockSize], x.start*blockSize); err != nil {
			return fmt.Errorf("writing a copy of the group descriptors: %w", err)
		}
		front = front[x.blocks()*blockSize:]
	}
	return u.disk.Sync()
}
