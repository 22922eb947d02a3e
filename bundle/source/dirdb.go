package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
)

const (
	queryPath = "SELECT id, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path = ?"
	queryRefs = "SELECT reference FROM Refs WHERE referrer = ?"
	queryID   = "SELECT path FROM ValidPaths WHERE id = ?"
)

// The ways to open a database, as SQLite's URIs have them.
const (
	modeShared    = "mode=ro"
	modeImmutable = "mode=ro&immutable=1"
)

// storeDB is the database of a Nix store (src/libstore/schema.sql), which is
// never written to. It is safe for concurrent use.
type storeDB struct {
	file string
	pool *sqlitex.Pool
	ids  *pathCache
}

// openStoreDB opens the database for reading. With live, changes are expected
// while it is read.
func openStoreDB(file string, live bool) (*storeDB, error) {
	mode, err := openMode(file)
	if err != nil {
		return nil, err
	}
	if live && unix.Access(filepath.Dir(file), unix.W_OK) == nil {
		mode = modeShared // whoever may write there can take part in the locking
	}
	uri := url.URL{Scheme: "file", Path: file, RawQuery: mode}
	pool, err := sqlitex.NewPool(uri.String(), sqlitex.PoolOptions{
		Flags:    sqlite.OpenReadOnly | sqlite.OpenURI,
		PoolSize: min(max(2, runtime.GOMAXPROCS(0)), 16),
		PrepareConn: func(conn *sqlite.Conn) error {
			if mode != modeImmutable {
				return nil
			}
			// One transaction for all: SQLite would look before each query
			// whether the file has changed.
			return sqlitex.ExecuteTransient(conn, "BEGIN", nil)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, explainOpen(file, err))
	}
	db := &storeDB{file: file, pool: pool, ids: newPathCache()}
	if err := db.check(); err != nil {
		pool.Close()
		return nil, fmt.Errorf("%s: %w", file, explainOpen(file, err))
	}
	return db, nil
}

// openMode decides how the database is opened. Immutable needs no right to
// write anywhere and works on a read-only disk, but sees only what is in the
// file itself. So a store in use, whose latest changes are beside it in a
// write-ahead log, or that was left in the middle of a change, is opened
// in the way that takes locks.
func openMode(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	f.Close()
	for _, suffix := range []string{"-wal", "-journal"} {
		info, err := os.Stat(file + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if info.Size() > 0 {
			return modeShared, nil
		}
	}
	if inUse(file) {
		return modeShared, nil
	}
	return modeImmutable, nil
}

// inUse reports whether an empty log and its index are there, which means that
// changes may come while we read.
func inUse(file string) bool {
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(file + suffix); err != nil {
			return false
		}
		// Without the right to read the index, SQLite cannot take part.
		f, err := os.Open(file + suffix)
		if err != nil {
			return false
		}
		f.Close()
	}
	return true
}

// explainOpen says what can be done about a database with a log that cannot be
// read.
func explainOpen(file string, err error) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		if info, statErr := os.Stat(file + suffix); statErr == nil && info.Size() > 0 {
			return fmt.Errorf("%w: it has changes in %s%s, which takes the right to write there: let Nix open the store once, or run as its owner", err, file, suffix)
		}
	}
	return err
}

// check reads something from each table.
func (db *storeDB) check() error {
	conn, err := db.pool.Take(context.Background())
	if err != nil {
		return err
	}
	defer db.pool.Put(conn)
	for _, query := range []string{queryPath, queryRefs, queryID} {
		stmt, err := conn.Prepare(query)
		if err != nil {
			return err
		}
		stmt.BindInt64(1, 0)
		_, err = stmt.Step()
		if err := errors.Join(err, stmt.Reset()); err != nil {
			return err
		}
	}
	return nil
}

// info returns what the database says of a path; ErrNotFound if nothing.
func (db *storeDB) info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	conn, err := db.pool.Take(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	defer db.pool.Put(conn)
	info, err := db.query(conn, path)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", db.file, err)
	}
	return info, err
}

func (db *storeDB) query(conn *sqlite.Conn, path store.Path) (*store.PathInfo, error) {
	stmt, err := conn.Prepare(queryPath)
	if err != nil {
		return nil, err
	}
	defer stmt.Reset()
	stmt.BindText(1, string(path))
	if found, err := stmt.Step(); err != nil {
		return nil, err
	} else if !found {
		return nil, ErrNotFound
	}
	info := &store.PathInfo{Path: path, NarSize: stmt.ColumnInt64(2), CA: stmt.ColumnText(5)}
	if info.NarHash, err = store.ParseHash(stmt.ColumnText(1)); err != nil {
		return nil, err
	}
	if info.NarSize <= 0 {
		return nil, fmt.Errorf("it has the NAR size %d", info.NarSize)
	}
	if deriver := stmt.ColumnText(3); deriver != "" {
		if info.Deriver, err = store.ParsePath(deriver); err != nil {
			return nil, fmt.Errorf("deriver: %w", err)
		}
	}
	if sigs := stmt.ColumnText(4); sigs != "" {
		info.Sigs = strings.Fields(sigs)
	}
	info.References, err = db.references(conn, stmt.ColumnInt64(0))
	info.SortReferences()
	return info, err
}

func (db *storeDB) references(conn *sqlite.Conn, id int64) ([]store.Path, error) {
	stmt, err := conn.Prepare(queryRefs)
	if err != nil {
		return nil, err
	}
	defer stmt.Reset()
	stmt.BindInt64(1, id)
	var refs []store.Path
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return refs, err
		}
		ref, err := db.path(conn, stmt.ColumnInt64(0))
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
}

// path returns the path of that number.
func (db *storeDB) path(conn *sqlite.Conn, id int64) (store.Path, error) {
	if p, ok := db.ids.get(id); ok {
		return p, nil
	}
	stmt, err := conn.Prepare(queryID)
	if err != nil {
		return "", err
	}
	defer stmt.Reset()
	stmt.BindInt64(1, id)
	found, err := stmt.Step()
	if err != nil {
		return "", err
	}
	if !found {
		return "", fmt.Errorf("a reference to path number %d, which is not there", id)
	}
	p, err := store.ParsePath(stmt.ColumnText(0))
	if err != nil {
		return "", err
	}
	db.ids.put(id, p)
	return p, nil
}

func (db *storeDB) close() error { return db.pool.Close() }
