package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

// databasePath is where Nix looks for the database, relative to the image's root.
const databasePath = "nix/var/nix/db/db.sqlite"

// maxDatabase bounds the database in bytes. A million store paths take less
// than 1 GB.
const maxDatabase = 64 << 30

// row is a row of ValidPaths.
type row struct {
	id   int64
	path store.Path
	hash store.Hash
	size int64
	// scan says that every store path in the contents should be a reference:
	// not for derivations, which name their outputs, nor for contents that are
	// addressed by their hash, whose references Nix does not search for.
	scan bool
}

// database is what the image's database says.
type database struct {
	rows []row // sorted by path
	// cas has the content addresses of the few rows that have one.
	cas map[store.Path]string
	// refs has the references of all rows as indexes into rows, sorted; those
	// of rows[i] are refs[refStart[i]:refStart[i+1]].
	refs     []int32
	refStart []int64
}

// find returns the index of a path's row, -1 if it has none.
func (d *database) find(p store.Path) int {
	i, ok := slices.BinarySearchFunc(d.rows, p, func(r row, p store.Path) int { return strings.Compare(string(r.path), string(p)) })
	if !ok {
		return -1
	}
	return i
}

// references returns the indexes of what row i refers to.
func (d *database) references(i int) []int32 { return d.refs[d.refStart[i]:d.refStart[i+1]] }

// findDigest returns the index of the first row whose path has the digest, -1
// if there is none.
func (d *database) findDigest(digest []byte) int {
	i, ok := slices.BinarySearchFunc(d.rows, digest, func(r row, digest []byte) int { return strings.Compare(r.path.Digest(), string(digest)) })
	if !ok {
		return -1
	}
	return i
}

// loadDatabase copies the database out of the image and reads it.
func (v *verifier) loadDatabase(ctx context.Context) error {
	n, err := v.im.Lookup(databasePath)
	if errors.Is(err, fs.ErrNotExist) {
		v.errorf(DatabaseMissing, "/"+databasePath, "the image has no Nix database, so there is nothing to hold its store paths against")
		return nil
	}
	if err != nil {
		return v.soften("/"+databasePath, err)
	}
	if n.Kind != store.Regular || n.Size > maxDatabase {
		v.errorf(DatabaseDamaged, "/"+databasePath, "not a regular file of at most %d bytes", int64(maxDatabase))
		return nil
	}
	tmp, err := os.CreateTemp(v.ScratchDir, "bigdisk-verify-*.sqlite")
	if err != nil {
		return fmt.Errorf("no copy of /%s can be made: %w", databasePath, err) // no fault of the image
	}
	defer os.Remove(tmp.Name())
	err = v.im.CopyNode(ctx, tmp, n)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return v.soften("/"+databasePath, err)
	}
	return read.Guard("reading the database", func() error { return v.openDatabase(ctx, tmp.Name()) })
}

// openDatabase reads the copy. It is opened as Nix opens that of a read-only
// store: immutable, with no journal to look for.
func (v *verifier) openDatabase(ctx context.Context, name string) error {
	v.checkHeader(name)
	uri := url.URL{Scheme: "file", Path: name, RawQuery: "immutable=1"}
	conn, err := sqlite.OpenConn(uri.String(), sqlite.OpenReadOnly, sqlite.OpenURI)
	if err != nil {
		v.errorf(DatabaseDamaged, "/"+databasePath, "%v", err)
		return nil
	}
	defer conn.Close()
	os.Remove(name) // so that nothing is left, however this ends
	conn.SetInterrupt(ctx.Done())
	err = v.readDatabase(conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.db = nil
		v.errorf(DatabaseDamaged, "/"+databasePath, "%v", err)
	}
	return nil
}

// checkHeader looks at the bytes that say how the database may be opened
// (https://www.sqlite.org/fileformat2.html, section 1.3).
func (v *verifier) checkHeader(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	var b [20]byte
	if _, err := io.ReadFull(f, b[:]); err == nil && (b[18] != 1 || b[19] != 1) {
		v.lowerStore(databasePath, "it is in WAL mode, which only programs that open it as immutable can read from a read-only disk")
	}
}

func (v *verifier) readDatabase(conn *sqlite.Conn) error {
	for _, pragma := range []string{"trusted_schema = off", "cell_size_check = on", "query_only = on", "cache_size = -16384"} {
		if err := sqlitex.ExecuteTransient(conn, "pragma "+pragma, nil); err != nil {
			return fmt.Errorf("pragma %s: %w", pragma, err)
		}
	}
	if ok, err := v.checkSchema(conn); !ok || err != nil {
		return err
	}
	if err := v.integrity(conn); err != nil {
		return err
	}
	v.db = &database{cas: make(map[store.Path]string)}
	ids, err := v.readRows(conn)
	if err != nil {
		return fmt.Errorf("ValidPaths: %w", err)
	}
	if err := v.readRefs(conn, ids); err != nil {
		return fmt.Errorf("Refs: %w", err)
	}
	v.checkAddresses()
	return nil
}

// checkSchema makes sure that what is queried are tables and nothing that runs
// code, and reports whether it can be.
func (v *verifier) checkSchema(conn *sqlite.Conn) (bool, error) {
	tables := make(map[string]bool)
	ok := true
	err := sqlitex.ExecuteTransient(conn, "select type, name, coalesce(sql, '') from sqlite_schema", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			sql := strings.ToLower(strings.Join(strings.Fields(s.ColumnText(2)), " "))
			if s.ColumnText(0) == "view" || strings.HasPrefix(sql, "create virtual") {
				v.errorf(DatabaseSchema, "/"+databasePath, "it has the %s %q, which a Nix database has not", s.ColumnText(0), s.ColumnText(1))
				ok = false
			}
			if s.ColumnText(0) == "table" {
				tables[s.ColumnText(1)] = true
			}
			return nil
		},
	})
	if err != nil {
		return false, err
	}
	for _, name := range []string{"ValidPaths", "Refs"} {
		if !tables[name] {
			v.errorf(DatabaseSchema, "/"+databasePath, "it has no table %s", name)
			ok = false
		}
	}
	if !tables["SchemaMigrations"] {
		v.lowerStore(databasePath, "it has no table SchemaMigrations, which Nix 2.26 to 2.34 would create, and cannot on a read-only disk")
	}
	return ok, nil
}

// integrity lets SQLite check pages, indexes and constraints.
func (v *verifier) integrity(conn *sqlite.Conn) error {
	return sqlitex.ExecuteTransient(conn, "pragma integrity_check(10)", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			if msg := s.ColumnText(0); msg != "ok" {
				v.errorf(DatabaseDamaged, "/"+databasePath, "SQLite's integrity check: %s", msg)
			}
			return nil
		},
	})
}

// idIndex finds a row by its id.
type idIndex []struct {
	id int64
	at int32
}

func (x idIndex) find(id int64) (int32, bool) {
	i, ok := slices.BinarySearchFunc(x, id, func(e struct {
		id int64
		at int32
	}, id int64) int {
		switch {
		case e.id < id:
			return -1
		case e.id > id:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return x[i].at, true
}

// readRows reads ValidPaths. A row that makes no sense is reported and left out.
func (v *verifier) readRows(conn *sqlite.Conn) (idIndex, error) {
	d := v.db
	err := sqlitex.ExecuteTransient(conn, "select id, path, hash, narSize, coalesce(ca, ''), coalesce(deriver, '') from ValidPaths", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			r, err := parseRow(s)
			if err != nil {
				v.errorf(DatabaseRow, clip(s.ColumnText(1)), "row %d of ValidPaths: %v", s.ColumnInt64(0), err)
				return nil
			}
			d.rows = append(d.rows, r)
			if ca := s.ColumnText(4); ca != "" {
				d.cas[r.path] = ca
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(d.rows, func(a, b row) int { return strings.Compare(string(a.path), string(b.path)) })
	ids := make(idIndex, len(d.rows))
	for i := range d.rows {
		ids[i].id, ids[i].at = d.rows[i].id, int32(i)
		if i > 0 && d.rows[i].path == d.rows[i-1].path {
			v.errorf(DatabaseRow, string(d.rows[i].path), "it has two rows in ValidPaths")
		}
	}
	slices.SortFunc(ids, func(a, b struct {
		id int64
		at int32
	}) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return ids, nil
}

func parseRow(s *sqlite.Stmt) (row, error) {
	r := row{id: s.ColumnInt64(0), size: s.ColumnInt64(3)}
	var err error
	if r.path, err = store.ParsePath(s.ColumnText(1)); err != nil {
		return r, err
	}
	if r.hash, err = store.ParseHash(s.ColumnText(2)); err != nil {
		return r, err
	}
	if r.size <= 0 {
		return r, fmt.Errorf("narSize is %d", r.size)
	}
	if deriver := s.ColumnText(5); deriver != "" {
		if _, err := store.ParsePath(deriver); err != nil {
			return r, fmt.Errorf("deriver: %w", err)
		}
	}
	r.scan = s.ColumnText(4) == "" && !r.path.IsDerivation()
	return r, nil
}

// readRefs reads Refs into the rows' order.
func (v *verifier) readRefs(conn *sqlite.Conn, ids idIndex) error {
	d := v.db
	d.refStart = make([]int64, len(d.rows)+1)
	type pair struct{ from, to int32 }
	var pairs []pair
	err := sqlitex.ExecuteTransient(conn, "select referrer, reference from Refs", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			from, ok := ids.find(s.ColumnInt64(0))
			if !ok {
				v.errorf(DanglingReference, "/"+databasePath, "a row of Refs has the referrer %d, which no row of ValidPaths has", s.ColumnInt64(0))
				return nil
			}
			to, ok := ids.find(s.ColumnInt64(1))
			if !ok {
				v.errorf(DanglingReference, string(d.rows[from].path), "it refers to id %d, which no row of ValidPaths has", s.ColumnInt64(1))
				return nil
			}
			pairs = append(pairs, pair{from, to})
			return nil
		},
	})
	if err != nil {
		return err
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if a.from != b.from {
			return int(a.from) - int(b.from)
		}
		return int(a.to) - int(b.to)
	})
	d.refs = make([]int32, len(pairs))
	for i, p := range pairs {
		d.refs[i] = p.to
		d.refStart[p.from+1]++
	}
	for i := range d.rows {
		d.refStart[i+1] += d.refStart[i]
	}
	return nil
}

// checkAddresses holds content addresses against paths and references, as Nix
// does before it copies or even names such a path.
func (v *verifier) checkAddresses() {
	for i, r := range v.db.rows {
		info := store.PathInfo{Path: r.path, CA: v.db.cas[r.path]}
		if info.CA == "" {
			continue
		}
		for _, at := range v.db.references(i) {
			info.References = append(info.References, v.db.rows[at].path)
		}
		if err := info.CheckCA(); err != nil {
			v.errorf(DatabaseRow, string(r.path), "its ca in ValidPaths: %v", err)
		}
	}
	v.db.cas = nil
}

// clip shortens what the image says before it goes into a report.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
