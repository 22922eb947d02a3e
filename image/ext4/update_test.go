package ext4

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bigdisk/image"
	"bigdisk/image/internal/treegen"
	"bigdisk/image/read"
)

// fakeDisk is a disk in memory that can stop at any step, and lose what was
// not synced.
type fakeDisk struct {
	pages   map[int64][]byte // as it is seen
	durable map[int64][]byte
	pending []func(map[int64][]byte)
	size    int64
	room    int64
	steps   int  // how many are left
	noPunch bool // as block devices that cannot make zeros
	count   int
}

var errPower = errors.New("no power")

func newFakeDisk(t testing.TB, path string) *fakeDisk {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &fakeDisk{pages: map[int64][]byte{}, size: int64(len(raw)), room: maxBlocks * blockSize, steps: 1 << 40}
	for at := 0; at < len(raw); at += blockSize {
		if p := raw[at : at+blockSize]; !bytes.Equal(p, zeroBlock[:]) {
			d.pages[int64(at)] = p
		}
	}
	d.durable = maps.Clone(d.pages)
	return d
}

// copy is another disk with the same on it.
func (d *fakeDisk) copy() *fakeDisk {
	c := *d
	c.pages, c.durable, c.pending = maps.Clone(d.pages), maps.Clone(d.pages), nil
	return &c
}

func put(pages map[int64][]byte, p []byte, at int64) {
	for len(p) > 0 {
		page := at &^ (blockSize - 1)
		n := min(int64(len(p)), page+blockSize-at)
		fresh := make([]byte, blockSize)
		copy(fresh, pages[page])
		copy(fresh[at-page:], p[:n])
		pages[page] = fresh
		p, at = p[n:], at+n
	}
}

func (d *fakeDisk) step(change func(map[int64][]byte)) error {
	d.count++
	if d.steps--; d.steps < 0 {
		return errPower
	}
	change(d.pages)
	d.pending = append(d.pending, change)
	return nil
}

func (d *fakeDisk) WriteAt(p []byte, at int64) (int, error) {
	p = bytes.Clone(p)
	if err := d.step(func(pages map[int64][]byte) { put(pages, p, at) }); err != nil {
		return 0, err
	}
	d.size = max(d.size, at+int64(len(p)))
	return len(p), nil
}

func (d *fakeDisk) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		p[i] = 0
	}
	n := min(int64(len(p)), max(0, d.size-at))
	for done := int64(0); done < n; {
		page := (at + done) &^ (blockSize - 1)
		k := min(n-done, page+blockSize-at-done)
		if from := d.pages[page]; from != nil {
			copy(p[done:done+k], from[at+done-page:])
		}
		done += k
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (d *fakeDisk) Sync() error {
	d.count++
	if d.steps--; d.steps < 0 {
		return errPower
	}
	d.durable, d.pending = maps.Clone(d.pages), nil
	return nil
}

func (d *fakeDisk) Punch(at, n int64) error {
	if d.noPunch {
		return errors.New("cannot")
	}
	return d.step(func(pages map[int64][]byte) {
		for page := range pages {
			if page >= at && page < at+n {
				delete(pages, page)
			}
		}
	})
}

func (d *fakeDisk) Resize(size int64) error {
	if err := d.Punch(size, 1<<60); err != nil && !d.noPunch {
		return err
	}
	d.size = size
	return nil
}

func (d *fakeDisk) Room() int64 { return d.room }

// lose goes back to what was synced, and some of what came after.
func (d *fakeDisk) lose(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	for _, change := range d.pending {
		if rnd.IntN(2) == 0 {
			change(d.durable)
		}
	}
	d.pages, d.pending, d.steps = d.durable, nil, 1<<40
	d.durable = maps.Clone(d.pages)
}

func (d *fakeDisk) sum() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintln(h, d.size)
	for _, at := range slices.Sorted(maps.Keys(d.pages)) {
		if p := d.pages[at]; at < d.size && !bytes.Equal(p, zeroBlock[:]) {
			fmt.Fprintln(h, at)
			h.Write(p)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// save writes the disk to a file.
func (d *fakeDisk) save(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(d.size); err != nil {
		t.Fatal(err)
	}
	for at, p := range d.pages {
		if at < d.size {
			if _, err := f.WriteAt(p, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path
}

// update changes the image on d into the tree, finishing what was interrupted.
func update(t testing.TB, d Disk, tree tree, opts Options) (*Update, error) {
	token := [32]byte{1, 2, 3}
	if _, err := Finish(d, func(got [32]byte) error {
		if got != token {
			return fmt.Errorf("the token is %x", got)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	before, size, err := Before(d)
	if err != nil {
		return nil, err
	}
	kept := openEarlier(t, before, size)
	kept.fit(tree)
	u, err := NewUpdate(t.Context(), d, opts)
	if err != nil {
		return nil, err
	}
	add := addKept(u.Writer, tree, kept)
	if err := errors.Join(add, u.Close()); err != nil || u.Unchanged() {
		return u, err
	}
	return u, u.Switch(token, func() error { return checkView(t, u) })
}

// checkView looks, where that is cheap, whether the image will be what it is
// said to be.
func checkView(t testing.TB, u *Update) error {
	d, ok := u.disk.Disk.(*fakeDisk)
	if !ok || d.steps < 1<<39 {
		return nil
	}
	used := u.Layout().Metadata
	for _, unit := range u.Layout().Units {
		used = append(used, unit.Extents...)
	}
	sum := func(r io.ReaderAt) image.HexSHA256 {
		sum, err := image.HashExtents(t.Context(), r, used, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	will := sum(u.Image())
	after := d.copy()
	if _, err := Finish(after, func([32]byte) error { return nil }); err != nil {
		return err
	}
	if sum(after) != will {
		t.Error("the image is not what it was to be")
	}
	return nil
}

func checkUpdated(t *testing.T, d *fakeDisk, tree tree) {
	t.Helper()
	path := d.save(t)
	fsck(t, path)
	checkMounted(t, path, tree, 1)
}

// release is a tree of a store, and of what else is in an image.
func releaseTree(n uint64) tree {
	return treegen.Join(stores(n), treegen.Of(
		treegen.File("zz", treegen.Noise(100_000, n)), treegen.File("zzz", treegen.Striped(9, 4096, n)),
		treegen.Symlink("zzzz", string(bytes.Repeat([]byte("x"), 99))), treegen.File("zzzzz", treegen.Striped(9, 4096, 1))))
}

// TestUpdate goes through many releases on one disk.
func TestUpdate(t *testing.T) {
	for _, opts := range []Options{smallImage, {RoundTo: 1 << 20, Writable: true}, {Size: 48 << 20}} {
		for _, noPunch := range []bool{false, true} {
			path, _ := build(t, releaseTree(0), opts)
			d := newFakeDisk(t, path)
			d.noPunch = noPunch
			for n := range uint64(12) {
				u, err := update(t, d, releaseTree(n+1), opts)
				if err != nil {
					t.Fatalf("%+v: release %d: %v", opts, n, err)
				}
				if d.size != u.Layout().Size || d.size > 64<<20 {
					t.Errorf("%d bytes, the layout says %d", d.size, u.Layout().Size)
				}
				if n%4 == 3 {
					checkUpdated(t, d, releaseTree(n+1))
				}
				if t.Failed() {
					t.Fatalf("%+v, release %d", opts, n)
				}
			}
			u, err := update(t, d, releaseTree(12), opts)
			if err != nil || u.Unchanged() == noPunch {
				t.Errorf("the same once more: %v, unchanged %v", err, u.Unchanged())
			}
		}
	}
}

// TestUpdateInterrupted cuts an update after every step, and runs it again.
func TestUpdateInterrupted(t *testing.T) {
	path, _ := build(t, releaseTree(0), smallImage)
	base := newFakeDisk(t, path)
	if _, err := update(t, base, releaseTree(1), smallImage); err != nil {
		t.Fatal(err)
	}
	for _, noPunch := range []bool{false, true} {
		base.noPunch = noPunch
		whole := base.copy()
		whole.count = 0
		if _, err := update(t, whole, releaseTree(2), smallImage); err != nil {
			t.Fatal(err)
		}
		checkUpdated(t, whole, releaseTree(2))
		for steps := range whole.count {
			for _, seed := range []uint64{0, uint64(steps) + 1} {
				d := base.copy()
				d.steps = steps
				if _, err := update(t, d, releaseTree(2), smallImage); !errors.Is(err, errPower) {
					t.Fatalf("after %d steps: %v", steps, err)
				}
				d.steps = 1 << 40
				if seed > 0 {
					d.lose(seed)
				}
				checkHalf(t, d)
				if _, err := update(t, d, releaseTree(2), smallImage); err != nil {
					t.Fatalf("after %d steps, again: %v", steps, err)
				}
				if !noPunch && d.sum() != whole.sum() {
					t.Errorf("after %d steps the image is another one", steps)
				}
				if noPunch && steps%5 == 0 && seed > 0 {
					checkUpdated(t, d, releaseTree(2))
				}
				if t.Failed() {
					t.Fatalf("after %d steps of %d, seed %d, noPunch %v", steps, whole.count, seed, noPunch)
				}
			}
		}
		t.Logf("%d steps", whole.count)
	}
}

// checkHalf wants what an interrupted update has left to be one image or the
// other, or none.
func checkHalf(t *testing.T, d *fakeDisk) {
	t.Helper()
	im, err := read.New(d, d.size)
	if err != nil {
		if !errors.Is(err, read.ErrUnfinished) {
			t.Errorf("it is refused with %v", err)
		}
		return
	}
	root, err := im.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := im.Walk(root, func(string, *read.Node, bool) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestUpdateFails wants the old image back, byte for byte, when an update
// cannot go on.
func TestUpdateFails(t *testing.T) {
	path, _ := build(t, releaseTree(0), smallImage)
	d := newFakeDisk(t, path)
	want := d.sum()
	u, err := NewUpdate(t.Context(), d, smallImage)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.New(d, d.size); !errors.Is(err, read.ErrUnfinished) {
		t.Errorf("in between it is opened with %v", err)
	}
	if err := u.Create(file("a", 10<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := treegen.Noise(5<<20, 1).WriteTo(u); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if d.sum() != want {
		t.Error("the image is not what it was")
	}
}

// TestUpdateTwins has more names for a file than an inode can have, and drops
// some of the first inode's.
func TestUpdateTwins(t *testing.T) {
	skipShort(t)
	all := treegen.Duplicates("same", 70_000, treegen.Noise(5000, 1))
	path, _ := build(t, all, smallImage)
	d := newFakeDisk(t, path)
	fewer := tree(func(yield func(treegen.Item) bool) {
		i := 0
		for item := range all {
			if i++; i > 1000 && i < 2000 || i%2 == 0 && i > 69_000 {
				continue
			}
			if !yield(item) {
				return
			}
		}
		for item := range treegen.Duplicates("same2", 70_000, treegen.Noise(5000, 1)) {
			if !yield(item) {
				return
			}
		}
	})
	if _, err := update(t, d, fewer, smallImage); err != nil {
		t.Fatal(err)
	}
	checkUpdated(t, d, fewer)
	if _, err := update(t, d, all, smallImage); err != nil {
		t.Fatal(err)
	}
	checkUpdated(t, d, all)
}

// TestUpdateRoom wants an image that cannot grow to say so, and to stay.
func TestUpdateRoom(t *testing.T) {
	path, _ := build(t, releaseTree(0), smallImage)
	d := newFakeDisk(t, path)
	want := d.sum()
	d.room = d.size
	big := treegen.Join(releaseTree(1), treegen.Of(treegen.File("zzzzzzz", treegen.Noise(3<<20, 1))))
	if _, err := update(t, d, big, smallImage); !errors.Is(err, errNoRoom) {
		t.Error(err)
	}
	if d.sum() != want {
		t.Error("the image is not what it was")
	}
	d.room += 100 << 20
	if _, err := update(t, d, big, smallImage); err != nil {
		t.Fatal(err)
	}
	checkUpdated(t, d, big)
}

// TestUpdateForeign wants images that are not as this package writes them to be
// left alone.
func TestUpdateForeign(t *testing.T) {
	path, _ := build(t, releaseTree(0), smallImage)
	whole := newFakeDisk(t, path)
	for name, spoil := range map[string]func(d *fakeDisk){
		"no filesystem": func(d *fakeDisk) { put(d.pages, make([]byte, 1024), superOffset) },
		"superblock":    func(d *fakeDisk) { put(d.pages, []byte{7}, superOffset+0x78) },
		"descriptor":    func(d *fakeDisk) { put(d.pages, []byte{7}, blockSize) },
		"bitmap":        func(d *fakeDisk) { put(d.pages, []byte{7}, 2*blockSize+9) },
	} {
		d := whole.copy()
		spoil(d)
		before := d.sum()
		if _, err := NewUpdate(t.Context(), d, smallImage); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
		if d.sum() != before {
			t.Errorf("%s: it was written to", name)
		}
	}
	d := whole.copy()
	u, err := NewUpdate(t.Context(), d, smallImage)
	if err != nil {
		t.Fatal(err)
	}
	free := &image.Kept{Unit: &image.KeptUnit{}, Place: image.FilePlace{Runs: []image.BlockRun{{Physical: u.old.free[0].start, Length: 1}}}}
	if err := u.CreateKept(file("a", 5), free); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); !errors.Is(err, ErrForeign) {
		t.Errorf("blocks that are free: %v", err)
	}
	if d.sum() != whole.sum() {
		t.Error("the image is not what it was")
	}
}
