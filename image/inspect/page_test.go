package inspect

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
)

func writePage(t *testing.T, s *Store, title string) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.WritePage(&b, title); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageIsSelfContained makes sure that a page asks nothing of the network,
// and that what an image holds cannot become part of its markup.
func TestPageIsSelfContained(t *testing.T) {
	s := aStore()
	s.Modules[0].ID = "</script><img src=x onerror=alert(1)>:v1"
	page := writePage(t, s, "<b>title</b>")
	if n := strings.Count(page, "</script"); n != 1 {
		t.Errorf("%d ends of scripts", n)
	}
	for _, bad := range []string{"http:", "https:", "<img", "<link", "src=\"", "url(", "@import", "<b>title"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(page, "default-src 'none'") {
		t.Error("the page may load things")
	}
}

func TestPageSumsUpSmallPaths(t *testing.T) {
	s := aStore()
	for i := range maxPagePaths + 500 {
		p, err := store.ParseBase(fmt.Sprintf("%032d-package", i))
		if err != nil {
			t.Fatal(err)
		}
		s.Paths = append(s.Paths, Path{Path: p, NarSize: 1, Stored: 1})
	}
	paths := s.pagePaths(make([]use, len(s.Paths)))
	if len(paths) != maxPagePaths+1 {
		t.Fatalf("%d paths", len(paths))
	}
	last := paths[maxPagePaths]
	if last.Count != 506 || last.Nar != 506 || last.Digest != "" {
		t.Errorf("the rest is %+v", last)
	}
}

// chromium shows a page, with a script at its end, and returns the page as it
// is then.
func chromium(t *testing.T, page, script string) string {
	t.Helper()
	tool := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			tool = p
			break
		}
	}
	if tool == "" {
		imagetest.Missing(t, "chromium is not installed")
	}
	name := filepath.Join(t.TempDir(), "page.html")
	page = strings.Replace(page, "</body>", "<script>"+script+"</script></body>", 1)
	if err := os.WriteFile(name, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	profile, err := os.MkdirTemp("", "bigdisk-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile)
	cmd := exec.CommandContext(ctx, tool, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+profile,
		"--window-size=1200,900", "--dump-dom", "file://"+name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	return string(out)
}

var tileLabel = regexp.MustCompile(`class="tile"[^>]*aria-label="([^"]*)"`)

func tiles(dom string) (labels []string) {
	for _, m := range tileLabel.FindAllStringSubmatch(dom, -1) {
		labels = append(labels, m[1])
	}
	return labels
}

func TestPageInBrowser(t *testing.T) {
	page := writePage(t, aStore(), "disk.sqsh")
	dom := chromium(t, page, "")
	want := []string{"shared by several modules · 1000 bytes", "app · 480 bytes", "tool", "needed by no module"}
	got := tiles(dom)
	if len(got) != len(want) {
		t.Fatalf("tiles %q, want %q", got, want)
	}
	for i, w := range want {
		if !strings.HasPrefix(got[i], w) {
			t.Errorf("tile %d is %q, want %q", i, got[i], w)
		}
	}
	for _, text := range []string{"<title>disk.sqsh</title>", "app:v2", "1.42 KiB", "5.00 : 1", "<td>libc  00000000</td>"} {
		if !strings.Contains(dom, text) {
			t.Errorf("the page does not show %q", text)
		}
	}
}

// TestPageByKeyboard opens a group, moves, and goes back, with keys alone.
func TestPageByKeyboard(t *testing.T) {
	page := writePage(t, aStore(), "disk.sqsh")
	press := `const key = k => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true }));
const name = () => document.activeElement.ariaLabel?.split(" · ")[0];
const log = [];
document.querySelector(".tile").focus(); log.push(name());
key("ArrowRight"); log.push(name());
document.activeElement.click(); log.push([...document.querySelectorAll(".tile")].map(t => t.ariaLabel.split(" · ")[0]).join("+"));
key("Escape"); log.push(document.querySelectorAll(".tile").length);
document.querySelector("input[value=t]").click(); log.push(name() !== undefined || document.querySelector(".tile").ariaLabel);
document.title = log.join("|");`
	dom := chromium(t, page, press)
	title := regexp.MustCompile(`<title>([^<]*)</title>`).FindStringSubmatch(dom)
	if title == nil {
		t.Fatal("no title")
	}
	want := "shared by several modules|app|several versions+app:v2+app:v1|4|"
	if !strings.HasPrefix(title[1], want) {
		t.Errorf("keys lead to %q, want %q", title[1], want)
	}
}
