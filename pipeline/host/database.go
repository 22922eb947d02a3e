package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
)

// databasePath is where Nix looks for the database, relative to the disk's root.
const databasePath = "nix/var/nix/db/db.sqlite"

// schemaPath holds the version of the database's tables, which is schemaVersion.
const (
	schemaPath    = "nix/var/nix/db/schema"
	schemaVersion = "10"
)

// errDatabase is wrapped by errors about a disk's database.
var errDatabase = errors.New("the disk's database")

// database is that of a mounted disk. It is opened as Nix opens the database of
// a read-only store: immutable, with no journal to look for and nothing locked.
type database struct {
	conn *sqlite.Conn
	name string
}

// openDatabase opens the database of the disk that is mounted at root. ctx
// interrupts what is asked of it.
func openDatabase(ctx context.Context, root string) (*database, error) {
	version, err := readInside(root, schemaPath, 100)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDatabase, err)
	}
	if string(version) != schemaVersion {
		return nil, fmt.Errorf("%w: its schema is %.20q, not %q", errDatabase, version, schemaVersion)
	}
	root, err = filepath.Abs(root) // a URI has no relative paths
	if err != nil {
		return nil, err
	}
	d := &database{name: filepath.Join(root, databasePath)}
	if err := checkInside(root, databasePath, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", errDatabase, err)
	}
	uri := url.URL{Scheme: "file", Path: d.name, RawQuery: "immutable=1"}
	if d.conn, err = sqlite.OpenConn(uri.String(), sqlite.OpenReadOnly, sqlite.OpenURI); err != nil {
		return nil, d.fault(err)
	}
	d.conn.SetInterrupt(ctx.Done())
	for _, pragma := range []string{"trusted_schema = off", "cell_size_check = on", "query_only = on"} {
		if err := sqlitex.ExecuteTransient(d.conn, "pragma "+pragma, nil); err != nil {
			d.conn.Close()
			return nil, d.fault(err)
		}
	}
	if err := d.checkSchema(); err != nil {
		d.conn.Close()
		return nil, err
	}
	return d, nil
}

func (d *database) close() error { return d.conn.Close() }

func (d *database) fault(err error) error { return fmt.Errorf("%w: %s: %w", errDatabase, d.name, err) }

// checkSchema makes sure that what is asked are tables, and nothing that runs
// code.
func (d *database) checkSchema() error {
	missing := map[string]bool{"ValidPaths": true, "Refs": true}
	var odd string
	err := d.query("select type, name, coalesce(sql, '') from sqlite_schema", func(s *sqlite.Stmt) error {
		sql := strings.ToLower(strings.Join(strings.Fields(s.ColumnText(2)), " "))
		if s.ColumnText(0) == "view" || strings.HasPrefix(sql, "create virtual") {
			odd = s.ColumnText(1)
		}
		if s.ColumnText(0) == "table" {
			delete(missing, s.ColumnText(1))
		}
		return nil
	})
	if err != nil {
		return d.fault(err)
	}
	if odd != "" {
		return d.fault(fmt.Errorf("it has %.60q, which a Nix database has not", odd))
	}
	for name := range missing {
		return d.fault(fmt.Errorf("it has no table %s", name))
	}
	return nil
}

// check lets SQLite look at every page of it.
func (d *database) check() error {
	err := d.query("pragma quick_check(1)", func(s *sqlite.Stmt) error {
		if msg := s.ColumnText(0); msg != "ok" {
			return errors.New(msg)
		}
		return nil
	})
	if err != nil {
		return d.fault(err)
	}
	return nil
}

func (d *database) query(query string, each func(*sqlite.Stmt) error, args ...any) error {
	return sqlitex.Execute(d.conn, query, &sqlitex.ExecOptions{Args: args, ResultFunc: each})
}

// validPath is a row of ValidPaths.
type validPath struct {
	id   int64
	path store.Path
	hash store.Hash
	size int64 // of the NAR, in bytes
}

// selectRow is how every query for a validPath starts.
const selectRow = "select id, path, hash, narSize from ValidPaths "

// one returns the first row that a query finds, nil if it finds none.
func (d *database) one(where string, args ...any) (*validPath, error) {
	var row *validPath
	err := d.query(selectRow+where+" limit 1", func(s *sqlite.Stmt) (err error) {
		row, err = parseRow(s)
		return err
	}, args...)
	if err != nil {
		return nil, d.fault(err)
	}
	return row, nil
}

func parseRow(s *sqlite.Stmt) (*validPath, error) {
	r := &validPath{id: s.ColumnInt64(0), size: s.ColumnInt64(3)}
	var err error
	if r.path, err = store.ParsePath(s.ColumnText(1)); err != nil {
		return nil, err
	}
	if r.hash, err = store.ParseHash(s.ColumnText(2)); err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	if r.size <= 0 {
		return nil, fmt.Errorf("%s: narSize is %d", r.path, r.size)
	}
	return r, nil
}

// find returns the row of a path, nil if it has none.
func (d *database) find(path store.Path) (*validPath, error) {
	return d.one("where path = ?", string(path))
}

// ids returns the smallest and the largest id, 0 and 0 of an empty database.
func (d *database) ids() (first, last int64, err error) {
	err = d.query("select (select min(id) from ValidPaths), (select max(id) from ValidPaths)", func(s *sqlite.Stmt) error {
		first, last = s.ColumnInt64(0), s.ColumnInt64(1)
		return nil
	})
	if err != nil {
		return 0, 0, d.fault(err)
	}
	return first, last, nil
}

// sample returns n rows, none twice, drawn at random but for those over most
// bytes; all that there are if n is no fewer.
func (d *database) sample(n int, most int64) ([]*validPath, error) {
	first, last, err := d.ids()
	if err != nil || last == 0 {
		return nil, err
	}
	var rows []*validPath
	seen := make(map[int64]bool)
	take := func(from int64) error {
		row, err := d.one("where id >= ? order by id", from)
		if row == nil || err != nil || seen[row.id] {
			return err
		}
		seen[row.id] = true
		if row.size <= most {
			rows = append(rows, row)
		}
		return nil
	}
	if span := last - first + 1; span <= int64(n) {
		for id := first; id <= last && err == nil; id++ {
			err = take(id)
		}
		return rows, err
	}
	for tries := 0; len(rows) < n && tries < 10*n && err == nil; tries++ {
		err = take(first + rand.Int64N(last-first+1))
	}
	return rows, err
}
