package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"

	"bigdisk/gcp/bucket"
)

func key(c string) string { return strings.Repeat(c, 64) }

func put(t *testing.T, c Cache, key, data string) {
	t.Helper()
	f, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), key, f); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c Cache, key string) (string, error) {
	t.Helper()
	f, err := c.Get(t.Context(), key)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return string(data), nil
}

// testCache covers what both kinds do.
func testCache(t *testing.T, c Cache) {
	if _, err := get(t, c, key("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if there, err := c.Has(t.Context(), key("a")); there || err != nil {
		t.Errorf("what is not there: %t, %v", there, err)
	}
	var all sync.WaitGroup
	for range 4 { // several builders at once
		all.Go(func() { put(t, c, key("a"), "one") })
	}
	all.Wait()
	put(t, c, key("b"), "two")
	for k, want := range map[string]string{"a": "one", "b": "two"} {
		if got, err := get(t, c, key(k)); got != want || err != nil {
			t.Errorf("%s: %q, %v", k, got, err)
		}
		if there, err := c.Has(t.Context(), key(k)); !there || err != nil {
			t.Errorf("%s: %t, %v", k, there, err)
		}
	}
	for range 2 { // twice is no error
		if err := c.Drop(t.Context(), key("a")); err != nil {
			t.Error(err)
		}
	}
	if _, err := get(t, c, key("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was dropped: %v", err)
	}
	if err := c.Trim(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDir(t *testing.T) {
	c, err := OpenDir(filepath.Join(t.TempDir(), "a", "cache"), 0)
	if err != nil {
		t.Fatal(err)
	}
	testCache(t, c)
}

func TestBucket(t *testing.T) {
	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{Scheme: "http"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "images"})
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(server.URL(), "http://"))
	client, err := bucket.New(t.Context(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := OpenBucket(client, "gs://images/packed", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	testCache(t, c)
}

// TestTrim wants the files that were used longest ago to go, and no more of
// them than have to; an open one can still be read.
func TestTrim(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenDir(dir, 20)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []string{"a", "b", "c"} {
		put(t, c, key(k), "ten bytes ")
		then := time.Now().Add(time.Duration(i-10) * abandoned)
		if err := os.Chtimes(c.name(key(k)), then, then); err != nil {
			t.Fatal(err)
		}
	}
	stale, begun := filepath.Join(dir, temporary+"left"), filepath.Join(dir, temporary+"begun")
	for _, name := range []string{stale, begun} {
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * abandoned)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	put(t, c, key("d"), "more bytes than there may be in all")
	open, err := c.Get(t.Context(), key("a")) // which makes b the oldest
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := c.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false} {
		if there, err := c.Has(t.Context(), key(k)); there != want || err != nil {
			t.Errorf("%s is there: %t, %v", k, there, err)
		}
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("a file that somebody abandoned is still there")
	}
	if _, err := os.Stat(begun); err != nil {
		t.Errorf("a file that somebody is writing is gone: %v", err)
	}
	c.most = 1
	if err := c.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(open); string(data) != "ten bytes " || err != nil {
		t.Errorf("an open file that was dropped: %q, %v", data, err)
	}
}

// TestPutWhileCleared has somebody clear the cache while files are put into it.
func TestPutWhileCleared(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenDir(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var clearing sync.WaitGroup
	clearing.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				os.RemoveAll(filepath.Join(dir, "ab"))
			}
		}
	})
	for i := range 500 {
		f, err := c.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), fmt.Sprintf("ab%d", i), f); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	close(ended)
	clearing.Wait()
}
