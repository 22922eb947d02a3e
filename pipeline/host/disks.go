package host

import (
	"context"
	"fmt"

	"bigdisk/bundle/store"
)

// disks are the databases of mounted disks, by their roots.
type disks struct {
	roots []string
	dbs   []*database
}

func openDisks(ctx context.Context, roots []string) (*disks, error) {
	d := new(disks)
	for _, root := range roots {
		db, err := openDatabase(ctx, root)
		if err != nil {
			d.close()
			return nil, fmt.Errorf("%s: %w", root, err)
		}
		d.roots, d.dbs = append(d.roots, root), append(d.dbs, db)
	}
	return d, nil
}

// openWhatIsThere opens the databases of the disks that are still mounted.
func openWhatIsThere(ctx context.Context, all []stand) *disks {
	d := new(disks)
	for _, s := range all {
		if db, err := openDatabase(ctx, s.Dir); err == nil {
			d.roots, d.dbs = append(d.roots, s.Dir), append(d.dbs, db)
		}
	}
	return d
}

func (d *disks) close() {
	for _, db := range d.dbs {
		db.close()
	}
}

// find looks for a path with a hash: the disk that has it, and whether there is
// one.
func (d *disks) find(p store.Path, hash store.Hash) (root string, found bool, err error) {
	for i, db := range d.dbs {
		row, err := db.find(p)
		if err != nil {
			return "", false, err
		}
		if row != nil && row.hash == hash {
			return d.roots[i], true, nil
		}
	}
	return "", false, nil
}

// row is that of a path on the first disk that has it; nil if none has.
func (d *disks) row(p store.Path) (*validPath, error) {
	for _, db := range d.dbs {
		if row, err := db.find(p); row != nil || err != nil {
			return row, err
		}
	}
	return nil, nil
}
