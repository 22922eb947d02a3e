package base

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/internal/filesum"
	"bigdisk/image/read"
)

// Entry is an entry of a store path. Kept is set for files that are not empty.
type Entry struct {
	store.Entry
	Kept *image.Kept
}

// Unit returns all that is in a store path, in NAR order, for
// [image.KeptWriter]. The path's own data has been checked; that of files that
// another path was the first to need is checked when it is used. An error
// names the image; which path it is about the caller knows.
func (b *Image) Unit(ctx context.Context, path store.Path) ([]Entry, error) {
	entries, err := b.unit(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	return entries, nil
}

func (b *Image) unit(ctx context.Context, path store.Path) ([]Entry, error) {
	p := b.find(path)
	top, err := b.node(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	u := &unit{base: b, path: p, kept: &image.KeptUnit{Image: data{b.fs, b.name}, DataSum: p.DataSum, Release: b.release}, lengths: make(map[int64]uint32)}
	for _, x := range p.Data {
		u.kept.Data = append(u.kept.Data, image.Extent{Offset: x.Offset - b.fs.offset, Length: x.Length})
	}
	if err := b.im.Walk(top, u.visit); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if u.files != len(p.Sums) {
		return nil, fmt.Errorf("%w: %d files, its manifest has %d", ErrDamaged, u.files, len(p.Sums))
	}
	u.setLengths()
	if !b.trust {
		if err := u.check(ctx); err != nil {
			return nil, err
		}
	}
	return u.entries, nil
}

// unit is a store path that is being read.
type unit struct {
	base    *Image
	path    *image.ManifestPath
	kept    *image.KeptUnit
	entries []Entry
	files   int // that are not empty
	own     []ownFile
	lengths map[int64]uint32 // of the path's own fragment blocks, unpacked
}

// ownFile is a file whose data lies in its path's extents.
type ownFile struct {
	node *read.Node
	kept *image.Kept
}

func (u *unit) visit(path string, n *read.Node, leave bool) error {
	if leave {
		return nil
	}
	e := Entry{Entry: store.Entry{Path: path, Kind: n.Kind, Size: n.Size, Target: n.Target, Executable: n.Kind == store.Regular && n.Mode&0o111 != 0}}
	if n.Kind == store.Regular && n.Size > 0 {
		if u.files == len(u.path.Sums) {
			return fmt.Errorf("%q: there are more files than in the manifest", path)
		}
		k, err := u.file(path, n, u.path.Sums[u.files])
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		u.files++
		e.Kept = k
	}
	u.entries = append(u.entries, e)
	return nil
}

func (u *unit) file(path string, n *read.Node, sum image.FileSum) (*image.Kept, error) {
	place, err := u.base.im.Place(n)
	if err != nil {
		return nil, err
	}
	k := &image.Kept{Unit: u.kept, Sum: sum, Place: place}
	if place.Tail != nil {
		k.ReadTail = func(p []byte) error {
			if err := u.base.im.ReadTail(n, p); err != nil {
				return fmt.Errorf("%s: %w: %w", u.nameOf(path), ErrDamaged, err)
			}
			return nil
		}
	}
	if u.owns(place) {
		u.own = append(u.own, ownFile{n, k})
		if t := place.Tail; t != nil {
			size := int64(u.base.manifest.Options.BlockSize)
			u.lengths[t.Start] = max(u.lengths[t.Start], t.Offset+uint32(n.Size%size))
		}
	} else if !u.base.trust {
		k.Check = func() error {
			if err := u.checkFile(n, sum); err != nil {
				return fmt.Errorf("%s: %w", u.nameOf(path), err)
			}
			return nil
		}
	}
	return k, nil
}

// nameOf is what errors call a file by that is looked at after Unit.
func (u *unit) nameOf(path string) string {
	return fmt.Sprintf("%s: %s", u.base.name, filepath.Join(string(u.path.Path), path))
}

// owns tells whether all of a file's data lies in the path's extents.
func (u *unit) owns(p image.FilePlace) bool {
	const blockSize = filesum.BlockSize
	for _, r := range p.Runs {
		if !u.has(r.Physical*blockSize, r.Length*blockSize) {
			return false
		}
	}
	var length int64
	for _, size := range p.Blocks {
		length += int64(size &^ storedBlock)
	}
	return (length == 0 || u.has(p.Start, length)) &&
		(p.Tail == nil || u.has(p.Tail.Start, int64(p.Tail.Size&^storedBlock)))
}

// storedBlock is set in the size of a squashfs block that is not compressed.
const storedBlock = 1 << 24

func (u *unit) has(at, length int64) bool {
	for _, x := range u.kept.Data {
		if at >= x.Offset && at+length <= x.Offset+x.Length {
			return true
		}
	}
	return false
}

// setLengths tells the ends of files how long their fragment blocks are.
// Those of the path have no other ends in them.
func (u *unit) setLengths() {
	for _, f := range u.own {
		if t := f.kept.Place.Tail; t != nil {
			t.Length = u.lengths[t.Start]
		}
	}
}

// check reads the path's own data and holds it against the manifest.
func (u *unit) check(ctx context.Context) error {
	if u.files > 0 && u.path.DataSum == nil {
		return fmt.Errorf("%w: its manifest has no sum of the path's data", ErrDamaged)
	}
	if u.base.manifest.Image.Format == read.Ext4 {
		for _, f := range u.own {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := u.checkFile(f.node, f.kept.Sum); err != nil {
				return err
			}
		}
		return nil
	}
	if u.path.DataSum == nil {
		return nil
	}
	sum, err := image.SumData(ctx, u.base.fs, u.kept.Data, u.path.Sums, func(int64) {})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sum != *u.path.DataSum:
		return fmt.Errorf("%w: its data has the sum %s, its manifest says %s", ErrDamaged, sum, u.path.DataSum)
	}
	return nil
}

// checkFile reads a file and holds it against its sum.
func (u *unit) checkFile(n *read.Node, want image.FileSum) error {
	f, err := u.base.im.OpenFile(n)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer f.Close()
	h, _ := u.base.hashes.Get().(*filesum.Hash)
	if h == nil {
		h = filesum.New()
	}
	for {
		b, err := f.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		h.Add(b)
	}
	sum := h.End(n.Size)
	u.base.hashes.Put(h)
	switch {
	case sum != want:
		return fmt.Errorf("%w: a file's sum is %x, its manifest says %x", ErrDamaged, sum, want)
	case f.Tail(): // the block is copied as a whole
		return fmt.Errorf("%w: there is something behind a file's end in its last block", ErrDamaged)
	}
	return nil
}
