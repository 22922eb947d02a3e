package pipeline

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/pipeline/cache"
)

// TestCacheDamaged wants a file in the cache that is damaged to be made again.
func TestCacheDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	from, paths := randomStore(t, r, 5)
	dir := t.TempDir()
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Paths: some(r, paths, 2), BlockSize: 4096}
	opts.Output, opts.Cache = filepath.Join(dir, "a.sqsh"), filepath.Join(dir, "cache")
	build := func() []byte {
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		return readFile(t, opts.Output)
	}
	want := build()
	files, err := filepath.Glob(filepath.Join(opts.Cache, "*", "*"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files in the cache, %v", len(files), err)
	}
	for i, at := range []int{0, 200, -1, -24, -40} {
		for _, cut := range []bool{false, true} {
			whole := readFile(t, files[i])
			at := (at + len(whole)) % len(whole)
			b := bytes.Clone(whole)
			if b[at] ^= 0x55; cut {
				b = b[:at]
			}
			if err := os.WriteFile(files[i], b, 0o666); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(build(), want) {
				t.Errorf("with byte %d damaged (cut: %t) the image differs", at, cut)
			}
			if !bytes.Equal(readFile(t, files[i]), whole) {
				t.Errorf("with byte %d damaged (cut: %t) the file was not made again", at, cut)
			}
		}
	}
}

// badCache fails at what it has a function for.
type badCache struct {
	cache.Cache
	new      func() (*os.File, error)
	get, put error
}

func (c badCache) New() (*os.File, error) {
	if c.new != nil {
		return c.new()
	}
	return c.Cache.New()
}

func (c badCache) Get(ctx context.Context, key string) (*os.File, error) {
	if c.get != nil {
		return nil, c.get
	}
	return c.Cache.Get(ctx, key)
}

func (c badCache) Put(ctx context.Context, key string, f *os.File) error {
	if c.put != nil {
		return c.put
	}
	return c.Cache.Put(ctx, key, f)
}

// TestCacheFails wants a build to say once what is wrong with a cache, and to do
// without it; but not that a cache is filled if it is not.
func TestCacheFails(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	from, paths := randomStore(t, r, 8)
	dir := t.TempDir()
	var said strings.Builder
	opts := BuildOptions{
		From: []string{from}, NoCheckSigs: true, Paths: some(r, paths, 3), BlockSize: 4096, Output: filepath.Join(dir, "without.sqsh"),
		Logger: slog.New(slog.NewTextHandler(&said, nil)),
	}
	if _, err := Build(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	want := readFile(t, opts.Output)
	opts.Output, opts.Cache = filepath.Join(dir, "bad.sqsh"), filepath.Join(dir, "cache")
	run := func(bad badCache, do func(b *builder) error) error {
		b, err := open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		bad.Cache = b.packer.cache
		b.packer.cache = bad
		return b.close(t.Context(), do(b))
	}
	for _, c := range []struct {
		name, text string
		cache      badCache
		packs      bool
	}{
		{"full", "takes no more", badCache{new: func() (*os.File, error) { return os.OpenFile("/dev/full", os.O_RDWR, 0) }}, false},
		{"read-only", "takes no more", badCache{new: func() (*os.File, error) { return nil, unix.EROFS }}, false},
		{"keeps nothing", "takes no more", badCache{put: unix.EACCES}, false},
		{"unreadable", "cannot be read", badCache{get: unix.EIO}, true},
	} {
		said.Reset()
		if err := run(c.cache, func(b *builder) error { _, err := b.build(t.Context()); return err }); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !bytes.Equal(readFile(t, opts.Output), want) {
			t.Errorf("%s: the image is another one", c.name)
		}
		if strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), c.text) {
			t.Errorf("%s: it is said:\n%s", c.name, said.String())
		}
		err := run(c.cache, func(b *builder) error { return b.pack(t.Context(), Shard{0, 1}, new(PackResult)) })
		if (err == nil) != c.packs {
			t.Errorf("%s: packing ends with %v", c.name, err)
		}
	}
	if _, err := Pack(t.Context(), opts, Shard{0, 1}); err != nil {
		t.Errorf("a sound cache: %v", err)
	}
}

// TestShards wants every path in exactly one shard, the shards alike in bytes,
// and the same ones in every run.
func TestShards(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	from, paths := randomStore(t, r, 40)
	opts := BuildOptions{From: []string{from}, NoCheckSigs: true, Output: "x.sqsh", Paths: some(r, paths, 2)}
	b, err := open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer b.source.Close()
	plan, err := b.resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1, 2, 7, 60} {
		seen := make(map[int]bool)
		var least, most, largest int64 = 1 << 60, 0, 0
		for i := range count {
			part := partOf(plan, Shard{i, count})
			if !slices.Equal(part, partOf(plan, Shard{i, count})) {
				t.Errorf("shard %d of %d is another the second time", i, count)
			}
			var bytes int64
			for _, p := range part {
				if seen[p] {
					t.Errorf("path %d is in two of %d shards", p, count)
				}
				seen[p] = true
				bytes += plan.info(p).NarSize
				largest = max(largest, plan.info(p).NarSize)
			}
			least, most = min(least, bytes), max(most, bytes)
		}
		if len(seen) != len(plan.order) {
			t.Errorf("%d of %d paths are in one of %d shards", len(seen), len(plan.order), count)
		}
		if most-least > largest {
			t.Errorf("of %d shards one has %d bytes, one %d", count, least, most)
		}
	}
}
