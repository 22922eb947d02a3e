package storedb

import (
	"embed"
	"fmt"

	"bigdisk/image/storedb/internal/btree"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

//go:embed *.sql
var sqlFiles embed.FS

// skeleton is the database with its schema and no rows, as SQLite makes it.
type skeleton struct {
	data []byte
	// roots has the number of the root page of each table and index.
	roots map[string]uint32
}

// newSkeleton makes a database in memory, for paths with the ids 1 to seq. It
// depends on seq and nothing else.
func newSkeleton(seq int) (s *skeleton, err error) {
	conn, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		return nil, fmt.Errorf("open a database in memory: %w", err)
	}
	defer func() {
		if e := conn.Close(); err == nil && e != nil {
			err = fmt.Errorf("close the database in memory: %w", e)
		}
	}()
	for _, pragma := range []string{"page_size = 4096", "encoding = 'UTF-8'", "auto_vacuum = none"} {
		if err := sqlitex.ExecuteTransient(conn, "pragma "+pragma, nil); err != nil {
			return nil, fmt.Errorf("pragma %s: %w", pragma, err)
		}
	}
	for _, file := range []string{"schema.sql", "schema-ca.sql"} {
		if err := sqlitex.ExecuteScriptFS(conn, sqlFiles, file, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if seq > 0 {
		opts := &sqlitex.ExecOptions{Named: map[string]any{":seq": seq}}
		if err := sqlitex.ExecuteTransientFS(conn, sqlFiles, "sequence.sql", opts); err != nil {
			return nil, fmt.Errorf("sequence.sql: %w", err)
		}
	}
	s = &skeleton{roots: make(map[string]uint32)}
	row := func(stmt *sqlite.Stmt) error {
		s.roots[stmt.ColumnText(0)] = uint32(stmt.ColumnInt64(1))
		return nil
	}
	if err := sqlitex.ExecuteTransientFS(conn, sqlFiles, "roots.sql", &sqlitex.ExecOptions{ResultFunc: row}); err != nil {
		return nil, fmt.Errorf("roots.sql: %w", err)
	}
	if s.data, err = conn.Serialize("main"); err != nil {
		return nil, fmt.Errorf("serialize the database in memory: %w", err)
	}
	return s, nil
}

// table starts filling a table of file, which was made from s.
func (s *skeleton) table(file *btree.File, name string) (*btree.Table, error) {
	t, err := file.Table(s.roots[name])
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", name, err)
	}
	return t, nil
}

// index starts filling an index of file, which was made from s.
func (s *skeleton) index(file *btree.File, name string) (*btree.Index, error) {
	x, err := file.Index(s.roots[name])
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", name, err)
	}
	return x, nil
}
