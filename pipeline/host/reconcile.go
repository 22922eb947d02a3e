package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
//     it was before, too;
//   - what was built, and is on the new disk with other contents, hides that;
//   - what a build that failed has left hides nothing.
func (o *OverlayOptions) reconcile(ctx context.Context, u upper, now *disks, before []stand) (copied, dropped []store.Path, err error) {
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
	lost, err := db.settle(ctx, o.Logger, needed, now, before)
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
	return lost.copied, dropped, db.part(now)
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
func (db *upperDB) settle(ctx context.Context, log *slog.Logger, needed []store.Path, now *disks, before []stand) (*lostError, error) {
	found := new(lostError)
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
		from, err := db.source(ctx, log, old, row)
		if err != nil {
			return nil, err
		}
		if from == "" {
			found.missing = append(found.missing, p)
			continue
		}
		if err := db.adopt(ctx, from, row); err != nil {
			return nil, err
		}
		found.copied = append(found.copied, p)
	}
	return found, nil
}

// source finds a store path with the contents that it had, on a disk from before
// or in the store as it was; "" if it is nowhere. What cannot be read, as on a
// disk that was detached, is not there.
func (db *upperDB) source(ctx context.Context, log *slog.Logger, old *disks, row *upperRow) (string, error) {
	var places []string
	if root, there, err := old.find(row.path, row.hash); err == nil && there {
		places = append(places, filepath.Join(root, string(row.path)))
	}
	if db.u.held() {
		places = append(places, db.u.path(heldName, row.path.Base()))
	}
	for _, at := range places {
		err := checkFiles(ctx, at, &row.validPath)
		if err == nil {
			return at, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		log.Warn(err.Error(), "at", at)
	}
	return "", nil
}

// part keeps the kernel from merging directories that are in the upper directory
// and on a disk: what was built is what the database says, to the file, and what
// is not in the database is as it is on the disk.
func (db *upperDB) part(now *disks) error {
	for name := range db.owned {
		p, err := store.ParsePath(store.Dir + "/" + name)
		if err != nil {
			continue // such as .links
		}
		on, err := now.row(p)
		if err != nil {
			return err
		}
		at := db.u.path(upperName, name)
		switch row := db.rows[p]; {
		case on == nil || row != nil && row.hash == on.hash:
		case row == nil:
			err = removeTree(at)
		default:
			err = makeOpaque(at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// adopt copies a store path into the upper directory.
func (db *upperDB) adopt(ctx context.Context, from string, row *upperRow) error {
	staged := db.u.path(workName + "-copy")
	if err := removeTree(staged); err != nil {
		return err
	}
	if err := copyTree(ctx, from, staged); err != nil {
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
			delete(db.rows, r.path)
		}
	}
	return nil
}
