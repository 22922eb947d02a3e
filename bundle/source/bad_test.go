package source_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/narinfo"
	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

// web is a binary cache of a few objects on a web server.
type web struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte
	asked   map[string]int
	// hook answers instead, if it returns true. The number says how often the
	// object was asked for before.
	hook func(w http.ResponseWriter, r *http.Request, before int) bool
}

func newWeb(t testing.TB) *web {
	w := &web{objects: map[string][]byte{"nix-cache-info": []byte("StoreDir: /nix/store\n")}, asked: make(map[string]int)}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	w.mu.Lock()
	before, data, hook := w.asked[name], w.objects[name], w.hook
	w.asked[name]++
	w.mu.Unlock()
	switch {
	case hook != nil && hook(rw, r, before):
	case data == nil:
		http.NotFound(rw, r)
	default:
		rw.Write(data)
	}
}

func (w *web) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[name]
}

// put adds a path's narinfo and archive.
func (w *web) put(n *narinfo.NarInfo, packed []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects[n.URL] = packed
	w.objects[n.Info.Path.Digest()+".narinfo"] = []byte(n.String())
}

// read does all that there is to do with a path.
func read(t testing.TB, s source.Source, p store.Path) ([]sourcetest.File, error) {
	info, err := s.Info(t.Context(), p)
	if err != nil {
		return nil, err
	}
	c, err := s.Open(t.Context(), info)
	if err != nil {
		return nil, err
	}
	return sourcetest.ReadAll(c)
}

// word writes a NAR's words: length, bytes, padding.
func words(list ...string) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(w)))
		b = append(b, w...)
		b = append(b, make([]byte, -len(w)&7)...)
	}
	return b
}

// dirOf is the archive of a directory with empty files of these names.
func dirOf(names ...string) []byte {
	list := []string{"nix-archive-1", "(", "type", "directory"}
	for _, n := range names {
		list = append(list, "entry", "(", "name", n, "node", "(", "type", "regular", "contents", "", ")", ")")
	}
	return words(append(list, ")")...)
}

func TestBadCache(t *testing.T) {
	key, other := sourcetest.NewKey("test-1"), sourcetest.NewKey("other-1")
	good := dirOf("a", "b")
	sign := func(n *narinfo.NarInfo) { n.Info.Sigs = []string{key.Sign(&n.Info)} }
	tests := []struct {
		name        string
		archive     []byte
		compression string
		// change spoils what the cache says, and returns the file it sends.
		change func(n *narinfo.NarInfo, packed []byte) []byte
		is     error
		says   string
		asks   int // for the archive
	}{
		{"unsigned", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.Sigs = nil; return p },
			store.ErrUntrusted, "it is not signed", 0},
		{"signed by another", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.Sigs = []string{other.Sign(&n.Info)}; return p },
			store.ErrUntrusted, "signed by other-1", 0},
		{"wrongly signed", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.NarSize++; return p },
			store.ErrUntrusted, "does not match", 0},
		{"wrong NAR hash", good, "zstd", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.NarHash[3]++; sign(n); return p },
			source.ErrMismatch, "NAR hash", 1},
		{"NAR too short", good, "zstd", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.NarSize += 8; sign(n); return p },
			source.ErrMismatch, "its NarSize is", 1},
		{"NAR too long", good, "xz", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.NarSize -= 8; sign(n); return p },
			source.ErrMismatch, "longer than the", 1},
		{"absurd size", good, "zstd", func(n *narinfo.NarInfo, p []byte) []byte { n.Info.NarSize = 1 << 62; sign(n); return p },
			source.ErrMismatch, "its NarSize is", 1},
		{"absurd file size", good, "zstd", func(n *narinfo.NarInfo, p []byte) []byte { n.FileSize = 1 << 62; return p },
			source.ErrMismatch, "its FileSize is", 1},
		{"wrong file hash", good, "gzip", func(n *narinfo.NarInfo, p []byte) []byte { n.FileHash[0]++; return p },
			source.ErrMismatch, "file hash", 1},
		{"file too long", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { n.FileSize -= 8; return p },
			source.ErrMismatch, "of its FileSize", 1},
		{"damaged", good, "zstd", func(n *narinfo.NarInfo, p []byte) []byte { p[len(p)/2] ^= 0x55; n.FileHash = store.Hash{}; return p },
			nil, ".nar.zstd: ", 1},
		{"truncated", good, "xz", func(n *narinfo.NarInfo, p []byte) []byte {
			n.FileSize, n.FileHash = 0, store.Hash{}
			return p[:len(p)-9]
		},
			io.ErrUnexpectedEOF, "unexpected EOF", 1},
		{"truncated plain", good, "none", func(n *narinfo.NarInfo, p []byte) []byte {
			n.FileSize, n.FileHash = 0, store.Hash{}
			return p[:len(p)-16]
		},
			source.ErrMismatch, "its NarSize is", 1},
		{"empty", good, "gzip", func(n *narinfo.NarInfo, p []byte) []byte { n.FileSize, n.FileHash = 0, store.Hash{}; return []byte{} },
			io.ErrUnexpectedEOF, "", 3},
		{"archive missing", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { return nil },
			nil, "archive is missing", 1},
		{"unknown compression", good, "none", func(n *narinfo.NarInfo, p []byte) []byte { n.Compression = "br"; return p },
			source.ErrCompression, `"br"`, 0},
		{"other compression", good, "gzip", func(n *narinfo.NarInfo, p []byte) []byte { n.Compression = "zstd"; return p },
			nil, "magic", 1},
		{"of another path", good, "none", func(n *narinfo.NarInfo, p []byte) []byte {
			n.Info.Path = n.Info.Path + "x"
			sign(n)
			return p
		}, source.ErrNotFound, "is of /nix/store", 0},
		{"large zstd window", good, "none", func(n *narinfo.NarInfo, _ []byte) []byte {
			n.Compression, n.FileSize, n.FileHash = "zstd", 0, store.Hash{}
			return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0}
		}, nil, "window of 2147483648 bytes", 1},
		{"large xz dictionary", good, "xz", func(n *narinfo.NarInfo, p []byte) []byte {
			n.FileSize, n.FileHash = 0, store.Hash{}
			p[12+4] = 40 // the dictionary's size in the block header
			binary.LittleEndian.PutUint32(p[12+8:], crc32.ChecksumIEEE(p[12:12+8]))
			return p
		}, nil, "window of 4294967295 bytes", 1},
		{"bytes after zstd", good, "zstd", trailing, nil, "", 1},
		{"bytes after xz", good, "xz", trailing, nil, "", 1},
		{"bytes after gzip", good, "gzip", trailing, nil, "", 1},
		{"dot dot", dirOf(".."), "none", nil, nar.ErrFormat, `".."`, 1},
		{"slash", dirOf("a/b"), "none", nil, nar.ErrFormat, "slash", 1},
		{"NUL", dirOf("a\x00b"), "none", nil, nar.ErrFormat, "NUL", 1},
		{"no name", dirOf(""), "none", nil, nar.ErrFormat, "empty file name", 1},
		{"duplicate", dirOf("a", "a"), "none", nil, nar.ErrFormat, `"a"`, 1},
		{"unsorted", dirOf("b", "a"), "none", nil, nar.ErrFormat, `"a"`, 1},
		{"absurd file", words("nix-archive-1", "(", "type", "regular", "contents", "\xff\xff\xff\xff\xff\xff\xff\x7f")[:96], "none", nil, io.ErrUnexpectedEOF, "", 1},
		{"no archive", []byte("hello"), "none", nil, nil, "", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			m := sourcetest.NewMemory()
			p := m.AddArchive(t, "bad", test.archive)
			n, packed := m.NarInfo(t, p, test.compression, key)
			packed = bytes.Clone(packed)
			if test.change != nil {
				packed = test.change(n, packed)
			}
			server := newWeb(t)
			server.put(n, packed)
			server.objects[p.Digest()+".narinfo"] = []byte(n.String())
			opts := fast(t, key)
			s := parse(t, server.URL, opts)
			defer s.Close()
			files, err := read(t, s, p)
			if err == nil {
				t.Fatalf("it gave %v", files)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v", err, test.is)
			}
			for _, part := range []string{string(p), server.URL, test.says} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if got := server.count(n.URL); got != test.asks {
				t.Errorf("the archive was asked for %d times, want %d", got, test.asks)
			}
			checkEmpty(t, opts.ScratchDir)
		})
	}
}

func trailing(n *narinfo.NarInfo, packed []byte) []byte {
	n.FileSize, n.FileHash = 0, store.Hash{}
	return append(packed, "more"...)
}

func checkEmpty(t testing.TB, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) > 0 {
		t.Errorf("%s holds %v (%v)", dir, names, err)
	}
}

// What grows a thousandfold is given up where it should have ended.
func TestBombs(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	for compression, size := range map[string]int{"zstd": 200 << 20, "gzip": 100 << 20, "xz": 40 << 20} {
		t.Run(compression, func(t *testing.T) {
			m := sourcetest.NewMemory()
			p := m.AddArchive(t, "bomb", make([]byte, size))
			n, packed := m.NarInfo(t, p, compression, key)
			n.Info.NarSize = 1 << 20
			n.Info.Sigs = []string{key.Sign(&n.Info)}
			server := newWeb(t)
			server.put(n, packed)
			s := parse(t, server.URL, fast(t, key))
			defer s.Close()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := read(t, s, p)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, source.ErrMismatch) {
				t.Errorf("got %v", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
				t.Errorf("it took %d bytes of memory", took)
			}
		})
	}
}

// Memory does not grow with what is received.
func TestMemoryBound(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.NewMemory()
	large := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{}).Read(large)
	p := m.Add(t, "large", []sourcetest.File{sourcetest.Reg("", string(large))})
	dir := t.TempDir()
	m.WriteCache(t, dir, "none", key)
	opts := fast(t, key)
	s := parse(t, "file://"+dir, opts)
	defer s.Close()
	info, err := s.Info(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := s.Open(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10)); err != nil || n != int64(len(large)) {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("64 MiB took %d bytes of memory", took)
	}
}

func TestNoCheckSigs(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	p := m.Paths()[0]
	n, packed := m.NarInfo(t, p, "none", key)
	n.Info.Sigs = nil
	server := newWeb(t)
	server.put(n, packed)
	opts := fast(t, key)
	opts.Keys, opts.NoCheckSigs = nil, true
	s := parse(t, server.URL, opts)
	defer s.Close()
	if _, err := read(t, s, p); err != nil {
		t.Error(err)
	}
	// Without a key of ours, it is cache.nixos.org's that counts.
	s = parse(t, server.URL, source.Options{Netrc: "/dev/null"})
	defer s.Close()
	if _, err := s.Info(t.Context(), p); !errors.Is(err, store.ErrUntrusted) || !strings.Contains(err.Error(), "trusted: cache.nixos.org-1") {
		t.Errorf("got %v", err)
	}
}

// A path that follows from its contents needs no signature, but its contents
// must be those.
func TestContentAddressed(t *testing.T) {
	for _, text := range []string{"the text", "another text"} {
		info := &store.PathInfo{CA: "text:" + store.Hash{}.String(), Path: store.Dir + "/" + store.Path(strings.Repeat("0", 32)+"-ca")}
		archive := words("nix-archive-1", "(", "type", "regular", "contents", text, ")")
		m := sourcetest.NewMemory()
		n, _ := m.NarInfo(t, m.AddArchive(t, "x", archive), "none", sourcetest.NewKey("k"))
		info.NarHash, info.NarSize = n.Info.NarHash, n.Info.NarSize
		info.CA = "text:sha256:" + fmt.Sprintf("%x", sha256.Sum256([]byte("the text")))
		path, err := info.CAPath()
		if err != nil {
			t.Fatal(err)
		}
		info.Path = path
		n.Info = *info
		server := newWeb(t)
		server.put(n, archive)
		s := parse(t, server.URL, fast(t, sourcetest.NewKey("k")))
		defer s.Close()
		files, err := read(t, s, path)
		if text == "the text" && (err != nil || string(files[0].Data) != text) {
			t.Errorf("got %v, %v", files, err)
		}
		if text != "the text" && !errors.Is(err, store.ErrContents) {
			t.Errorf("contents that are not the address's: %v", err)
		}
	}
}

func TestCacheInfo(t *testing.T) {
	p := sourcetest.Sample(t).Paths()[0]
	tests := []struct{ name, text, says string }{
		{"other store", "StoreDir: /gnu/store\n", `its paths are for the store "/gnu/store"`},
		{"malformed", "StoreDir\n", "line 1"},
		{"priority", "StoreDir: /nix/store\nPriority: high\n", "line 2: Priority"},
		{"too long", strings.Repeat("x: y\n", 1<<16), "over 65536 bytes"},
		{"missing", "", "no binary cache is there"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := newWeb(t)
			server.objects["nix-cache-info"] = []byte(test.text)
			if test.text == "" {
				delete(server.objects, "nix-cache-info")
			}
			s := parse(t, server.URL, source.Options{Netrc: "/dev/null"})
			defer s.Close()
			for range 3 {
				_, err := s.Info(t.Context(), p)
				if err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, source.ErrNotFound) {
					t.Errorf("got %v, want %q", err, test.says)
				}
			}
			if n := server.count("nix-cache-info"); n != 1 {
				t.Errorf("asked for %d times", n)
			}
		})
	}
	// In a directory it may be missing, as Nix would make it; the directory
	// must be there.
	dir := t.TempDir()
	s := parse(t, "file://"+dir, source.Options{})
	if _, err := s.Info(t.Context(), p); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	s = parse(t, "file://"+dir+"/none", source.Options{})
	if _, err := s.Info(t.Context(), p); errors.Is(err, source.ErrNotFound) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFileCacheNames(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	p := m.Paths()[0]
	for url, says := range map[string]string{
		"../outside.nar": "is not a file in the cache", "/etc/passwd": "is not a file in the cache",
		"http://127.0.0.1/x": "archive is missing", "nar": "not a regular file",
	} {
		dir := t.TempDir()
		m.WriteCache(t, dir, "none", key)
		n, _ := m.NarInfo(t, p, "none", key)
		n.URL = url
		if err := os.WriteFile(dir+"/"+p.Digest()+".narinfo", []byte(n.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		s := parse(t, "file://"+dir, fast(t, key))
		if _, err := read(t, s, p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", url, err, says)
		}
		s.Close()
	}
}
