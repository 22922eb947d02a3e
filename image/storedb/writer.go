package storedb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb/internal/btree"
)

const (
	// maxPaths and maxRefs are what 32-bit numbers allow; SQLite would take
	// more.
	maxPaths = math.MaxUint32 - 1
	maxRefs  = math.MaxUint32

	// indexRows is how many entries of IndexReference are sorted at a time, four
	// bytes each.
	indexRows = 4 << 20
)

// writer fills the database. Paths go by their ids, references by the numbers
// of their rows in Refs.
type writer struct {
	meter
	opts  Options
	ids   ids
	spill *spill
	// uses counts the references to each path.
	uses []uint32
	skel *skeleton
	file *btree.File
	rec  btree.Record
}

// write makes the database in out, which is empty.
func write(ctx context.Context, out *os.File, infos iter.Seq2[*store.PathInfo, error], opts Options, indexRows int) (err error) {
	w := &writer{meter: meter{ctx: ctx, report: opts.Progress}, opts: opts}
	if err := w.number(infos); err != nil {
		return err
	}
	if w.spill, err = newSpill(opts.TempDir); err != nil {
		return fmt.Errorf("temporary file for references: %w", err)
	}
	defer func() { err = errors.Join(err, w.spill.close()) }()
	if w.skel, err = newSkeleton(len(w.ids.paths)); err != nil {
		return fmt.Errorf("empty database: %w", err)
	}
	if w.file, err = btree.NewFile(out, w.skel.data); err != nil {
		return err
	}
	if err := w.writePaths(infos); err != nil {
		return err
	}
	if err := w.writeRefs(); err != nil {
		return fmt.Errorf("table Refs: %w", err)
	}
	if err := w.writeReferenceIndex(indexRows); err != nil {
		return fmt.Errorf("index on references: %w", err)
	}
	if err := w.writeOutputs(); err != nil {
		return fmt.Errorf("derivation outputs: %w", err)
	}
	if err := w.file.Finish(); err != nil {
		return err
	}
	return w.finish()
}

// number checks all infos by themselves and gives the paths their ids.
func (w *writer) number(infos iter.Seq2[*store.PathInfo, error]) error {
	for info, err := range infos {
		if err != nil {
			return err
		}
		if err := check(info); err != nil {
			return err
		}
		if err := w.ids.add(info.Path); err != nil {
			return err
		}
		w.total += 2 + 3*int64(len(info.References))
		if err := w.step(1); err != nil {
			return err
		}
	}
	w.ids.seal()
	w.uses = make([]uint32, len(w.ids.paths)+1)
	w.known = true
	return nil
}

// paths is what a look-up by path reads: filled side by side, so that it lies
// together.
type paths struct {
	rows   *btree.Table // ValidPaths
	byPath *btree.Index // ValidPaths(path)
	byRefs *btree.Index // Refs(referrer, reference)
}

// writePaths writes what there is to tell of each path, and spills its
// references.
func (w *writer) writePaths(infos iter.Seq2[*store.PathInfo, error]) (err error) {
	var p paths
	if p.rows, err = w.skel.table(w.file, "ValidPaths"); err != nil {
		return err
	}
	if p.byPath, err = w.skel.index(w.file, "sqlite_autoindex_ValidPaths_1"); err != nil {
		return err
	}
	if p.byRefs, err = w.skel.index(w.file, "sqlite_autoindex_Refs_1"); err != nil {
		return err
	}
	var id uint32
	var row int64
	var refs []uint32
	for info, err := range infos {
		if err != nil {
			return err
		}
		id++
		if int64(id) > int64(len(w.ids.paths)) || w.ids.paths[id-1] != info.Path {
			return fmt.Errorf("%s: the paths were others when they were first listed", info.Path)
		}
		if refs, err = w.references(refs[:0], info); err != nil {
			return err
		}
		if err := w.writePath(&p, id, info, refs, &row); err != nil {
			return fmt.Errorf("%s: %w", info.Path, err)
		}
		if err := w.step(1 + int64(len(refs))); err != nil {
			return err
		}
	}
	if int(id) != len(w.ids.paths) {
		return fmt.Errorf("%d paths were listed first, then %d", len(w.ids.paths), id)
	}
	return nil
}

// references appends the ids of info's references to refs, sorted.
func (w *writer) references(refs []uint32, info *store.PathInfo) ([]uint32, error) {
	sorted := true
	for _, r := range info.References {
		id := w.ids.find(r)
		if id == 0 {
			return nil, fmt.Errorf("%s refers to %s, which is not among the paths: a lower store must hold whole closures", info.Path, r)
		}
		sorted = sorted && (len(refs) == 0 || refs[len(refs)-1] < id)
		refs = append(refs, id)
	}
	if !sorted {
		slices.Sort(refs)
		refs = slices.Compact(refs)
	}
	return refs, nil
}

// writePath writes the row of one path, its index entry and its references'.
// row is the number of the last row in Refs.
func (w *writer) writePath(p *paths, id uint32, info *store.PathInfo, refs []uint32, row *int64) error {
	w.rec.Reset()
	pathColumns(&w.rec, info, w.opts.RegistrationTime)
	if err := p.rows.Append(int64(id), w.rec.Bytes()); err != nil {
		return err
	}
	w.rec.Reset()
	w.rec.Text(string(info.Path))
	w.rec.Int(int64(id))
	if err := p.byPath.Append(w.rec.Bytes()); err != nil {
		return err
	}
	if *row+int64(len(refs)) > maxRefs {
		return fmt.Errorf("more than %d references", int64(maxRefs))
	}
	for _, r := range refs {
		*row++
		w.uses[r]++
		if err := p.byRefs.Append(w.ints(int64(id), int64(r), *row)); err != nil {
			return err
		}
	}
	return w.spill.add(refs)
}

// writeRefs writes the rows of Refs.
func (w *writer) writeRefs() error {
	table, err := w.skel.table(w.file, "Refs")
	if err != nil {
		return err
	}
	var row int64
	return w.spill.each(w.ctx, func(referrer, reference uint32) error {
		row++
		if err := table.Append(row, w.ints(int64(referrer), int64(reference))); err != nil {
			return err
		}
		return w.step(1)
	})
}

// writeReferenceIndex writes IndexReference: for each path, the rows of Refs
// that refer to it. It sorts by counting, for as many paths at a time as have
// no more than most entries together (or for one path), and reads the spilled
// references once each time.
func (w *writer) writeReferenceIndex(most int) error {
	index, err := w.skel.index(w.file, "IndexReference")
	if err != nil {
		return err
	}
	var rows []uint32
	for from := 1; from < len(w.uses); {
		to, n := from, 0
		for to < len(w.uses) && (to == from || n+int(w.uses[to]) <= most) {
			n, w.uses[to], to = n+int(w.uses[to]), uint32(n), to+1
		}
		rows = slices.Grow(rows[:0], n)[:n]
		if err := w.gather(rows, uint32(from), uint32(to)); err != nil {
			return err
		}
		start := uint32(0)
		for id := from; id < to; id++ {
			for _, row := range rows[start:w.uses[id]] {
				if err := index.Append(w.ints(int64(id), int64(row))); err != nil {
					return err
				}
			}
			if err := w.step(int64(w.uses[id] - start)); err != nil {
				return err
			}
			start = w.uses[id]
		}
		from = to
	}
	return nil
}

// gather puts the rows that refer to the paths [from, to) into rows, where uses
// says each path's begin; then uses says where they end.
func (w *writer) gather(rows []uint32, from, to uint32) error {
	if len(rows) == 0 {
		return nil
	}
	var row uint32
	return w.spill.each(w.ctx, func(_, reference uint32) error {
		row++
		if from <= reference && reference < to {
			rows[w.uses[reference]] = row
			w.uses[reference]++
		}
		return nil
	})
}

// ints makes a record of integers.
func (w *writer) ints(columns ...int64) []byte {
	w.rec.Reset()
	for _, v := range columns {
		w.rec.Int(v)
	}
	return w.rec.Bytes()
}
