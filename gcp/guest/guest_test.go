package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bigdisk/gcp/guest"
)

var when = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// aReport is a host that runs v2.
func aReport() guest.Report {
	return guest.Report{Version: "v2", Health: guest.OK, Current: "v2", BootID: "b00t", Time: when}
}

func TestParseWhatIsWritten(t *testing.T) {
	failed := aReport()
	failed.Health, failed.Error, failed.Current = guest.Failed, "the label is x, not y", "v1"
	half := failed
	half.Health, half.Error = guest.Pending, ""
	none := half
	none.Current = ""
	lost := failed
	lost.Current = "v2" // it was current, and is not sound any more
	for _, r := range []guest.Report{aReport(), failed, half, none, lost} {
		got, err := guest.Parse(r.Attributes())
		if err != nil || got != r {
			t.Errorf("%+v read again is %+v, %v", r, got, err)
		}
	}
}

func TestErrorsAreShortAndOneLine(t *testing.T) {
	r := aReport()
	r.Health, r.Error = guest.Failed, "a\nb\x00\xff c "+strings.Repeat("ü", guest.MaxError)
	got, err := guest.Parse(r.Attributes())
	if err != nil || !strings.HasPrefix(got.Error, "a b c ü") || !strings.HasSuffix(got.Error, "ü…") || len(got.Error) > guest.MaxError {
		t.Errorf("%q, %v", got.Error, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string // "-" takes the key away
		sum    bool              // make the sum fit again
		want   error
	}{
		"no version":    {map[string]string{"version": "-"}, true, guest.ErrTorn},
		"no health":     {map[string]string{"health": "-"}, true, guest.ErrTorn},
		"no boot":       {map[string]string{"boot": "-"}, true, guest.ErrTorn},
		"empty time":    {map[string]string{"time": ""}, true, guest.ErrTorn},
		"half written":  {map[string]string{"version": "v3"}, false, guest.ErrTorn},
		"older sum":     {map[string]string{"time": "2026-02-03T04:05:07Z"}, false, guest.ErrTorn},
		"health":        {map[string]string{"health": "fine"}, true, guest.ErrMalformed},
		"time":          {map[string]string{"time": "yesterday"}, true, guest.ErrMalformed},
		"version":       {map[string]string{"version": "a\nb"}, true, guest.ErrMalformed},
		"long":          {map[string]string{"boot": strings.Repeat("x", 300)}, true, guest.ErrMalformed},
		"not even text": {map[string]string{"version": "\xff"}, true, guest.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			a := aReport().Attributes()
			for k, v := range c.change {
				if a[k] = v; v == "-" {
					delete(a, k)
				}
			}
			if c.sum {
				delete(a, "sum")
			}
			if r, err := guest.Parse(a); !errors.Is(err, c.want) {
				t.Errorf("%+v, %v; want %v", r, err, c.want)
			}
		})
	}
	if _, err := guest.Parse(nil); !errors.Is(err, guest.ErrNone) {
		t.Errorf("%v", err)
	}
	plain := map[string]string{"version": "v2", "health": "ok", "boot": "b00t", "time": "2026-02-03T04:05:06Z", "other": "x"}
	if r, err := guest.Parse(plain); err != nil || r != aReport() {
		t.Errorf("without a sum: %+v, %v", r, err)
	}
}

// metadata is a metadata server: it keeps what is put, and answers with fail
// while there are any.
type metadata struct {
	mu    sync.Mutex
	keeps map[string]string
	puts  []string
	fail  []int
	bad   []string
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/guest-attributes/nix/")
	if r.Method != http.MethodPut || !ok || r.Header.Get("Metadata-Flavor") != "Google" {
		m.bad = append(m.bad, r.Method+" "+r.URL.Path)
	}
	if len(m.fail) > 0 {
		status := m.fail[0]
		m.fail = m.fail[1:]
		http.Error(w, "not now", status)
		return
	}
	value, err := io.ReadAll(r.Body)
	if err != nil {
		m.bad = append(m.bad, err.Error())
	}
	m.keeps[name] = string(value)
	m.puts = append(m.puts, name)
}

// take returns the names that were put since the last time.
func (m *metadata) take() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := strings.Join(m.puts, " ")
	m.puts = nil
	return s
}

func serve(t testing.TB) (*metadata, *guest.Writer) {
	t.Helper()
	m := &metadata{keeps: make(map[string]string)}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	t.Setenv(guest.HostVariable, strings.TrimPrefix(server.URL, "http://"))
	w, err := guest.NewWriter("nix", guest.Options{Pace: time.Microsecond, Pause: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	return m, w
}

func TestWriter(t *testing.T) {
	m, w := serve(t)
	r := aReport()
	for _, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"first", func() {}, "version health error current boot time sum"},
		{"heartbeat", func() { r.Time = r.Time.Add(time.Minute) }, "version health error current boot time sum"},
		{"nothing", func() {}, ""},
		{"next heartbeat", func() { r.Time = r.Time.Add(time.Minute) }, "time sum"},
		{"failure", func() { r.Version, r.Health, r.Error = "v3", guest.Failed, "bad" }, "version health error sum"},
		{"well again", func() { r.Health, r.Error, r.Current = guest.OK, "", "v3" }, "health error current sum"},
		{"none current", func() { r.Health, r.Current = guest.Pending, "" }, "health current sum"},
	} {
		step.change()
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := m.take(); got != step.want {
			t.Errorf("%s: wrote %q, want %q", step.name, got, step.want)
		}
		if got, err := guest.Parse(m.keeps); err != nil || got != r {
			t.Errorf("%s: the server has %+v, %v", step.name, got, err)
		}
	}
	if len(m.bad) > 0 {
		t.Errorf("the server was asked %q", m.bad)
	}
}

// TestHalfAReport takes each moment of writing a new report: no reader
// believes what is neither the old nor the new one.
func TestHalfAReport(t *testing.T) {
	m, w := serve(t)
	before := aReport()
	if err := w.Write(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	old := maps.Clone(m.keeps)
	m.take()
	after := before
	after.Version, after.Current, after.Time = "v3", "v3", when.Add(time.Minute)
	if err := w.Write(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	puts := strings.Fields(m.take())
	for n := range puts {
		for _, k := range puts[:n] {
			old[k] = m.keeps[k]
		}
		r, err := guest.Parse(old)
		if n == 0 && (err != nil || r != before) || n > 0 && !errors.Is(err, guest.ErrTorn) {
			t.Errorf("after %q: %+v, %v", puts[:n], r, err)
		}
	}
}

func TestWriterFails(t *testing.T) {
	m, w := serve(t)
	m.fail = []int{503, 429, 500}
	if err := w.Write(t.Context(), aReport()); err != nil {
		t.Errorf("a server that recovers: %v", err)
	}
	m.take()
	changed := aReport()
	changed.Time = when.Add(time.Hour)
	m.fail = slices.Repeat([]int{503}, 4)
	if err := w.Write(t.Context(), changed); err == nil || !strings.Contains(err.Error(), "guest attribute version: the metadata server says 503") {
		t.Errorf("a server that does not: %v", err)
	}
	if err := w.Write(t.Context(), changed); err != nil || m.take() != "version health error current boot time sum" {
		t.Errorf("after a failure not all was written again: %v", err)
	}
	for _, status := range []int{403, 404} {
		m.fail = []int{status}
		changed.Time = changed.Time.Add(time.Hour)
		if err := w.Write(t.Context(), changed); !errors.Is(err, guest.ErrDisabled) {
			t.Errorf("%d: %v", status, err)
		}
	}
	m.fail = []int{400}
	if err := w.Write(t.Context(), changed); err == nil || len(m.fail) > 0 {
		t.Errorf("400: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Write(ctx, changed); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, service := range []string{"", "a/b", "a?b"} {
		if _, err := guest.NewWriter(service, guest.Options{}); err == nil {
			t.Errorf("%q is a namespace", service)
		}
	}
}

// TestPace makes sure that a report does not come faster than the service
// takes it.
func TestPace(t *testing.T) {
	m, _ := serve(t)
	const pace = 20 * time.Millisecond
	w, err := guest.NewWriter("nix", guest.Options{Pace: pace})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := w.Write(t.Context(), aReport()); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(m.take())); time.Since(start) < time.Duration(n-1)*pace {
		t.Errorf("%d requests in %v", n, time.Since(start))
	}
}

// TestJSON is how host status --json shows a report, and how a host remembers it:
// what it wrote when the keys were in capitals is read, too.
func TestJSON(t *testing.T) {
	r := guest.Report{Version: "v2", Health: guest.OK, BootID: "b00t", Time: time.Unix(1770000000, 0).UTC()}
	text, err := json.Marshal(r)
	if want := `{"version":"v2","health":"ok","bootID":"b00t","time":"2026-02-02T02:40:00Z"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	var again guest.Report
	old := `{"Version":"v2","Health":"ok","Error":"","Current":"","BootID":"b00t","Time":"2026-02-02T02:40:00Z"}`
	if err := json.Unmarshal([]byte(old), &again); err != nil || again != r {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestBootID(t *testing.T) {
	id, err := guest.BootID()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no boot ID here: %v", err)
	}
	if len(id) != 36 {
		t.Errorf("the boot ID is %q", id)
	}
}

func FuzzParse(f *testing.F) {
	a := aReport().Attributes()
	f.Add("v2", "ok", "", "", "b00t", a["time"], a["sum"])
	f.Add("v2", "failed", "x\n", "v1", "b", "2026-02-03T04:05:06+01:00", "")
	f.Fuzz(func(t *testing.T, version, health, why, current, boot, at, sum string) {
		a := map[string]string{"version": version, "health": health, "error": why, "current": current, "boot": boot, "time": at}
		if sum != "" {
			a["sum"] = sum
		}
		r, err := guest.Parse(a)
		if err != nil {
			if !errors.Is(err, guest.ErrTorn) && !errors.Is(err, guest.ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		if r.Error == "-" || r.Current == "-" {
			t.Errorf("%+v has what stands for nothing", r)
		}
		r.Time = r.Time.Truncate(time.Second)
		if y := r.Time.Year(); y < 1 || y > 9998 {
			return // what RFC 3339 cannot say in UTC
		}
		if again, err := guest.Parse(r.Attributes()); err != nil || again != r {
			t.Errorf("%+v read again is %+v, %v", r, again, err)
		}
	})
}

func Example() {
	// What the Compute Engine API gives for the namespace of a service.
	report, err := guest.Parse(guest.Report{
		Version: "v2", Health: guest.Failed, Error: "the label is bigdisk-aaaaaaa, not bigdisk-bbbbbbb", Current: "v1", BootID: "b00t", Time: time.Unix(1770000000, 0),
	}.Attributes())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Version, report.Health, "still at", report.Current, "since", report.Time.Format(time.RFC3339))
	// Output: v2 failed still at v1 since 2026-02-02T02:40:00Z
}
