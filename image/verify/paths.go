package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/internal/filesum"
	"bigdisk/image/read"
)

// storeName is a name in /nix/store that a store path can have.
type storeName struct {
	path  store.Path
	entry read.DirEntry
	row   int32 // its row in the database, -1 without
}

// listStore reads /nix/store.
func (v *verifier) listStore() error {
	dir, err := v.im.Lookup("nix/store")
	if err != nil {
		return err
	}
	if dir.Kind != store.Directory {
		v.errorf(Unreadable, "/nix/store", "not a directory")
		return nil
	}
	entries, err := v.im.ReadDir(dir)
	if err != nil {
		return err
	}
	v.names = make([]storeName, 0, len(entries))
	for _, e := range entries {
		p, err := store.ParseBase(e.Name)
		if e.Name == ".links" {
			continue
		}
		if err != nil {
			v.errorf(NotStorePath, clip("/nix/store/"+e.Name), "%v", err)
			continue
		}
		n := storeName{path: p, entry: e, row: -1}
		if v.db != nil {
			n.row = int32(v.db.find(p))
		}
		if n.row >= 0 {
			n.path = v.db.rows[n.row].path // one string for both
		}
		v.names = append(v.names, n)
	}
	return nil
}

// compareLists holds the names on the disk against those in the database and
// in the manifest.
func (v *verifier) compareLists() {
	if v.db != nil {
		for i := range v.names {
			if v.names[i].row < 0 {
				v.errorf(PathNotInDatabase, string(v.names[i].path), "it is on the disk, but the database has no row for it")
			}
		}
		for i := range v.db.rows {
			if p := v.db.rows[i].path; !v.onDisk(p) {
				v.errorf(PathNotOnDisk, string(p), "the database has a row for it, but it is not on the disk")
			}
		}
	}
	if v.Manifest != nil {
		v.compareManifestPaths()
	}
}

// onDisk reports whether /nix/store has a path.
func (v *verifier) onDisk(p store.Path) bool {
	_, ok := slices.BinarySearchFunc(v.names, p, func(n storeName, p store.Path) int { return strings.Compare(string(n.path), string(p)) })
	return ok
}

// largePath is the size in bytes of a NAR from which on a path is read first,
// so that no worker ends up with it alone.
const largePath = 64 << 20

// checkPaths reads all store paths: large ones first, the others as they lie in
// the image, for every other order unpacks the same blocks again and again.
func (v *verifier) checkPaths(ctx context.Context) error {
	order := make([]int32, len(v.names))
	var total int64
	for i := range order {
		order[i] = int32(i)
		if r := v.row(i); r != nil {
			total += r.size
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		large := func(i int32) int64 { return max(0, v.size(int(i))-largePath) }
		return cmp.Or(cmp.Compare(large(b), large(a)), cmp.Compare(v.names[a].entry.Ino(), v.names[b].entry.Ino()))
	})
	progress := v.stage("store paths", total)
	defer progress.Finish()
	g, running := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(v.Jobs, len(order)) {
		g.Go(func() error {
			w := newPathReader(running, v, progress)
			for i := next.Add(1) - 1; i < int64(len(order)); i = next.Add(1) - 1 {
				if err := w.check(int(order[i])); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (v *verifier) row(i int) *row {
	if at := v.names[i].row; at >= 0 {
		return &v.db.rows[at]
	}
	return nil
}

func (v *verifier) size(i int) int64 {
	if r := v.row(i); r != nil {
		return r.size
	}
	return 0
}

// pathReader reads one store path after the other, for one worker.
type pathReader struct {
	v        *verifier
	ctx      context.Context
	progress Counter
	nar      *narHasher
	scan     scanner

	at    string // the store path
	row   int32
	files int64
	// sums are what the manifest has for the files that are still to come,
	// summed tells whether it has any.
	sums   image.FileSums
	summed bool
	sum    *filesum.Hash
	// mentioned has the rows that the contents mention.
	mentioned map[int32]struct{}
}

func newPathReader(ctx context.Context, v *verifier, progress Counter) *pathReader {
	w := &pathReader{v: v, ctx: ctx, progress: progress, nar: newNarHasher(), sum: filesum.New(), mentioned: make(map[int32]struct{})}
	w.scan.found = func(b []byte) {
		if i := v.db.findDigest(b); i >= 0 {
			w.mentioned[int32(i)] = struct{}{}
		}
	}
	return w
}

// check reads one store path and holds it against its row.
func (w *pathReader) check(i int) error {
	n := &w.v.names[i]
	w.at, w.row, w.files = string(n.path), n.row, 0
	m := w.v.manifestPath(n.path)
	if w.sums, w.summed = nil, m != nil; m != nil {
		w.sums = m.Sums
	}
	w.nar.reset()
	clear(w.mentioned)
	err := read.Guard("reading "+w.at, func() error {
		// First, so that a disk is read once: what is unpacked then is in memory.
		if err := w.v.checkPacked(w.ctx, m); err != nil {
			return err
		}
		top, err := w.v.im.Node(&n.entry)
		if err != nil {
			return err
		}
		return w.v.im.Walk(top, w.visit)
	})
	if err != nil {
		w.sum = filesum.New() // a file may have been read in part
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		return w.v.soften(w.at, err)
	}
	hash, size := w.nar.sum()
	w.compare(hash, size)
	if m != nil && m.Files != w.files {
		w.v.errorf(ManifestFiles, w.at, "it has %d files on the disk and %d in the manifest", w.files, m.Files)
	}
	if len(w.sums) > 0 {
		w.v.errorf(ManifestSum, w.at, "the manifest has sums of %d more files than there are", len(w.sums))
	}
	return nil
}

// compare holds what was computed against the database.
func (w *pathReader) compare(hash store.Hash, size int64) {
	if w.row < 0 {
		return
	}
	r := &w.v.db.rows[w.row]
	if size != r.size {
		w.v.errorf(NarSize, w.at, "its NAR has %d bytes, but the database says %d", size, r.size)
	}
	if hash != r.hash {
		w.v.errorf(NarHash, w.at, "its NAR hashes to %v, but the database says %v", hash, r.hash)
	}
	for i := range w.mentioned {
		if _, ok := slices.BinarySearch(w.v.db.references(int(w.row)), i); !ok && i != w.row {
			w.v.errorf(MissingReference, w.at, "its contents mention %s, but the database has no row for that in Refs", w.v.db.rows[i].path)
		}
	}
}

// visit adds one file to the NAR.
func (w *pathReader) visit(path string, n *read.Node, leave bool) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if leave {
		w.nar.leave()
		if path != "" {
			w.nar.leave()
		}
		return nil
	}
	w.v.count(n)
	w.v.checkStoreNode(w.at, path, n)
	if n.Kind == 0 {
		return fmt.Errorf("%w: %q is a device, FIFO or socket", errNoNar, path)
	}
	if n.Kind == store.Directory {
		if err := w.v.enter(n); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	if path != "" {
		w.nar.enter(name)
	}
	w.nar.node(n.Kind, n.Size, n.Mode&0o100 != 0, n.Target)
	w.look(name)
	switch n.Kind {
	case store.Symlink:
		w.look(n.Target)
	case store.Regular:
		w.files++
		if err := w.contents(n); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	if path != "" && n.Kind != store.Directory {
		w.nar.leave()
	}
	return nil
}

// errNoNar is wrapped for what a NAR cannot hold; it has been reported.
var errNoNar = errors.New("no NAR can hold it")

// look searches a short text for digests.
func (w *pathReader) look(text string) {
	if len(text) >= store.DigestLen && w.scans() {
		w.scan.reset()
		w.scan.scan([]byte(text))
	}
}

func (w *pathReader) scans() bool {
	return !w.v.NoScan && w.row >= 0 && w.v.db.rows[w.row].scan
}

func (w *pathReader) contents(n *read.Node) error {
	f, err := w.v.im.OpenFile(n)
	if err != nil {
		return err
	}
	defer f.Close()
	scan := w.scans()
	w.scan.reset()
	for {
		b, err := f.Next()
		if err == io.EOF {
			w.nar.endFile()
			w.compareSum(n)
			if f.Tail() {
				w.v.errorf(BehindEnd, w.at, "there is something behind a file's end in its last block")
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.v.spend(w.ctx, len(b)); err != nil {
			return err
		}
		w.nar.data(b)
		if w.summed {
			w.sum.Add(b)
		}
		if scan {
			w.scan.scan(b)
		}
		w.progress.Add(int64(len(b)))
	}
}

// compareSum holds the file that has been read against the manifest's next sum.
func (w *pathReader) compareSum(n *read.Node) {
	if !w.summed || n.Size == 0 {
		return
	}
	sum := w.sum.End(n.Size)
	switch {
	case len(w.sums) == 0:
		w.v.errorf(ManifestSum, w.at, "the manifest has fewer sums than there are files")
		w.summed = false
		return
	case sum != w.sums[0]:
		w.v.errorf(ManifestSum, w.at, "a file has the sum %x, but the manifest says %x", sum, w.sums[0])
	}
	w.sums = w.sums[1:]
}
