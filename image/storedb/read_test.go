package storedb

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// writeDB writes a database in a directory of its own and returns its name.
func writeDB(t testing.TB, infos []*store.PathInfo, opts Options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "db.sqlite")
	if err := Write(t.Context(), name, Infos(infos), opts); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("there are files beside the database: %v", files)
	}
	return name
}

// openDB opens a database with parameters of a SQLite URI.
func openDB(t testing.TB, name, parameters string) *sqlite.Conn {
	t.Helper()
	conn, err := sqlite.OpenConn("file:"+name+"?"+parameters, sqlite.OpenReadOnly, sqlite.OpenURI)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// rows gives all rows of a query, columns joined by "|", as the sqlite3 shell
// writes them; NULL is "NULL".
func rows(t testing.TB, conn *sqlite.Conn, query string, args ...any) []string {
	t.Helper()
	var out []string
	opts := &sqlitex.ExecOptions{Args: args, ResultFunc: func(stmt *sqlite.Stmt) error {
		columns := make([]string, stmt.ColumnCount())
		for i := range columns {
			columns[i] = "NULL"
			if !stmt.ColumnIsNull(i) {
				columns[i] = stmt.ColumnText(i)
			}
		}
		out = append(out, strings.Join(columns, "|"))
		return nil
	}}
	if err := sqlitex.ExecuteTransient(conn, query, opts); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

// checkSound has SQLite check the file and every foreign key.
func checkSound(t testing.TB, conn *sqlite.Conn) {
	t.Helper()
	if got := rows(t, conn, "pragma integrity_check"); !slices.Equal(got, []string{"ok"}) {
		t.Errorf("integrity_check: %q", got)
	}
	if got := rows(t, conn, "pragma foreign_key_check"); len(got) > 0 {
		t.Errorf("foreign_key_check: %q", got)
	}
}

// The statements with which Nix reads a store (libstore's local-store.cc).
const (
	queryPathInfo        = "select id, hash, registrationTime, deriver, narSize, ultimate, sigs, ca from ValidPaths where path = ?;"
	queryReferences      = "select path from Refs join ValidPaths on reference = id where referrer = ?;"
	queryReferrers       = "select path from Refs join ValidPaths on referrer = id where reference = (select id from ValidPaths where path = ?);"
	queryOutputs         = "select id, path from DerivationOutputs where drv = ?;"
	queryValidDerivers   = "select v.id, v.path from DerivationOutputs d join ValidPaths v on d.drv = v.id where d.path = ?;"
	queryPathFromHash    = "select path from ValidPaths where path >= ? limit 1;"
	selectValidPaths     = "select path from ValidPaths"
	selectMigrations     = "select migration from SchemaMigrations;"
	createMigrations     = "create table if not exists SchemaMigrations (migration text primary key not null);"
	selectRealisedOutput = `select Realisations.id, Output.path, Realisations.signatures from Realisations
		inner join ValidPaths as Output on Output.id = Realisations.outputPath
		where drvPath = ? and outputName = ?`
	selectBuildTrace = "select id, outputPath, signatures from BuildTraceV3 where drvPath = ? and outputName = ?"
)

// checkContents compares a database with what it was made from, by Nix's own
// queries.
func checkContents(t testing.TB, conn *sqlite.Conn, infos []*store.PathInfo) {
	t.Helper()
	checkSound(t, conn)
	if got := rows(t, conn, "select count(*) from ValidPaths"); got[0] != fmt.Sprint(len(infos)) {
		t.Errorf("%s rows in ValidPaths, want %d", got[0], len(infos))
	}
	referrers := make(map[store.Path][]string)
	for i, info := range infos {
		if got, want := rows(t, conn, queryPathInfo, string(info.Path)), wantRow(i+1, info); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", info.Path, got, want)
		}
		var want []string
		for _, r := range info.References {
			want = append(want, string(r))
			referrers[r] = append(referrers[r], string(info.Path))
		}
		if got := rows(t, conn, queryReferences, i+1); !slices.Equal(got, want) {
			t.Errorf("%s refers to %q, want %q", info.Path, got, want)
		}
		if got := rows(t, conn, queryPathFromHash, store.Dir+"/"+info.Path.Digest()); !slices.Equal(got, []string{string(info.Path)}) {
			t.Errorf("the digest of %s gives %q", info.Path, got)
		}
	}
	for _, info := range infos {
		if got := rows(t, conn, queryReferrers, string(info.Path)); !slices.Equal(got, referrers[info.Path]) {
			t.Errorf("%q refer to %s, want %q", got, info.Path, referrers[info.Path])
		}
	}
}

// wantRow is what Nix writes into ValidPaths.
func wantRow(id int, info *store.PathInfo) string {
	null := func(s string) string {
		if s == "" {
			return "NULL"
		}
		return s
	}
	sigs := slices.Compact(slices.Sorted(slices.Values(info.Sigs)))
	return strings.Join([]string{
		fmt.Sprint(id),
		"sha256:" + info.NarHash.Base16(),
		fmt.Sprint(DefaultRegistrationTime),
		null(string(info.Deriver)),
		fmt.Sprint(info.NarSize),
		"NULL",
		null(strings.Join(sigs, " ")),
		null(info.CA),
	}, "|")
}
