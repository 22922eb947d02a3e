package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/gcp/rollout/state"
)

// browser is a Chromium that shows a handler's page.
type browser struct {
	t      *testing.T
	tool   string
	server *httptest.Server
}

// newBrowser serves a handler for Chromium. A script that is not "" is put at the
// page's end, which its policy would not allow; nor would it the frame that a
// window narrower than Chromium's least is made of.
func newBrowser(t *testing.T, h http.Handler, script string) *browser {
	t.Helper()
	b := &browser{t: t}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			b.tool = p
			break
		}
	}
	if b.tool == "" && os.Getenv("CI") == "true" {
		t.Fatal("chromium is not installed")
	}
	if b.tool == "" {
		t.Skip("chromium is not installed")
	}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if width := r.URL.Query().Get("width"); width != "" {
			fmt.Fprintf(w, `<!DOCTYPE html><title>frame</title><body style="margin:0"><iframe src="/" style="border:0;width:%spx;height:1680px"></iframe>`, width)
			return
		}
		if r.URL.Path != "/" || script == "" && r.Header.Get("Sec-Fetch-Dest") != "iframe" {
			h.ServeHTTP(w, r)
			return
		}
		recorded := httptest.NewRecorder()
		h.ServeHTTP(recorded, r)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, strings.Replace(recorded.Body.String(), "</body>", "<script>"+script+"</script></body>", 1))
	}))
	t.Cleanup(func() {
		b.server.CloseClientConnections()
		b.server.Close()
	})
	return b
}

// leastWidth is how narrow Chromium's windows get, in pixels.
const leastWidth = 500

// show lets the page run for a while of its own time, and returns what Chromium
// prints: with --dump-dom, the page as it is then.
func (b *browser) show(width, height int, span time.Duration, flags ...string) string {
	b.t.Helper()
	profile, err := os.MkdirTemp("", "bigdisk-chromium-")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.RemoveAll(profile)
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir=" + profile,
		fmt.Sprintf("--window-size=%d,%d", width, height), fmt.Sprintf("--virtual-time-budget=%d", span.Milliseconds())}, flags...)
	url := b.server.URL + "/"
	if width < leastWidth {
		url += fmt.Sprintf("?width=%d", width)
	}
	cmd := exec.CommandContext(ctx, b.tool, append(args, url)...)
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1,localhost")
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s: %v", b.tool, err)
	}
	return string(out)
}

func (b *browser) dom(width, height int, span time.Duration) string {
	b.t.Helper()
	return b.show(width, height, span, "--dump-dom")
}

var (
	tags   = regexp.MustCompile(`<[^>]*>`)
	script = regexp.MustCompile(`(?s)<(script|style)>.*?</(script|style)>`)
	title  = regexp.MustCompile(`<title>([^<]*)</title>`)
)

// text is what a page says, without its markup.
func text(dom string) string {
	plain := tags.ReplaceAllString(script.ReplaceAllString(dom, ""), "\x01")
	return strings.Join(strings.FieldsFunc(plain, func(r rune) bool { return r == '\x01' || r == '\n' }), " ")
}

func wantText(t *testing.T, dom string, want ...string) {
	t.Helper()
	got := regexp.MustCompile(`\s+`).ReplaceAllString(text(dom), " ")
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("the page does not say %q; it says\n%s", w, got)
		}
	}
}

// stepping has every read be a second after the one before, in which done more
// hosts are done.
func stepping(done func(read int) *state.Document) Options {
	c := newClock()
	c.step = time.Second
	src := &source{next: func(read int) (*state.Document, error) { return done(read), nil }}
	return Options{Service: "nixmodules", Document: src.document, Now: c.Now}
}

// TestPageAdvances opens the page once, under its own policy, and lets it follow
// a rollout from the canary into the second wave, and to a pause.
func TestPageAdvances(t *testing.T) {
	now := time.Now()
	h := New(stepping(func(read int) *state.Document {
		switch {
		case read <= 1:
			return sample(now, 3)
		case read <= 4:
			return sample(now, 6+read)
		}
		d := sample(now, 13)
		pause(d, now)
		return d
	}))
	first := newBrowser(t, h, "").dom(1200, 900, 500*time.Millisecond)
	wantText(t, first, "RUNNING rollout from v11 to v12", "3 of 6 hosts", "3 done", "1. canary in change", "2. half to come", "60 hosts in all", "deployed: v11", "about")
	if m := title.FindStringSubmatch(first); m == nil || m[1] != "RUNNING 3/60 · nixmodules v12" {
		t.Errorf("the title is %q", m)
	}
	// A single load follows from here on.
	log := `const seen = []; new MutationObserver(() => {
		const t = document.title; if (seen[seen.length - 1] !== t) seen.push(t); document.body.dataset.seen = seen.join("|");
	}).observe(document.querySelector("title"), { childList: true });`
	dom := newBrowser(t, h, log).dom(1200, 900, 30*time.Second)
	seen := regexp.MustCompile(`data-seen="([^"]*)"`).FindStringSubmatch(dom)
	if seen == nil || !strings.Contains(seen[1], "RUNNING 8/60 · nixmodules v12|RUNNING 9/60") || !strings.HasSuffix(seen[1], "PAUSED 13/60 · nixmodules v12") {
		t.Errorf("the titles were %q", seen)
	}
	wantText(t, dom, "PAUSED rollout from v11 to v12", "Why: too many hosts of wave half failed: 1, and 0 may",
		"bigdisk rollout resume, rollback or abort", "1. canary over", "2. half paused", "7 of 24 hosts · 1 failed")
}

// TestPageShowsFailures: a failing host is there with its reason, as text and not
// as markup, and the history.
func TestPageShowsFailures(t *testing.T) {
	now := time.Now()
	h := New(stepping(func(int) *state.Document {
		d := sample(now, 13)
		pause(d, now)
		d.Lease.Renewed = now.Add(-5 * time.Minute)
		d.Zones["prod-2/europe-west1-b"] = state.Zone{Hosts: 20, Unknown: "the zone cannot be reached"}
		return d
	}))
	dom := newBrowser(t, h, "").dom(1200, 900, 3*time.Second)
	wantText(t, dom, "Failed hosts · 1 "+hostID(13).Name()+" "+string(hostID(13).Zone())+" verify image: block 4711 does not have the hash that it should have &lt;script&gt;alert(1)&lt;/script&gt;",
		"The controller has been silent for 5 min", "cannot be read: the zone cannot be reached",
		"rollout v10 → v11-rc1", "rolled back: 6 hosts done, 2 failed, in 1 h 0 min · rolled back by ops: python was missing", "Hosts in change · 2", "What happened")
	if n := strings.Count(dom, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if failed, waves := strings.Index(dom, "Failed hosts"), strings.Index(dom, ">Waves<"); failed > waves {
		t.Error("failed hosts are below the waves")
	}
}

// TestPageWithoutData: before a rollout, and while nothing can be read.
func TestPageWithoutData(t *testing.T) {
	dom := newBrowser(t, New(stepping(func(int) *state.Document { return state.New("nixmodules") })), "").dom(1200, 900, 3*time.Second)
	wantText(t, dom, "No rollout yet", "deployed: nothing")
	broken := New(Options{Service: "nixmodules", Document: func(context.Context) (*state.Document, error) { return nil, errors.New("the bucket is gone") }})
	dom = newBrowser(t, broken, "").dom(1200, 900, 3*time.Second)
	wantText(t, dom, "nothing was read: the bucket is gone")
}

// TestPageFits: no window is scrolled sideways, and nothing sticks out.
func TestPageFits(t *testing.T) {
	now := time.Now()
	h := New(stepping(func(int) *state.Document {
		d := sample(now, 13)
		pause(d, now)
		d.Rollout.Version = "v12-" + strings.Repeat("longer", 8)
		d.Rollout.Waves[1].Name = strings.Repeat("half", 10)
		return d
	}))
	measure := `setInterval(() => {
		const w = document.documentElement.clientWidth;
		const out = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > w + 1).map(e => e.className || e.tagName);
		parent.document.body.dataset.fit = [innerWidth, document.documentElement.scrollWidth <= w, out.slice(0, 5)].join(" ");
	}, 500);`
	b := newBrowser(t, h, measure)
	for _, width := range []int{360, 800, 1600} {
		fit := regexp.MustCompile(`data-fit="([^"]*)"`).FindStringSubmatch(b.dom(width, 900, 4*time.Second))
		if want := fmt.Sprintf("%d true ", width); fit == nil || fit[1] != want {
			t.Errorf("in a window of %d it is %q, want %q", width, fit, want)
		}
	}
}

// TestPageScreenshots paints the page, light and dark. Where BIGDISK_SCREENSHOTS
// names a directory, the pictures are left there for people.
func TestPageScreenshots(t *testing.T) {
	dir := cmp.Or(os.Getenv("BIGDISK_SCREENSHOTS"), t.TempDir())
	now := time.Now()
	var paused atomic.Bool
	h := New(stepping(func(int) *state.Document {
		d := sample(now, 13)
		if paused.Load() {
			pause(d, now)
		}
		return d
	}))
	b := newBrowser(t, h, "")
	for _, shot := range []struct {
		name   string
		width  int
		paused bool
		flags  []string
	}{
		{"wide-running.png", 1280, false, nil}, {"wide-paused.png", 1280, true, nil}, {"narrow-paused.png", 390, true, nil},
		{"wide-paused-dark.png", 1280, true, []string{"--force-dark-mode", "--blink-settings=preferredColorScheme=0"}},
	} {
		paused.Store(shot.paused)
		file := filepath.Join(dir, shot.name)
		b.show(shot.width, 1700, 4*time.Second, append(shot.flags, "--screenshot="+file)...)
		if info, err := os.Stat(file); err != nil || info.Size() < 10_000 {
			t.Errorf("%s: %v", file, err)
		}
	}
}
