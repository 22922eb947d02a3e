package source_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

var compressions = []string{"none", "zstd", "xz", "gzip"}

// fast are options whose failures do not take long.
func fast(t testing.TB, key sourcetest.Key) source.Options {
	return source.Options{
		Keys: key.Keys(t), ScratchDir: t.TempDir(), Attempts: 3, RetryDelay: time.Millisecond,
		StallTimeout: 5 * time.Second, Netrc: "/dev/null",
	}
}

func parse(t testing.TB, spec string, opts source.Options) source.Source {
	t.Helper()
	s, err := source.Parse(spec, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noLeaks fails the test if goroutines outlive it.
func noLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		var now int
		for range 200 {
			if now = runtime.NumGoroutine(); now <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", now, before, stacks[:runtime.Stack(stacks, true)])
	})
}

func TestMemory(t *testing.T) {
	sourcetest.Run(t, func(_ *testing.T, m *sourcetest.Memory) source.Source { return m })
}

func TestDir(t *testing.T) {
	noLeaks(t)
	sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
		root := filepath.Join(t.TempDir(), "a root?with#odd %41 name")
		m.WriteStore(t, root)
		return parse(t, root, source.Options{})
	})
}

func TestFileCache(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	for _, compression := range compressions {
		t.Run(compression, func(t *testing.T) {
			noLeaks(t)
			sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
				dir := t.TempDir()
				m.WriteCache(t, dir, compression, key)
				return parse(t, "file://"+dir, fast(t, key))
			})
		})
	}
}

// serve makes a binary cache of m on a web server.
func serve(t testing.TB, m *sourcetest.Memory, compression string, key sourcetest.Key) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	m.WriteCache(t, dir, compression, key)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	return server
}

func TestHTTPCache(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	for _, most := range []int64{0, -1} {
		t.Run(fmt.Sprint("in memory ", most == 0), func(t *testing.T) {
			noLeaks(t)
			sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
				opts := fast(t, key)
				opts.MaxInMemory = most
				return parse(t, serve(t, m, "zstd", key).URL+"/", opts)
			})
		})
	}
}

func TestChain(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
		root := t.TempDir()
		m.WriteStore(t, root)
		empty := sourcetest.NewMemory()
		opts := fast(t, key)
		return source.Chain([]source.Source{
			parse(t, serve(t, empty, "none", key).URL, opts),
			parse(t, serve(t, m, "none", key).URL, opts),
			parse(t, root, opts),
		}, nil)
	})
}

func TestParse(t *testing.T) {
	cache, empty := t.TempDir(), t.TempDir()
	sourcetest.NewMemory().WriteCache(t, cache, "none", sourcetest.NewKey("k"))
	tests := []struct{ spec, says string }{
		{"", "empty"},
		{"/no/such/dir", "neither a directory nor"},
		{"cache.example.org", "neither a directory nor"},
		{empty, "no Nix store is there"},
		{cache, "it is a binary cache: say file://"},
		{"/dev/null", "not a directory"},
		{"file://relative/dir", "three slashes"},
		{"file://", "three slashes"},
		{"ftp://example.org/", "there are DIR, file:///DIR"},
		{"https://", "no host"},
		{"https://:80", "no host"},
		{"https://cache.example.org?priority=3", `leave out what follows the ""`},
		{"file:///cache?compression=xz", "parameters are not taken"},
		{"https://u:secret@example.org:port/", "malformed URL"},
	}
	for _, test := range tests {
		t.Run(test.spec, func(t *testing.T) {
			s, err := source.Parse(test.spec, source.Options{})
			if err == nil {
				t.Fatalf("it is %v", s)
			}
			if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q does not say %q", err, test.says)
			}
			if test.says == "neither a directory nor" && strings.Count(err.Error(), test.spec) != 1 {
				t.Errorf("%q does not name it once", err)
			}
		})
	}
	opts := source.Options{Netrc: "/dev/null"}
	for spec, want := range map[string]string{
		"https://user:secret@example.org/x": "https://example.org/x", "file://localhost/dir": "file://localhost/dir",
	} {
		if got := parse(t, spec, opts).String(); got != want {
			t.Errorf("%s is called %s", spec, got)
		}
	}
	if _, err := source.Parse("https://example.org", source.Options{Netrc: "/no/such/netrc"}); err == nil {
		t.Error("a netrc file that was asked for may be missing")
	}
}

func TestChainErrors(t *testing.T) {
	broken := errors.New("connection refused")
	m, other, third := sourcetest.Sample(t), sourcetest.Sample(t), sourcetest.Sample(t)
	m.Name, other.Name, third.Name = "A", "B", "C"
	p := m.Paths()[0]
	absent := m.Add(t, "only-in-A", []sourcetest.File{sourcetest.Reg("", "")})
	s := source.Chain([]source.Source{m, other, third}, nil)

	m.InfoErrors[p], other.InfoErrors[p], third.InfoErrors[p] = source.ErrNotFound, broken, source.ErrNotFound
	_, err := s.Info(t.Context(), p)
	if want := string(p) + ": not in A, C; B: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if errors.Is(err, source.ErrNotFound) || !errors.Is(err, broken) {
		t.Errorf("%v: a source that failed might have had it", err)
	}
	if _, err := s.Info(t.Context(), absent); err != nil {
		t.Error(err)
	}

	// The contents come from another source if it says the same of the path.
	clear(other.InfoErrors)
	clear(third.InfoErrors)
	info, err := s.Info(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	other.OpenErrors[p] = broken
	c, err := s.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	clear(m.InfoErrors)
	m.OpenErrors[p], third.OpenErrors[p] = source.ErrMismatch, errors.New("no space")
	_, err = s.Open(t.Context(), info)
	for _, part := range []string{"A: contents are not", "B: connection refused", "C: no space"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// A source whose info differs must not stand in for another.
func TestChainSameContents(t *testing.T) {
	m := sourcetest.Sample(t)
	p := m.Paths()[0]
	m.OpenErrors[p] = errors.New("broken")
	for name, change := range map[string]func(*store.PathInfo){
		"hash":       func(i *store.PathInfo) { i.NarHash[0]++ },
		"size":       func(i *store.PathInfo) { i.NarSize++ },
		"references": func(i *store.PathInfo) { i.References = append(i.References, p) },
	} {
		t.Run(name, func(t *testing.T) {
			other := sourcetest.Sample(t)
			info, err := other.Info(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			change(info)
			s := source.Chain([]source.Source{m, other}, nil)
			if info, err = s.Info(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, err = s.Open(t.Context(), info); err == nil || !strings.Contains(err.Error(), "other contents or references") {
				t.Errorf("got %v", err)
			}
		})
	}
}
