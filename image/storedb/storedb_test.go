package storedb

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb/internal/btree"
)

// mixedInfos has every kind of value: no deriver, no or several signatures, a
// content address, rows longer than a page, self-references.
func mixedInfos(seed uint64, n int) []*store.PathInfo {
	r := rand.New(rand.NewPCG(seed, 9))
	infos := randomInfos(r, n, r.IntN(12))
	for _, info := range infos {
		switch r.IntN(6) {
		case 0:
			info.Deriver, info.Sigs, info.CA = "", nil, "text:sha256:"+info.NarHash.Base32()
		case 1:
			info.Sigs = nil
			for range r.IntN(120) {
				info.Sigs = append(info.Sigs, randomSig(r, "cache.example.org-1"))
			}
		case 2:
			info.Sigs = append(info.Sigs, randomSig(r, "a-1"), info.Sigs[0])
			info.NarSize = 1 << 62
		case 3:
			info.References = append(info.References, info.Path)
			info.SortReferences()
		}
	}
	return infos
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 12, 13, 14, 15, 60, 500, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			infos := mixedInfos(uint64(n), n)
			name := writeDB(t, infos, Options{})
			checkContents(t, openDB(t, name, "immutable=1"), infos)
		})
	}
}

// A file in a read-only directory can be opened with mode=ro and with
// immutable=1, leaves no file beside it, and its header says what a file from
// SQLite with default settings says.
func TestReadOnly(t *testing.T) {
	infos := mixedInfos(1, 50)
	name := writeDB(t, infos, Options{})
	if err := os.Chmod(filepath.Dir(name), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Dir(name), 0o755) })
	for _, parameters := range []string{"mode=ro", "immutable=1"} {
		conn := openDB(t, name, parameters)
		checkContents(t, conn, infos)
		for pragma, want := range map[string]string{
			"journal_mode":   "delete",
			"page_size":      "4096",
			"encoding":       "UTF-8",
			"auto_vacuum":    "0",
			"user_version":   "0",
			"application_id": "0",
			"freelist_count": "0",
		} {
			if got := rows(t, conn, "pragma "+pragma); got[0] != want {
				t.Errorf("%s: %s is %s, want %s", parameters, pragma, got[0], want)
			}
		}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if data[18] != 1 || data[19] != 1 {
		t.Errorf("header bytes 18 and 19 are %d and %d, want 1 and 1: not WAL", data[18], data[19])
	}
	files, err := os.ReadDir(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 {
		t.Errorf("reading left files: %v", files)
	}
}

// Nix 2.26 runs these on opening and while it works; where a table is missing
// it wants to make it, and fails.
func TestStatementsOfNix(t *testing.T) {
	conn := openDB(t, writeDB(t, mixedInfos(2, 20), Options{}), "immutable=1")
	rows(t, conn, createMigrations)
	want := []string{"20220326-ca-derivations", "20251017-ca-derivations", "20260309-drop-redundant-indexreferrer"}
	if got := rows(t, conn, selectMigrations); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("migrations %q, want %q", got, want)
	}
	if got := rows(t, conn, selectValidPaths); len(got) != 20 {
		t.Errorf("%d valid paths, want 20", len(got))
	}
	for _, query := range []string{selectRealisedOutput, selectBuildTrace} {
		if got := rows(t, conn, query, "x", "out"); len(got) > 0 {
			t.Errorf("%s gave %q", query, got)
		}
	}
	for query, want := range map[string]string{
		queryPathInfo:      "sqlite_autoindex_ValidPaths_1 (path=?)",
		queryReferences:    "SEARCH Refs USING COVERING INDEX sqlite_autoindex_Refs_1 (referrer=?)",
		queryReferrers:     "IndexReference (reference=?)",
		queryOutputs:       "sqlite_autoindex_DerivationOutputs_1 (drv=?)",
		queryValidDerivers: "IndexDerivationOutputs (path=?)",
		queryPathFromHash:  "COVERING INDEX sqlite_autoindex_ValidPaths_1 (path>?)",
	} {
		if plan := strings.Join(rows(t, conn, "explain query plan "+query, 1), "\n"); !strings.Contains(plan, want) {
			t.Errorf("%s\nis planned as %s\nwithout %s", query, plan, want)
		}
	}
	if got := rows(t, conn, "select name, seq from sqlite_sequence"); !slices.Equal(got, []string{"ValidPaths|20"}) {
		t.Errorf("sqlite_sequence is %q", got)
	}
}

func goldenInfos() []*store.PathInfo {
	path := func(digit, name string) store.Path {
		return store.Path(store.Dir + "/" + strings.Repeat(digit, store.DigestLen) + "-" + name)
	}
	libc, tool, drv := path("0", "libc-2.40"), path("a", "tool-1.0"), path("b", "tool-1.0.drv")
	return []*store.PathInfo{
		{Path: libc, NarHash: store.Hash{1}, NarSize: 30_000_000, References: []store.Path{libc}, Sigs: []string{"k-2:BBBB", "k-1:AAAA"}},
		{Path: tool, NarHash: store.Hash{2}, NarSize: 4096, References: []store.Path{libc, tool}, Deriver: drv},
		{Path: drv, NarHash: store.Hash{3}, NarSize: 700, CA: "text:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"},
	}
}

func goldenOutputs(yield func(Output, error) bool) {
	yield(Output{Drv: goldenInfos()[2].Path, Name: "out", Path: goldenInfos()[1].Path}, nil)
}

// The bytes of a database are part of an image's bytes: they change only on
// purpose.
func TestGolden(t *testing.T) {
	data, err := os.ReadFile(writeDB(t, goldenInfos(), Options{Outputs: goldenOutputs}))
	if err != nil {
		t.Fatal(err)
	}
	const want = "323a80064d7e7985e9b02babeaa454a7fbc358afcd54ed5298810f077aa55f9c"
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("SHA-256 %s, want %s", got, want)
	}
}

// Nothing but infos and options shows in the bytes: not the directories, nor
// what the process did before, nor the order of signatures and references, nor
// how much is sorted at a time.
func TestSameBytes(t *testing.T) {
	infos := mixedInfos(3, 2000)
	want, err := os.ReadFile(writeDB(t, infos, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	shuffled := make([]*store.PathInfo, len(infos))
	r := rand.New(rand.NewPCG(1, 1))
	for i, info := range infos {
		c := *info
		c.Sigs, c.References = slices.Clone(c.Sigs), slices.Clone(c.References)
		r.Shuffle(len(c.Sigs), func(i, j int) { c.Sigs[i], c.Sigs[j] = c.Sigs[j], c.Sigs[i] })
		r.Shuffle(len(c.References), func(i, j int) { c.References[i], c.References[j] = c.References[j], c.References[i] })
		c.References = append(c.References, c.References...)
		shuffled[i] = &c
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, most := range []int{0, 1, 7, 1000, indexRows} {
		name := filepath.Join(t.TempDir(), "other name")
		out, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		opts := Options{RegistrationTime: DefaultRegistrationTime, TempDir: t.TempDir()}
		if err := write(t.Context(), out, Infos(shuffled), opts, most); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("other bytes when %d entries are sorted at a time", most)
		}
	}
}

func TestRegistrationTime(t *testing.T) {
	conn := openDB(t, writeDB(t, goldenInfos(), Options{RegistrationTime: 1_700_000_000}), "immutable=1")
	if got := rows(t, conn, "select distinct registrationTime from ValidPaths"); !slices.Equal(got, []string{"1700000000"}) {
		t.Errorf("registration times %q", got)
	}
}

func TestProgress(t *testing.T) {
	infos := mixedInfos(4, 5000)
	var steps [][2]int64
	writeDB(t, infos, Options{Progress: func(done, total int64) { steps = append(steps, [2]int64{done, total}) }})
	want := int64(2 * len(infos))
	for _, info := range infos {
		want += 3 * int64(len(info.References))
	}
	var last int64
	for _, s := range steps {
		if s[0] < last || s[0] > s[1] || s[1] != want {
			t.Fatalf("%d of %d after %d, want %d in all", s[0], s[1], last, want)
		}
		last = s[0]
	}
	if last != want || len(steps) < 5 {
		t.Errorf("%d reports, the last of %d, want %d", len(steps), last, want)
	}
}

// A path whose name starts as many others do is found, and only that one.
func TestIDs(t *testing.T) {
	var x ids
	var paths []store.Path
	for _, digit := range "0az" {
		for i := range 40 {
			digest := strings.Repeat(string(digit), store.DigestLen-2) + string(base32Digits[i/32]) + string(base32Digits[i%32])
			paths = append(paths, store.Path(store.Dir+"/"+digest+"-x"))
		}
	}
	for _, p := range paths {
		if err := x.add(p); err != nil {
			t.Fatal(err)
		}
	}
	x.seal()
	for i, p := range paths {
		if got := x.find(p); got != uint32(i+1) {
			t.Errorf("%s has id %d, want %d", p, got, i+1)
		}
		for _, other := range []store.Path{p + "y", p[:len(p)-1] + "y", "", store.Dir + "/e", store.Dir + "/éééé", p[:30]} {
			if got := x.find(other); got != 0 {
				t.Errorf("%q has id %d", other, got)
			}
		}
	}
}

func TestLayout(t *testing.T) {
	var names []string
	for _, f := range Layout() {
		names = append(names, f.Path)
		switch f.Kind {
		case store.Directory:
		case store.Regular:
			if f.Path != "nix/var/nix/db/schema" || string(f.Data) != "10" || f.Size != 2 {
				t.Errorf("%s holds %q, %d bytes", f.Path, f.Data, f.Size)
			}
		default:
			t.Errorf("%s is a %s", f.Path, f.Kind)
		}
		if parent := filepath.Dir(f.Path); parent != "." && !slices.Contains(names, parent) {
			t.Errorf("%s comes before its directory", f.Path)
		}
	}
	for _, want := range []string{
		"nix/store/.links", "nix/var/nix/profiles/per-user", "nix/var/nix/gcroots/per-user", "nix/var/nix/temproots", "nix/var/nix/db/schema",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if filepath.Dir(DatabasePath) != "nix/var/nix/db" {
		t.Errorf("the database is at %s", DatabasePath)
	}
}

// Every tree that the writer fills is in the schema, and the other way round.
func TestRoots(t *testing.T) {
	s, err := newSkeleton(0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f, err := btree.NewFile(out, s.data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.table(f, "NoSuchTable"); err == nil || !strings.Contains(err.Error(), "NoSuchTable") {
		t.Errorf("a table that is not there: %v", err)
	}
	if _, err := s.index(f, "NoSuchIndex"); err == nil || !strings.Contains(err.Error(), "NoSuchIndex") {
		t.Errorf("an index that is not there: %v", err)
	}
}

// seq yields infos, then err.
func seq(infos []*store.PathInfo, err error) iter.Seq2[*store.PathInfo, error] {
	return func(yield func(*store.PathInfo, error) bool) {
		for _, info := range infos {
			if !yield(info, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}
