package source_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
)

// bucketServer is Cloud Storage for a test; what it answers goes through wrap.
func bucketServer(t *testing.T, wrap func(http.Handler) http.Handler) *fakestorage.Server {
	t.Helper()
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true})
	if err != nil {
		t.Fatal(err)
	}
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "cache"})
	server := httptest.NewServer(wrap(fake.HTTPHandler()))
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)
	return fake
}

func plain(h http.Handler) http.Handler { return h }

// putCache puts the files of a cache into the bucket.
func putCache(t *testing.T, fake *fakestorage.Server, m *sourcetest.Memory, compression, prefix string, key sourcetest.Key) {
	t.Helper()
	dir := t.TempDir()
	m.WriteCache(t, dir, compression, key)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		fake.CreateObject(fakestorage.Object{ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "cache", Name: prefix + name}, Content: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBucket(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	for spec, prefix := range map[string]string{"gs://cache": "", "gs://cache/": "", "gs://cache/a b%2F/nix": "a b//nix/"} {
		t.Run(spec, func(t *testing.T) {
			noLeaks(t)
			fake := bucketServer(t, plain)
			sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
				putCache(t, fake, m, "zstd", prefix, key)
				return parse(t, spec, fast(t, key))
			})
		})
	}
}

// cutter ends the connection in the middle of the archive, once, and then does
// something else.
type cutter struct {
	http.Handler
	cut  atomic.Int32
	then func()
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/nar/") || c.cut.Add(1) > 1 {
		c.Handler.ServeHTTP(w, r)
		return
	}
	record := httptest.NewRecorder()
	c.Handler.ServeHTTP(record, r)
	w.Header().Set("X-Goog-Generation", record.Header().Get("X-Goog-Generation"))
	part(w, record.Body.Bytes(), record.Body.Len()/2)
	if c.then != nil {
		c.then()
	}
	reset(w)
}

// An object is received further where it was cut off, or again from the start
// if it was replaced.
func TestBucketCut(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.NewMemory()
	p := m.Add(t, "x", []sourcetest.File{sourcetest.Reg("", strings.Repeat("0123456789abcdef", 50_000))})
	for name, replaced := range map[string]bool{"same": false, "replaced": true} {
		t.Run(name, func(t *testing.T) {
			c := &cutter{}
			var ranges atomic.Int32
			fake := bucketServer(t, func(h http.Handler) http.Handler {
				c.Handler = h
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Range") != "" {
						ranges.Add(1)
						if r.URL.Query().Get("generation") == "" {
							t.Error("a range of whichever generation there is was asked for")
						}
					}
					c.ServeHTTP(w, r)
				})
			})
			putCache(t, fake, m, "none", "", key)
			if replaced {
				c.then = func() { putCache(t, fake, m, "none", "", key) }
			}
			s := parse(t, "gs://cache", fast(t, key))
			t.Cleanup(func() { s.Close() })
			info, err := s.Info(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			contents, err := s.Open(t.Context(), info)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sourcetest.ReadAll(contents); err != nil {
				t.Error(err)
			}
			if want := map[bool]int32{false: 2, true: 3}[replaced]; c.cut.Load() != want || ranges.Load() != 1 {
				t.Errorf("%d requests, %d of them for ranges, instead of %d and 1", c.cut.Load(), ranges.Load(), want)
			}
		})
	}
}

func TestBucketRefuses(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	for _, spec := range []string{"gs://", "gs:///x", "gs://me@cache", "gs://cache:80", "gs://cache?a=b", "gs://cache#x"} {
		if _, err := source.Parse(spec, fast(t, key)); !errors.Is(err, source.ErrSpec) {
			t.Errorf("%s: %v", spec, err)
		}
	}
	m := sourcetest.NewMemory()
	p := m.Add(t, "x", []sourcetest.File{sourcetest.Reg("", "x")})
	status := http.StatusOK
	fake := bucketServer(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status != http.StatusOK {
				w.WriteHeader(status)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	putCache(t, fake, m, "none", "", key)
	for code, want := range map[int]string{401: "gcloud auth", 404: "not found", 503: "503"} {
		status = code
		s := parse(t, "gs://cache", fast(t, key))
		if _, err := s.Info(t.Context(), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: %v", code, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", "http://")
	if _, err := source.Parse("gs://cache", fast(t, key)); err == nil || !strings.Contains(err.Error(), "STORAGE_EMULATOR_HOST") {
		t.Errorf("no server: %v", err)
	}
}
