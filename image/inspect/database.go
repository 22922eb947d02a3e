package inspect

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

const (
	databasePath = "nix/var/nix/db/db.sqlite"
	maxDatabase  = 64 << 30 // bytes
)

// loadDatabase copies the database out of the image and takes paths and
// references from it.
func (s *Store) loadDatabase(ctx context.Context, im *read.Image, scratch string) (err error) {
	if _, err := im.Lookup(databasePath); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(scratch, "bigdisk-inspect-*.sqlite")
	if err != nil {
		return fmt.Errorf("no copy of /%s can be made: %v", databasePath, err) // not that there is no database
	}
	defer os.Remove(tmp.Name())
	err = im.Copy(ctx, tmp, databasePath, maxDatabase)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	uri := url.URL{Scheme: "file", Path: tmp.Name(), RawQuery: "immutable=1"}
	conn, err := sqlite.OpenConn(uri.String(), sqlite.OpenReadOnly, sqlite.OpenURI)
	if err != nil {
		return fmt.Errorf("/%s: %w", databasePath, err)
	}
	defer conn.Close()
	os.Remove(tmp.Name()) // so that nothing is left, however this ends
	conn.SetInterrupt(ctx.Done())
	if err := s.query(conn); err != nil {
		return fmt.Errorf("/%s: %w", databasePath, err)
	}
	return ctx.Err()
}

func (s *Store) query(conn *sqlite.Conn) error {
	for _, pragma := range []string{"trusted_schema = off", "query_only = on"} {
		if err := sqlitex.ExecuteTransient(conn, "pragma "+pragma, nil); err != nil {
			return err
		}
	}
	ids, err := s.queryPaths(conn)
	if err != nil {
		return err
	}
	return sqlitex.ExecuteTransient(conn, "select referrer, reference from Refs order by referrer, reference", &sqlitex.ExecOptions{
		ResultFunc: func(row *sqlite.Stmt) error {
			from, ok := ids[row.ColumnInt64(0)]
			to, ok2 := ids[row.ColumnInt64(1)]
			if ok && ok2 && from != to {
				s.Paths[from].refs = append(s.Paths[from].refs, to)
			}
			return nil
		},
	})
}

// queryPaths reads ValidPaths and returns where each id's path is.
func (s *Store) queryPaths(conn *sqlite.Conn) (map[int64]int32, error) {
	byPath := make(map[store.Path]int64)
	err := sqlitex.ExecuteTransient(conn, "select id, path, coalesce(narSize, 0) from ValidPaths", &sqlitex.ExecOptions{
		ResultFunc: func(row *sqlite.Stmt) error {
			p, err := store.ParsePath(row.ColumnText(1))
			if err != nil {
				return err
			}
			byPath[p] = row.ColumnInt64(0)
			s.Paths = append(s.Paths, Path{Path: p, NarSize: max(0, row.ColumnInt64(2)), Stored: -1})
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(s.Paths, func(a, b Path) int { return strings.Compare(string(a.Path), string(b.Path)) })
	ids := make(map[int64]int32, len(s.Paths))
	for i := range s.Paths {
		ids[byPath[s.Paths[i].Path]] = int32(i)
	}
	return ids, nil
}
