package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
)

// ErrLost is wrapped by the error about what was built on store paths that are
// on no disk any more.
var ErrLost = errors.New("lost store paths")

// busyTimeout is how long to wait for Nix to leave its database alone.
const busyTimeout = 10 * time.Second

// reconcile makes Nix's database of a writable store fit the disks that it is
// about to stand on. Nix writes down there every path of a disk that it was ever
// asked for, and believes it from then on:
//
//   - what nothing that was built refers to is forgotten; Nix will find it on
//     the disk again, if it is there;
//   - what is needed and has the contents it had stays as it is;
//   - what is needed and is on no disk is copied from where it was before;
//   - what is needed and has other contents on the new disk is taken from where
//     it was before, too.
func (o *OverlayOptions) reconcile(ctx context.Context, u upper, lowers, before []string) (copied, dropped []store.Path, err error) {
	if err := u.removeWhiteouts(); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(u.database()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil // nothing was built yet
	}
	db, err := openUpper(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	defer db.close()
	needed, rest := db.needed()
	lost, err := db.settle(ctx, needed, lowers, before)
	if err != nil {
		return nil, nil, err
	}
	if len(lost.missing) > 0 && !o.DropLost {
		return nil, nil, lost
	}
	for _, p := range lost.missing {
		o.Logger.Warn(fmt.Sprintf("%s is on no disk: what was built on it is given up", p))
	}
	dropped = db.referrers(lost.missing)
	for _, p := range dropped {
		rest = append(rest, db.rows[p])
	}
	if err := db.forget(rest); err != nil {
		return nil, nil, err
	}
	return lost.copied, dropped, nil
}

// lostError says what could not be found, and what was copied.
type lostError struct{ missing, copied []store.Path }

// Error names the first few.
func (e *lostError) Error() string {
	const most = 5
	var names []string
	for _, p := range e.missing[:min(most, len(e.missing))] {
		names = append(names, string(p))
	}
	if more := len(e.missing) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%v: what was built needs %s, which the new disks lack, and no disk from before is mounted that has it", ErrLost, strings.Join(names, ", "))
}

// Unwrap returns [ErrLost].
func (e *lostError) Unwrap() error { return ErrLost }

// upperDB is Nix's database of a writable store.
type upperDB struct {
	u     upper
	conn  *sqlite.Conn
	rows  map[store.Path]*upperRow
	refs  map[int64][]int64 // by referrer
	byID  map[int64]*upperRow
	owned map[string]bool // names in the upper directory
}

// upperRow is a row of ValidPaths.
type upperRow struct {
	validPath
	owned bool // its files are in the upper directory
}

func openUpper(ctx context.Context, u upper) (db *upperDB, err error) {
	db = &upperDB{u: u, rows: make(map[store.Path]*upperRow), refs: make(map[int64][]int64), byID: make(map[int64]*upperRow), owned: make(map[string]bool)}
	entries, err := os.ReadDir(u.path(upperName))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		db.owned[e.Name()] = true
	}
	if db.conn, err = sqlite.OpenConn(u.database(), sqlite.OpenReadWrite); err != nil {
		return nil, fmt.Errorf("%s: %w", u.database(), err)
	}
	db.conn.SetInterrupt(ctx.Done())
	db.conn.SetBusyTimeout(busyTimeout)
	if err := db.load(); err != nil {
		db.conn.Close()
		return nil, fmt.Errorf("%s: %w", u.database(), err)
	}
	return db, nil
}

func (db *upperDB) close() { db.conn.Close() }

// load reads all of it: what was ever asked for is little beside a disk.
func (db *upperDB) load() error {
	if err := sqlitex.ExecuteTransient(db.conn, "pragma foreign_keys = on", nil); err != nil {
		return err
	}
	err := sqlitex.ExecuteTransient(db.conn, "select id, path, hash, narSize from ValidPaths", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		row, err := parseRow(s)
		if err != nil {
			return err
		}
		r := &upperRow{*row, db.owned[row.path.Base()]}
		db.rows[r.path], db.byID[r.id] = r, r
		return nil
	}})
	if err != nil {
		return err
	}
	return sqlitex.ExecuteTransient(db.conn, "select referrer, reference from Refs", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		db.refs[s.ColumnInt64(0)] = append(db.refs[s.ColumnInt64(0)], s.ColumnInt64(1))
		return nil
	}})
}

// needed divides the rows of disks' paths: those in the closure of what was
// built, sorted, and the rest.
func (db *upperDB) needed() (needed []store.Path, rest []*upperRow) {
	reached := make(map[int64]bool)
	var todo []int64
	for _, r := range db.rows {
		if r.owned {
			reached[r.id], todo = true, append(todo, r.id)
		}
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, to := range db.refs[id] {
			if !reached[to] {
				reached[to], todo = true, append(todo, to)
			}
		}
	}
	for _, r := range db.rows {
		switch {
		case !reached[r.id]:
			rest = append(rest, r)
		case !r.owned:
			needed = append(needed, r.path)
		}
	}
	slices.Sort(needed)
	return needed, rest
}

// settle finds the paths that are needed, on the new disks or those before.
func (db *upperDB) settle(ctx context.Context, needed []store.Path, lowers, before []string) (*lostError, error) {
	found := new(lostError)
	now, err := openDisks(ctx, lowers)
	if err != nil {
		return nil, err
	}
	defer now.close()
	old := openWhatIsThere(ctx, before)
	defer old.close()
	for _, p := range needed {
		row := db.rows[p]
		_, same, err := now.find(p, row.hash)
		if err != nil {
			return nil, err
		}
		if same {
			continue
		}
		root, same, err := old.find(p, row.hash)
		if err != nil || !same {
			found.missing = append(found.missing, p)
			continue
		}
		if err := db.adopt(ctx, root, row); err != nil {
			return nil, err
		}
		found.copied = append(found.copied, p)
	}
	return found, nil
}

// adopt copies a store path from a disk into the upper directory.
func (db *upperDB) adopt(ctx context.Context, root string, row *upperRow) error {
	if err := checkContents(ctx, root, &row.validPath); err != nil {
		return err
	}
	staged := db.u.path(workName + "-copy")
	if err := removeTree(staged); err != nil {
		return err
	}
	if err := copyTree(ctx, filepath.Join(root, string(row.path)), staged); err != nil {
		return fmt.Errorf("copy %s: %w", row.path, err)
	}
	if err := makeOpaque(staged); err != nil {
		return fmt.Errorf("copy %s: %w", row.path, err)
	}
	if err := os.Rename(staged, db.u.path(upperName, row.path.Base())); err != nil {
		return err
	}
	row.owned = true
	return syncDir(db.u.path(upperName))
}

// referrers are the given paths and all that refer to them, directly or not,
// sorted.
func (db *upperDB) referrers(paths []store.Path) []store.Path {
	if len(paths) == 0 {
		return nil
	}
	back := make(map[int64][]int64)
	for from, to := range db.refs {
		for _, id := range to {
			back[id] = append(back[id], from)
		}
	}
	gone := make(map[store.Path]bool)
	var todo []int64
	for _, p := range paths {
		gone[p], todo = true, append(todo, db.rows[p].id)
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range back[id] {
			if r := db.byID[from]; r != nil && !gone[r.path] {
				gone[r.path], todo = true, append(todo, from)
			}
		}
	}
	return slices.Sorted(maps.Keys(gone))
}

// forget deletes rows. The files of what was built stay where they are, for
// Nix's garbage collector.
func (db *upperDB) forget(rows []*upperRow) (err error) {
	end, err := sqlitex.ImmediateTransaction(db.conn)
	if err != nil {
		return fmt.Errorf("%s: is Nix still running? %w", db.u.database(), err)
	}
	defer end(&err)
	for _, query := range []string{"delete from Refs where referrer = ?", "delete from ValidPaths where id = ?"} {
		for _, r := range rows {
			if err := sqlitex.Execute(db.conn, query, &sqlitex.ExecOptions{Args: []any{r.id}}); err != nil {
				return fmt.Errorf("%s: %s: %w", db.u.database(), r.path, err)
			}
		}
	}
	return nil
}

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
func openWhatIsThere(ctx context.Context, roots []string) *disks {
	d := new(disks)
	for _, root := range roots {
		if db, err := openDatabase(ctx, root); err == nil {
			d.roots, d.dbs = append(d.roots, root), append(d.dbs, db)
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
