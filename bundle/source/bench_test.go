package source_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle"
	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

// drain reads contents to their end.
func drain(c store.Contents, buf []byte) error {
	defer c.Close()
	for {
		if _, err := c.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buf); err != nil {
			return err
		}
	}
}

// BenchmarkOpen opens and reads a path, small and large, of each kind of source.
func BenchmarkOpen(b *testing.B) {
	key := sourcetest.NewKey("bench-1")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	m := sourcetest.NewMemory()
	small := m.Add(b, "small", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("a", "a"), sourcetest.Reg("b", "b")})
	large := m.Add(b, "large", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("exe", string(exe))})
	root := b.TempDir()
	m.WriteStore(b, root)
	specs := map[string]string{"dir": root}
	for _, compression := range compressions {
		cache := b.TempDir()
		m.WriteCache(b, cache, compression, key)
		specs["file-"+compression] = "file://" + cache
		if compression == "zstd" {
			server := httptest.NewServer(http.FileServer(http.Dir(cache)))
			defer server.Close()
			specs["http-zstd"] = server.URL
		}
	}
	buf := make([]byte, 256<<10)
	for _, kind := range []string{"dir", "file-none", "file-zstd", "file-gzip", "file-xz", "http-zstd"} {
		for _, p := range []store.Path{small, large} {
			b.Run(kind+"/"+p.Name(), func(b *testing.B) {
				s := parse(b, specs[kind], fast(b, key))
				defer s.Close()
				info, err := s.Info(b.Context(), p)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(info.NarSize)
				b.ReportAllocs()
				for b.Loop() {
					c, err := s.Open(b.Context(), info)
					if err != nil {
						b.Fatal(err)
					}
					if err := drain(c, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkDirClosure finds the closure of a database of 100,000 paths with ten
// references each.
func BenchmarkDirClosure(b *testing.B) {
	const paths = 100_000
	root := b.TempDir()
	last := writeLargeDB(b, root, paths)
	for b.Loop() {
		s := parse(b, root, source.Options{})
		c, err := bundle.FindClosure(b.Context(), s, []store.Path{last}, 8)
		if err != nil {
			b.Fatal(err)
		}
		if c.Len() != paths {
			b.Fatalf("%d paths", c.Len())
		}
		s.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/paths, "ns/path")
}

// writeLargeDB makes a database whose last path needs all others.
func writeLargeDB(b *testing.B, root string, paths int) store.Path {
	b.Helper()
	sourcetest.NewMemory().WriteStore(b, root)
	conn, err := sqlite.OpenConn(filepath.Join(root, "nix/var/nix/db/db.sqlite"), sqlite.OpenReadWrite)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	path := func(i int) string { return fmt.Sprintf("%s/%032d-some-package-1.2.3", store.Dir, i) }
	err = sqlitex.ExecuteScript(conn, fmt.Sprintf(`
		INSERT INTO ValidPaths (path, hash, registrationTime, narSize, sigs)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)
			SELECT printf('%s/%%032d-some-package-1.2.3', i), 'sha256:%s', 1, 100, 'cache.example.org-1:%s==' FROM n;
		INSERT OR IGNORE INTO Refs WITH RECURSIVE k(j) AS (SELECT 0 UNION ALL SELECT j+1 FROM k WHERE j < 9)
			SELECT id, CASE j WHEN 0 THEN id - 1 ELSE 1 + (id * 7919 * j) %% id END FROM ValidPaths, k WHERE id > 1;`,
		paths, store.Dir, strings.Repeat("0", 64), strings.Repeat("A", 86)), nil)
	if err != nil {
		b.Fatal(err)
	}
	return store.Path(path(paths))
}

// BenchmarkCorpus reads everything in a store and in a cache of the same paths,
// in two goroutines: DIR/root, DIR/cache and DIR/cache.pub, where
// BIGDISK_CORPUS=DIR.
func BenchmarkCorpus(b *testing.B) {
	dir := os.Getenv("BIGDISK_CORPUS")
	if dir == "" {
		b.Skip("needs BIGDISK_CORPUS to name a directory with root, cache and cache.pub")
	}
	public, err := os.ReadFile(dir + "/cache.pub")
	if err != nil {
		b.Fatal(err)
	}
	keys, err := store.ParseKeys([]string{string(public)})
	if err != nil {
		b.Fatal(err)
	}
	names, err := os.ReadDir(dir + "/root/nix/store")
	if err != nil {
		b.Fatal(err)
	}
	var roots []store.Path
	for _, n := range names {
		if p, err := store.ParseBase(n.Name()); err == nil && !p.IsDerivation() {
			roots = append(roots, p)
		}
	}
	for _, spec := range []string{dir + "/root", "file://" + dir + "/cache"} {
		b.Run(filepath.Base(spec), func(b *testing.B) {
			for b.Loop() {
				readAll(b, parse(b, spec, source.Options{Keys: keys}), roots)
			}
		})
	}
}

func readAll(b *testing.B, s source.Source, roots []store.Path) {
	b.Helper()
	defer s.Close()
	c, err := bundle.FindClosure(b.Context(), s, roots, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(c.NarBytes())
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(2)
	for info := range c.All() {
		group.Go(func() error {
			contents, err := s.Open(ctx, info)
			if err != nil {
				return err
			}
			return drain(contents, make([]byte, 128<<10))
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}
