package btree

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// emptyDatabase gives the bytes of a database with a table t and an index x on
// it, and their root pages.
func emptyDatabase(t testing.TB, pageSize int) (data []byte, table, index uint32) {
	t.Helper()
	conn, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	script := fmt.Sprintf("pragma page_size = %d; create table t (n integer, s text); create index x on t (s);", pageSize)
	if err := sqlitex.ExecuteScript(conn, script, nil); err != nil {
		t.Fatal(err)
	}
	data, err = conn.Serialize("main")
	if err != nil {
		t.Fatal(err)
	}
	return data, 2, 3
}

type row struct {
	n int64
	s string
}

// fill writes rows, which are sorted by s, and returns the file's name.
func fill(t testing.TB, pageSize int, rows []row) string {
	t.Helper()
	data, tableRoot, indexRoot := emptyDatabase(t, pageSize)
	name := filepath.Join(t.TempDir(), "db")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f, err := NewFile(out, data)
	if err != nil {
		t.Fatal(err)
	}
	table, err := f.Table(tableRoot)
	if err != nil {
		t.Fatal(err)
	}
	index, err := f.Index(indexRoot)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	for i, r := range rows {
		rec.Reset()
		rec.Int(r.n)
		rec.Text(r.s)
		if err := table.Append(int64(i+1), rec.Bytes()); err != nil {
			t.Fatal(err)
		}
		rec.Reset()
		rec.Text(r.s)
		rec.Int(int64(i + 1))
		if err := index.Append(rec.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Finish(); err != nil {
		t.Fatal(err)
	}
	return name
}

// checkFile has SQLite check the whole database and read the rows back, by row
// number and through the index.
func checkFile(t testing.TB, name string, rows []row) {
	t.Helper()
	conn, err := sqlite.OpenConn("file:"+name+"?immutable=1", sqlite.OpenReadOnly, sqlite.OpenURI)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check := func(stmt *sqlite.Stmt) error {
		if s := stmt.ColumnText(0); s != "ok" {
			t.Errorf("%d rows: integrity_check: %s", len(rows), s)
		}
		return nil
	}
	if err := sqlitex.ExecuteTransient(conn, "pragma integrity_check", &sqlitex.ExecOptions{ResultFunc: check}); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"select n, s from t order by rowid",
		"select n, s from t indexed by x order by s",
	} {
		var got []row
		read := func(stmt *sqlite.Stmt) error {
			got = append(got, row{n: stmt.ColumnInt64(0), s: stmt.ColumnText(1)})
			return nil
		}
		if err := sqlitex.ExecuteTransient(conn, query, &sqlitex.ExecOptions{ResultFunc: read}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, rows) {
			t.Errorf("%s gave %d rows, which are not the %d that were written", query, len(got), len(rows))
		}
	}
}

// numbers are integers at the borders between SQLite's serial types.
var numbers = []int64{
	0, 1, -1, 2, 127, 128, -128, -129, 1<<15 - 1, 1 << 15, -1 << 15, 1<<23 - 1, 1 << 23, -1<<23 - 1,
	1<<31 - 1, 1 << 31, 1<<47 - 1, 1 << 47, -1<<47 - 1, math.MaxInt64, math.MinInt64,
}

func sortedRows(n, most int, seed uint64) []row {
	r := rand.New(rand.NewPCG(seed, 1))
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{n: numbers[r.IntN(len(numbers))], s: fmt.Sprintf("%08d", i) + strings.Repeat("x", r.IntN(most))}
	}
	return rows
}

// Every number of rows up to where the smallest pages need four levels, so that
// each level ends in each way it can.
func TestEveryRowCount(t *testing.T) {
	for n := range 400 {
		rows := sortedRows(n, 60, uint64(n))
		checkFile(t, fill(t, 512, rows), rows)
	}
}

func TestPageSizes(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			for _, n := range []int{1, 1000, 20000} {
				rows := sortedRows(n, 60, uint64(size))
				checkFile(t, fill(t, size, rows), rows)
			}
		})
	}
}

// fillTable writes n rows into t and leaves its index empty.
func fillTable(t *testing.T, pageSize, n int, record func(rec *Record, i int)) string {
	t.Helper()
	data, root, _ := emptyDatabase(t, pageSize)
	name := filepath.Join(t.TempDir(), "db")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f, err := NewFile(out, data)
	if err != nil {
		t.Fatal(err)
	}
	table, err := f.Table(root)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	for i := range n {
		rec.Reset()
		record(&rec, i)
		if err := table.Append(int64(i+1), rec.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Finish(); err != nil {
		t.Fatal(err)
	}
	return name
}

// query runs one statement on the file.
func query(t *testing.T, name, statement string, row func(stmt *sqlite.Stmt)) {
	t.Helper()
	conn, err := sqlite.OpenConn("file:"+name+"?immutable=1", sqlite.OpenReadOnly, sqlite.OpenURI)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	opts := &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		row(stmt)
		return nil
	}}
	if err := sqlitex.ExecuteTransient(conn, statement, opts); err != nil {
		t.Fatal(err)
	}
}

// checkTable has SQLite check a file of fillTable's. integrity_check says of
// every row that the index lacks it; it must say nothing else.
func checkTable(t *testing.T, name string) {
	t.Helper()
	query(t, name, "pragma integrity_check(100000)", func(stmt *sqlite.Stmt) {
		if s := stmt.ColumnText(0); !strings.Contains(s, "index x") {
			t.Error(s)
		}
	})
}

// Records around every length at which SQLite puts less or more of them into
// overflow pages.
func TestOverflow(t *testing.T) {
	const size, first, n = 1024, 900, 3 * 1024
	text := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), first+i) }
	name := fillTable(t, size, n, func(rec *Record, i int) {
		rec.Null()
		rec.Text(text(i))
	})
	rows := 0
	query(t, name, "select s from t not indexed order by rowid", func(stmt *sqlite.Stmt) {
		if stmt.ColumnText(0) != text(rows) {
			t.Errorf("row %d is not what was written", rows+1)
		}
		rows++
	})
	if rows != n {
		t.Errorf("%d rows of %d", rows, n)
	}
	checkTable(t, name)
}

// A database of more than 1 GiB goes around the page that SQLite locks, with
// leaves and with overflow chains.
func TestLockBytePage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: this writes and reads 1.1 GB, twice")
	}
	for _, length := range []int{3 << 20, 60_000} {
		text := strings.Repeat("z", length)
		n := lockByte/length + 100
		name := fillTable(t, maxPageSize, n, func(rec *Record, _ int) {
			rec.Int(7)
			rec.Text(text)
		})
		good := 0
		statement := "select n, length(cast(s as blob)) from t not indexed where substr(s, -1) = 'z'"
		query(t, name, statement, func(stmt *sqlite.Stmt) {
			if stmt.ColumnInt64(0) == 7 && stmt.ColumnInt(1) == length {
				good++
			}
		})
		if good != n {
			t.Errorf("%d rows of %d are as they were written", good, n)
		}
		checkTable(t, name)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVarint(t *testing.T) {
	for _, c := range []struct {
		v    uint64
		want []byte
	}{
		{0, []byte{0}},
		{0x7f, []byte{0x7f}},
		{0x80, []byte{0x81, 0}},
		{0x3fff, []byte{0xff, 0x7f}},
		{0x4000, []byte{0x81, 0x80, 0}},
		{1<<56 - 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
		{1 << 56, []byte{0x80, 0xc0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}},
		{math.MaxUint64, bytes.Repeat([]byte{0xff}, 9)},
	} {
		if got := AppendVarint(nil, c.v); !bytes.Equal(got, c.want) {
			t.Errorf("%#x: % x, want % x", c.v, got, c.want)
		}
	}
}

func TestMisuse(t *testing.T) {
	data, tableRoot, indexRoot := emptyDatabase(t, 512)
	out, err := os.Create(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, bad := range [][]byte{nil, data[:99], data[:700], make([]byte, 512)} {
		if _, err := NewFile(out, bad); err == nil {
			t.Errorf("%d bytes were taken for a database", len(bad))
		}
	}
	f, err := NewFile(out, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []uint32{0, 1, indexRoot, 99} {
		if _, err := f.Table(root); err == nil {
			t.Errorf("page %d was taken for a table's root", root)
		}
	}
	table, err := f.Table(tableRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Append(5, []byte{1}); err != nil {
		t.Error(err)
	}
	if err := table.Append(5, []byte{1}); err == nil {
		t.Error("a row number came twice")
	}
	index, err := f.Index(indexRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := index.Append(make([]byte, 200)); err == nil {
		t.Error("an index entry that needs overflow pages was taken")
	}
}

// A failure to write is kept and returned from then on.
func TestWriteError(t *testing.T) {
	data, tableRoot, _ := emptyDatabase(t, 512)
	name := filepath.Join(t.TempDir(), "db")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(out, data)
	if err != nil {
		t.Fatal(err)
	}
	table, err := f.Table(tableRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	record := make([]byte, 400)
	for i := int64(1); err == nil && i < 10_000; i++ {
		err = table.Append(i, record)
	}
	if err == nil {
		t.Fatal("4 MB were written to a closed file")
	}
	if e := f.Finish(); e == nil {
		t.Error("Finish forgot the failure")
	}
}
