package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
)

// reset ends the connection in the middle of an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// part answers with the first n bytes of an object and says that all will come.
func part(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.WriteHeader(http.StatusOK)
	w.Write(data[:n])
	http.NewResponseController(w).Flush()
}

// ranged answers as a server that knows Range and If-Range.
func ranged(w http.ResponseWriter, r *http.Request, data []byte, etag string) {
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
}

type hook func(w http.ResponseWriter, r *http.Request, before int) bool

// What servers do, and what becomes of it. Every answer is about the archive,
// of 300,000 bytes that do not compress.
func TestServers(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.NewMemory()
	p := m.Add(t, "x", []sourcetest.File{sourcetest.Reg("", strings.Repeat("0123456789abcdefghijklmnopqrst", 10_000))})
	n, packed := m.NarInfo(t, p, "none", key)
	status := func(codes ...int) hook {
		return func(w http.ResponseWriter, _ *http.Request, before int) bool {
			if before < len(codes) {
				http.Error(w, "no", codes[before])
			}
			return before < len(codes)
		}
	}
	stalled := func(after int) hook {
		return func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before > 0 {
				return false
			}
			if after >= 0 {
				part(w, packed, after)
			}
			<-r.Context().Done()
			return true
		}
	}
	tests := []struct {
		name string
		hook hook
		says string // "" if all is well in the end
		asks int
	}{
		{"well", nil, "", 1},
		{"5xx then well", status(500, 503), "", 3},
		{"5xx", status(502, 502, 502), "HTTP status 502 Bad Gateway (3 attempts)", 3},
		{"not implemented", status(501), "HTTP status 501", 1},
		{"too many then well", status(429), "", 2},
		{"request timeout then well", status(408), "", 2},
		{"not found", status(404), "archive is missing", 1},
		{"gone", status(410), "archive is missing", 1},
		{"forbidden", status(403), "archive is missing (HTTP status 403", 1},
		{"unauthorized", status(401), "needs credentials", 1},
		{"teapot", status(418), "HTTP status 418", 1},
		{"no answer", stalled(-1), "", 2},
		{"stalled at once", stalled(0), "", 2},
		{"stalled halfway", stalled(150_000), "", 2},
		{"reset", func(w http.ResponseWriter, _ *http.Request, before int) bool {
			if before < 2 {
				reset(w)
			}
			return before < 2
		}, "", 3},
		{"always reset", func(w http.ResponseWriter, _ *http.Request, _ int) bool { reset(w); return true }, "(3 attempts)", 3},
		{"reset halfway, no ranges", func(w http.ResponseWriter, _ *http.Request, before int) bool {
			if before < 2 {
				part(w, packed, 100_000*(before+1))
				reset(w)
			}
			return before < 2
		}, "", 3},
		{"reset halfway, ranges", func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before > 0 {
				if r.Header.Get("Range") != "bytes=100000-" || r.Header.Get("If-Range") != `"v1"` {
					http.Error(w, "no range was asked for", 418)
					return true
				}
				ranged(w, r, packed, `"v1"`)
				return true
			}
			w.Header().Set("ETag", `"v1"`)
			part(w, packed, 100_000)
			reset(w)
			return true
		}, "", 2},
		{"replaced halfway", func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before == 0 {
				w.Header().Set("ETag", `"v1"`)
				part(w, []byte(strings.Repeat("x", len(packed))), 100_000)
				reset(w)
				return true
			}
			ranged(w, r, packed, `"v2"`)
			return true
		}, "", 3},
		{"other length halfway", func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before == 0 {
				part(w, append(packed, 0), 100_000)
				reset(w)
				return true
			}
			ranged(w, r, packed, "")
			return true
		}, "", 3},
		{"wrong range", func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before == 0 {
				part(w, packed, 100_000)
				reset(w)
				return true
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 99999-%d/%d", len(packed)-1, len(packed)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(packed[99_999:])
			return true
		}, "sends it from byte 99999", 2},
		{"range unasked", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			w.Header().Set("Content-Range", "bytes x")
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, "Content-Range", 1},
		{"ends early without a length", func(w http.ResponseWriter, _ *http.Request, before int) bool {
			if before == 0 {
				w.Header().Set("Connection", "close")
				w.Header().Set("Transfer-Encoding", "identity")
				w.Write(packed[:1000])
			}
			return before == 0
		}, "", 2},
		{"encoded", func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Content-Encoding", "br")
			return true
		}, `Content-Encoding "br"`, 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, "redirect not followed: more than 10", 10},
		{"redirect to a file", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
			return true
		}, "neither http nor https", 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request, before int) bool {
			if before == 0 {
				http.Redirect(w, r, r.URL.Path, http.StatusFound)
			}
			return before == 0
		}, "", 2},
		{"endless header", func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			for i := range 2000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 100))
			}
			return true
		}, "header", 3},
		{"endless body", func(w http.ResponseWriter, r *http.Request, _ int) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(packed); err != nil {
					break
				}
			}
			return true
		}, "of its FileSize", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			server := newWeb(t)
			// On a connection used before, net/http asks once more by itself.
			server.Config.SetKeepAlivesEnabled(false)
			server.put(n, packed)
			server.hook = func(w http.ResponseWriter, r *http.Request, before int) bool {
				return test.hook != nil && r.URL.Path == "/"+n.URL && test.hook(w, r, before)
			}
			opts := fast(t, key)
			opts.StallTimeout = 300 * time.Millisecond
			s := parse(t, server.URL, opts)
			defer s.Close()
			_, err := read(t, s, p)
			switch {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), string(p))):
				t.Errorf("got %v, want %q", err, test.says)
			}
			if got := server.count(n.URL); got != test.asks {
				t.Errorf("asked %d times, want %d", got, test.asks)
			}
			checkEmpty(t, opts.ScratchDir)
		})
	}
}

// The time that a server asks for is waited.
func TestRetryAfter(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	server := newWeb(t)
	n, packed := m.NarInfo(t, m.Paths()[0], "none", key)
	server.put(n, packed)
	server.hook = func(w http.ResponseWriter, r *http.Request, before int) bool {
		if before == 0 && strings.HasSuffix(r.URL.Path, ".narinfo") {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	}
	s := parse(t, server.URL, fast(t, key))
	defer s.Close()
	start := time.Now()
	if _, err := s.Info(t.Context(), m.Paths()[0]); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("asked again after %s", took)
	}
}

// A server that sends a little now and then is not stalled, but it has only so
// much time; and it does not keep others waiting.
func TestSlowServer(t *testing.T) {
	noLeaks(t)
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	slow := m.Paths()[0]
	server := newWeb(t)
	var slowURL string
	for _, p := range m.Paths() {
		n, packed := m.NarInfo(t, p, "none", key)
		server.put(n, packed)
		if p == slow {
			slowURL = "/" + n.URL
		}
	}
	server.hook = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path != slowURL {
			return false
		}
		for r.Context().Err() == nil {
			w.Write([]byte{0})
			http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	opts := fast(t, key)
	opts.Requests, opts.StallTimeout, opts.Timeout = 4, 3*time.Second, 2*time.Second
	s := parse(t, server.URL, opts)
	defer s.Close()
	// More than this slow archive would send in its time.
	info, err := s.Info(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	big := *info
	big.NarSize = 1 << 15
	var others atomic.Int64
	var group errgroup.Group
	group.Go(func() error {
		n, packed := m.NarInfo(t, slow, "none", key)
		n.FileSize, n.Info.NarSize = 0, big.NarSize
		n.Info.Sigs = []string{key.Sign(&n.Info)}
		server.put(n, packed)
		start := time.Now()
		_, err := read(t, s, slow)
		if err == nil || !strings.Contains(err.Error(), "not received within 2s") {
			return fmt.Errorf("the slow one: %w", err)
		}
		if took := time.Since(start); took > 20*time.Second {
			return fmt.Errorf("the slow one took %s", took)
		}
		if others.Load() != int64(len(m.Paths())-1) {
			return fmt.Errorf("only %d others were done first", others.Load())
		}
		return nil
	})
	for _, p := range m.Paths()[1:] {
		group.Go(func() error {
			_, err := read(t, s, p)
			others.Add(1)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// A server that stalls for ever is given up, in the time that attempts take.
func TestStalledServer(t *testing.T) {
	noLeaks(t)
	p := sourcetest.Sample(t).Paths()[0]
	server := newWeb(t)
	server.hook = func(_ http.ResponseWriter, r *http.Request, _ int) bool { <-r.Context().Done(); return true }
	opts := fast(t, sourcetest.NewKey("k"))
	opts.StallTimeout = 50 * time.Millisecond
	s := parse(t, server.URL, opts)
	defer s.Close()
	_, err := s.Info(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "nothing received for 50ms (3 attempts)") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	opts.StallTimeout = time.Minute
	s = parse(t, server.URL, opts)
	defer s.Close()
	if _, err := s.Info(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting: %v", err)
	}
}

// A server that cannot be reached is not tried for every path anew.
func TestUnreachable(t *testing.T) {
	noLeaks(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + listener.Addr().String()
	listener.Close()
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	opts := fast(t, key)
	first := parse(t, dead, opts)
	defer first.Close()
	start := time.Now()
	for range 1000 {
		if _, err := first.Info(t.Context(), m.Paths()[0]); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("got %v", err)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("1000 paths took %s", took)
	}
	// The next source steps in.
	s := source.Chain([]source.Source{first, parse(t, serve(t, m, "zstd", key).URL, opts)}, nil)
	defer s.Close()
	for _, p := range m.Paths() {
		if _, err := read(t, s, p); err != nil {
			t.Error(err)
		}
	}
}

// A cache whose archives are bad is made up for by another.
func TestFallback(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	good := serve(t, m, "zstd", key)
	for name, spoil := range map[string]hook{
		"missing": func(w http.ResponseWriter, r *http.Request, _ int) bool { http.NotFound(w, r); return true },
		"other":   func(w http.ResponseWriter, _ *http.Request, _ int) bool { io.WriteString(w, "other"); return true },
		"broken":  func(w http.ResponseWriter, _ *http.Request, _ int) bool { w.WriteHeader(500); return true },
		"resets":  func(w http.ResponseWriter, _ *http.Request, _ int) bool { reset(w); return true },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			bad := newWeb(t)
			for _, p := range m.Paths() {
				bad.put(m.NarInfo(t, p, "xz", key))
			}
			bad.hook = func(w http.ResponseWriter, r *http.Request, n int) bool {
				return strings.HasPrefix(r.URL.Path, "/nar/") && spoil(w, r, n)
			}
			opts := fast(t, key)
			s := source.Chain([]source.Source{parse(t, bad.URL, opts), parse(t, good.URL, opts)}, nil)
			defer s.Close()
			for _, p := range m.Paths() {
				if _, err := read(t, s, p); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestManyRequests(t *testing.T) {
	key := sourcetest.NewKey("test-1")
	m := sourcetest.Sample(t)
	var now, most atomic.Int64
	dir := t.TempDir()
	m.WriteCache(t, dir, "none", key)
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	opts := fast(t, key)
	opts.Requests = 3
	s := parse(t, server.URL, opts)
	defer s.Close()
	var group errgroup.Group
	for range 10 {
		for _, p := range m.Paths() {
			group.Go(func() error { _, err := read(t, s, p); return err })
		}
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if most.Load() > 3 || most.Load() < 2 {
		t.Errorf("%d requests at a time, want 3", most.Load())
	}
}

// A certificate that nobody vouches for is refused, at once.
func TestUntrustedCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	m := sourcetest.Sample(t)
	s := parse(t, server.URL, fast(t, sourcetest.NewKey("test-1")))
	defer s.Close()
	if _, err := s.Info(t.Context(), m.Paths()[0]); err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "attempts") {
		t.Errorf("got %v", err)
	}
}
