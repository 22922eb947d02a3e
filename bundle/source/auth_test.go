package source

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestCredentials(t *testing.T) {
	rc, err := parseNetrc("machine cache.example.org login l password p\nmachine other.example.org login o password q\ndefault login d password e")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ base, to, want string }{
		{"https://cache.example.org/x", "https://cache.example.org/y", "l:p"},
		{"https://CACHE.example.org/x", "https://cache.example.org/y", "l:p"},
		{"https://u:w@cache.example.org/x", "https://cache.example.org/y", "u:w"},
		{"https://u@cache.example.org/x", "https://cache.example.org/y", "u:"},
		{"https://u:w@cache.example.org/x", "https://other.example.org/y", "o:q"},
		{"https://u:w@cache.example.org/x", "http://cache.example.org/y", ""},
		{"https://u:w@cache.example.org/x", "http://other.example.org/y", ""},
		{"https://u:w@cache.example.org/x", "https://sub.cache.example.org/y", ""},
		{"https://u:w@cache.example.org/x", "https://cache.example.org.evil.com/y", ""},
		{"https://u:w@cache.example.org/x", "https://evil.com/y", ""},
		{"http://third.example.org/x", "http://third.example.org/y", "d:e"},
		{"http://third.example.org/x", "http://third.example.org:81/y", ""},
		{"http://cache.example.org/x", "http://cache.example.org:81/y", ""},
	}
	for _, test := range tests {
		base, err := url.Parse(test.base)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(test.to)
		if err != nil {
			t.Fatal(err)
		}
		a := &authTransport{base: base, user: base.User, netrc: rc}
		got := ""
		if login, password, ok := a.credentials(to); ok {
			got = login + ":" + password
		}
		if got != test.want {
			t.Errorf("from %s to %s go %q, want %q", test.base, test.to, got, test.want)
		}
	}
}

// Requests as they arrive, redirects and HTTP/2 included.
func TestCredentialsOnTheWire(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	note := func(name string, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		login, password, _ := r.BasicAuth()
		seen = append(seen, fmt.Sprintf("%s %s %s:%s %s", name, r.Proto, login, password, r.Referer()))
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("other", r)
		fmt.Fprint(w, "StoreDir: /nix/store\n")
	}))
	defer other.Close()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("first", r)
		if r.URL.Path == "/nix-cache-info" {
			http.Redirect(w, r, "/again", http.StatusFound)
			return
		}
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()

	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	base.User = url.UserPassword("user", "secret")
	opts, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f := newHTTPFetcher(base, nil, &opts)
	tls := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	tls.NextProtos = nil
	f.client.Transport.(*authTransport).next.TLSClientConfig = tls
	c := newCache("test", f, opts, false)
	defer c.Close()
	if _, err := c.CacheInfo(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"first HTTP/2.0 user:secret ", "first HTTP/2.0 user:secret " + server.URL + "/nix-cache-info", "other HTTP/1.1 : "}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("seen\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
}

var netrcTests = []struct {
	text, host, want, fail string
}{
	{"machine a login b password c", "a", "b:c", ""},
	{"machine a login b password c", "A", "b:c", ""},
	{"machine a\n\tlogin b # comment\n\tpassword c#d\n", "a", "b:c#d", ""},
	{"# machine x\nmachine a login b password \"c d\\\"e\"", "a", `b:c d"e`, ""},
	{"machine a password c account z login b machine d login e", "a", "b:c", ""},
	{"machine a password c account z login b machine d login e", "d", "e:", ""},
	{"machine a login machine password default", "a", "machine:default", ""},
	{"macdef init\nmachine x login y\nput z\n\nmachine a login b password c", "x", "", ""},
	{"macdef init\nmachine x login y\nput z\n\nmachine a login b password c", "a", "b:c", ""},
	{"machine a login b password c\ndefault login d password e", "f", "d:e", ""},
	{"machine a login \"b", "a", "b:", ""},
	{"", "a", "", ""},
	{"machine", "", "", "nothing follows"},
	{"machine a login", "", "", "nothing follows"},
	{"login a", "", "", "does not start with machine"},
	{"machine a login b secret", "", "", "nothing follows"},
	{"machine a login b password c secret d", "", "", "none of login"},
}

func TestNetrc(t *testing.T) {
	for _, test := range netrcTests {
		n, err := parseNetrc(test.text)
		if test.fail != "" {
			if err == nil || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("%q: got %v, want %q", test.text, err, test.fail)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		got := ""
		if login, password, ok := n.find(test.host, true); ok {
			got = login + ":" + password
		}
		if got != test.want {
			t.Errorf("%q: %s has %q, want %q", test.text, test.host, got, test.want)
		}
	}
}

func TestLoadNetrc(t *testing.T) {
	dir := t.TempDir()
	write := func(name, login string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte("machine a login "+login+" password p"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Setenv("HOME", dir)
	t.Setenv("NETRC", "")
	check := func(name, want string) {
		t.Helper()
		n, err := loadNetrc(name)
		if err != nil {
			t.Fatal(err)
		}
		if login, _, _ := n.find("a", false); login != want {
			t.Errorf("loadNetrc(%q) has %q, want %q", name, login, want)
		}
	}
	check("", "")
	write(".netrc", "home")
	check("", "home")
	t.Setenv("NETRC", dir+"/missing")
	check("", "")
	t.Setenv("NETRC", write("env", "env"))
	check("", "env")
	check(write("option", "option"), "option")
	if _, err := loadNetrc(dir + "/missing"); err == nil {
		t.Error("a file that was asked for may be missing")
	}
	if err := os.WriteFile(dir+"/large", make([]byte, maxNetrc+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadNetrc(dir + "/large"); err == nil {
		t.Error("a file of any size is read")
	}
}

func FuzzNetrc(f *testing.F) {
	for _, test := range netrcTests {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseNetrc(text)
		if err == nil {
			n.find("a", true)
		} else if n != nil {
			t.Error("both an error and a result")
		}
	})
}
