package storedb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb/internal/btree"
)

// Output is where a derivation puts one of its outputs: a row of
// DerivationOutputs.
type Output struct {
	Drv  store.Path
	Name string     // mostly "out"
	Path store.Path // need not be in the store
}

func (o Output) compare(p Output) int {
	return cmp.Or(strings.Compare(string(o.Drv), string(p.Drv)), strings.Compare(o.Name, p.Name))
}

// outputPath is an entry of IndexDerivationOutputs.
type outputPath struct {
	path store.Path
	row  int64
}

// writeOutputs writes DerivationOutputs and its indexes.
func (w *writer) writeOutputs() error {
	if w.opts.Outputs == nil {
		return nil
	}
	table, err := w.skel.table(w.file, "DerivationOutputs")
	if err != nil {
		return err
	}
	byDrv, err := w.skel.index(w.file, "sqlite_autoindex_DerivationOutputs_1")
	if err != nil {
		return err
	}
	var byPath []outputPath
	var last Output
	for o, err := range w.opts.Outputs {
		if err != nil {
			return err
		}
		drv, err := w.checkOutput(o, last)
		if err != nil {
			return err
		}
		row := int64(len(byPath) + 1)
		if err := w.writeOutput(table, byDrv, row, int64(drv), o); err != nil {
			return fmt.Errorf("output %s of %s: %w", o.Name, o.Drv, err)
		}
		byPath = append(byPath, outputPath{path: o.Path, row: row})
		if err := w.step(0); err != nil {
			return err
		}
		last = o
	}
	return w.writeOutputPaths(byPath)
}

// checkOutput returns the id of o's derivation.
func (w *writer) checkOutput(o, last Output) (uint32, error) {
	if err := checkOutputName(o.Name); err != nil {
		return 0, fmt.Errorf("%s: %w", o.Drv, err)
	}
	if _, err := store.ParsePath(string(o.Path)); err != nil {
		return 0, fmt.Errorf("output %s of %s: %w", o.Name, o.Drv, err)
	}
	if o.compare(last) <= 0 {
		return 0, fmt.Errorf("output %s of %s does not come after output %s of %s: they must be sorted", o.Name, o.Drv, last.Name, last.Drv)
	}
	drv := w.ids.find(o.Drv)
	if drv == 0 {
		return 0, fmt.Errorf("derivation %s is not among the paths", o.Drv)
	}
	return drv, nil
}

// checkOutputName follows Nix: what may be in a store path's name may be in an
// output's.
func checkOutputName(name string) error {
	if _, err := store.ParseBase(strings.Repeat("0", store.DigestLen) + "-" + name); err != nil {
		return errors.New("not an output name: " + fmt.Sprintf("%.100q", name))
	}
	return nil
}

func (w *writer) writeOutput(table *btree.Table, byDrv *btree.Index, row, drv int64, o Output) error {
	w.rec.Reset()
	w.rec.Int(drv)
	w.rec.Text(o.Name)
	w.rec.Text(string(o.Path))
	if err := table.Append(row, w.rec.Bytes()); err != nil {
		return err
	}
	w.rec.Reset()
	w.rec.Int(drv)
	w.rec.Text(o.Name)
	w.rec.Int(row)
	return byDrv.Append(w.rec.Bytes())
}

func (w *writer) writeOutputPaths(byPath []outputPath) error {
	index, err := w.skel.index(w.file, "IndexDerivationOutputs")
	if err != nil {
		return err
	}
	slices.SortFunc(byPath, func(a, b outputPath) int {
		return cmp.Or(strings.Compare(string(a.path), string(b.path)), cmp.Compare(a.row, b.row))
	})
	for _, o := range byPath {
		w.rec.Reset()
		w.rec.Text(string(o.path))
		w.rec.Int(o.row)
		if err := index.Append(w.rec.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
