package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// TestHeaders: every answer has the headers, and nothing but reading is answered.
func TestHeaders(t *testing.T) {
	src := &source{next: func(int) (*state.Document, error) { return sample(time.Now(), 3), nil }}
	h := New(Options{Service: "nixmodules", Document: src.document})
	for _, path := range []string{"/", "/status.json", "/metrics", "/healthz", "/nowhere"} {
		w := get(t, h, path)
		want := http.StatusOK
		if path == "/nowhere" {
			want = http.StatusNotFound
		}
		if w.Code != want {
			t.Errorf("GET %s is answered with %d", path, w.Code)
		}
		for name, value := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s of %s is %q", name, path, got)
			}
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'sha256-") || strings.Contains(policy, "unsafe") {
			t.Errorf("the policy of %s is %q", path, policy)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusNotFound {
				t.Errorf("%s %s is answered with %d", method, path, w.Code)
			}
		}
	}
	if text := page; strings.Contains(text, "http:") || strings.Contains(text, "https:") || strings.Contains(text, "innerHTML") {
		t.Error("the page asks somebody else, or makes markup of text")
	}
}

// TestReadsOnceASecond: a crowd of clients costs one read a second.
func TestReadsOnceASecond(t *testing.T) {
	c := newClock()
	src := &source{next: func(int) (*state.Document, error) {
		time.Sleep(20 * time.Millisecond)
		return sample(c.Now(), 3), nil
	}}
	h := New(Options{Service: "nixmodules", Document: src.document, Now: c.Now})
	if src.reads != 0 {
		t.Error("it reads before anybody asks")
	}
	for round := 1; round <= 3; round++ {
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if w := get(t, h, "/status.json"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"version":"v12"`) {
					t.Errorf("%d: %s", w.Code, w.Body)
				}
			})
		}
		all.Wait()
		get(t, h, "/metrics")
		if src.reads != round {
			t.Errorf("%d reads in %d seconds", src.reads, round)
		}
		c.advance(time.Second)
	}
}

// TestUnreadable: while the state cannot be read, what was read last is shown,
// with the reason and its age.
func TestUnreadable(t *testing.T) {
	c := newClock()
	src := &source{next: func(read int) (*state.Document, error) {
		if read == 2 {
			return sample(c.Now(), 3), nil
		}
		return nil, errors.New("the bucket is gone")
	}}
	h := New(Options{Service: "nixmodules", Document: src.document, Now: c.Now})
	if w := get(t, h, "/status.json"); w.Code != http.StatusServiceUnavailable || w.Body.String() != `{"data":null,"ageSeconds":0,"error":"the bucket is gone"}`+"\n" {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if families := scrape(t, h); value(families, "bigdisk_rollout_up") != 0 || families["bigdisk_rollout_hosts"] != nil {
		t.Error("the metrics do not say that nothing can be read")
	}
	c.advance(time.Second)
	get(t, h, "/status.json")
	c.advance(40 * time.Second)
	w := get(t, h, "/status.json")
	var a struct {
		Data struct {
			Status  struct{ Service string }
			History []state.Past
		}
		AgeSeconds float64
		Error      string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d: %v", w.Code, err)
	}
	if a.Data.Status.Service != "nixmodules" || a.AgeSeconds != 40 || a.Error != "the bucket is gone" || len(a.Data.History) != 3 || a.Data.History[0].Version != "v11" {
		t.Errorf("it answers %s", w.Body)
	}
	if w := get(t, h, "/healthz"); w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("it says that it is ill: %d", w.Code)
	}
}

// TestHanging: where the bucket or the zones do not answer, everybody is told
// what was known before Prometheus loses its patience.
func TestHanging(t *testing.T) {
	hanging := make(chan struct{})
	t.Cleanup(func() { close(hanging) })
	c := newClock()
	src := &source{next: func(read int) (*state.Document, error) {
		if read > 1 {
			<-hanging
		}
		return sample(c.Now(), 3), nil
	}}
	h := New(Options{Service: "nixmodules", Document: src.document, Now: c.Now, Look: func(ctx context.Context) (*world.World, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	get(t, h, "/status.json")
	c.advance(40 * time.Second)
	began := time.Now()
	families := scrape(t, h)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a scrape takes %v", took)
	}
	if value(families, "bigdisk_rollout_up") != 1 || value(families, "bigdisk_rollout_heartbeat_age_seconds") < 40 || value(families, "bigdisk_fleet_up") != 0 {
		t.Error("the metrics are not what was read last")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // and to those who do not wait at all
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/status.json", nil).WithContext(ctx))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ageSeconds":40`) {
		t.Errorf("%d: %.200s", w.Code, w.Body)
	}
}

// scrape reads the metrics with Prometheus' own parser.
func scrape(t *testing.T, h http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := get(t, h, "/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d: %v", w.Code, err)
	}
	return families
}

// value is that of the gauge with these labels, names and values in turn; -1 if
// there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	for _, m := range families[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		matches := have["service"] == "nixmodules"
		for i := 0; i < len(labels); i += 2 {
			matches = matches && have[labels[i]] == labels[i+1]
		}
		if matches {
			return m.GetGauge().GetValue()
		}
	}
	return -1
}

func TestMetrics(t *testing.T) {
	c := newClock()
	looks := 0
	src := &source{next: func(int) (*state.Document, error) {
		d := sample(c.Now(), 13)
		pause(d, c.Now())
		d.Reconcile = &state.Reconcile{At: c.Now(), Hosts: 60, Right: 58, Sick: map[world.ID]state.Failure{hostID(3): {Reason: "silent"}}}
		return d, nil
	}}
	h := New(Options{Service: "nixmodules", Document: src.document, Now: c.Now, LookEvery: time.Minute, Look: func(context.Context) (*world.World, error) {
		looks++
		return sampleWorld(), nil
	}})
	scrape(t, h)
	c.advance(500 * time.Millisecond)
	families := scrape(t, h)
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{1, "bigdisk_rollout_up", nil},
		{1, "bigdisk_rollout_paused", nil},
		{1, "bigdisk_rollout_phase", []string{"phase", "paused"}},
		{0, "bigdisk_rollout_phase", []string{"phase", "running"}},
		{13, "bigdisk_rollout_hosts", []string{"phase", "done"}},
		{2, "bigdisk_rollout_hosts", []string{"phase", "changing"}},
		{1, "bigdisk_rollout_hosts", []string{"phase", "failed"}},
		{44, "bigdisk_rollout_hosts", []string{"phase", "pending"}},
		{1, "bigdisk_rollout_failures", nil},
		{2, "bigdisk_rollout_wave", nil},
		{3, "bigdisk_rollout_waves", nil},
		{7, "bigdisk_rollout_wave_hosts", []string{"wave", "2", "name", "half", "phase", "done"}},
		{5, "bigdisk_rollout_zone_hosts", []string{"project", "prod-1", "zone", "us-central1-a", "phase", "done"}},
		{1, "bigdisk_rollout_controller", nil},
		{4.5, "bigdisk_rollout_heartbeat_age_seconds", nil},
		{1, "bigdisk_reconcile_hosts", []string{"state", "sick"}},
		{58, "bigdisk_reconcile_hosts", []string{"state", "right"}},
		{2, "bigdisk_rollout_ended", []string{"kind", "rollout", "phase", "done"}},
		{1, "bigdisk_fleet_up", nil},
		{1, "bigdisk_disks", []string{"zone", "us-central1-a", "version", "v12", "state", "ready"}},
		{1, "bigdisk_disks", []string{"zone", "us-west1-b", "version", "v12", "state", "making"}},
		{2, "bigdisk_hosts", []string{"zone", "us-west1-b"}},
		{2, "bigdisk_attachments", []string{"zone", "us-west1-b", "version", "v11"}},
		{1, "bigdisk_zones_unknown", nil},
	} {
		if got := value(families, want.name, want.labels...); got != want.value {
			t.Errorf("%s %v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	c.advance(58 * time.Second)
	if scrape(t, h); looks != 1 {
		t.Errorf("%d looks at the fleet in a minute", looks)
	}
	c.advance(2 * time.Second)
	if scrape(t, h); looks != 2 {
		t.Errorf("%d looks at the fleet in the next", looks)
	}
}

// TestMetricsOfNothing: before the first rollout there is little to say, and that
// is well-formed.
func TestMetricsOfNothing(t *testing.T) {
	src := &source{next: func(int) (*state.Document, error) { return state.New("nixmodules"), nil }}
	h := New(Options{Service: "nixmodules", Document: src.document, Look: func(context.Context) (*world.World, error) { return nil, errors.New("no permission") }})
	families := scrape(t, h)
	if value(families, "bigdisk_rollout_up") != 1 || value(families, "bigdisk_rollout_controller") != 0 || value(families, "bigdisk_fleet_up") != 0 || len(families) != 3 {
		t.Errorf("the metrics are %v", families)
	}
}

// TestServe: a request under way when the server is told to end still gets its
// answer.
func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, ctx, stop := make(chan struct{}), context.Context(nil), context.CancelFunc(nil)
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		time.Sleep(200 * time.Millisecond)
		fmt.Fprint(w, "whole")
	})
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, h) }()
	go func() { <-asked; stop() }()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "whole" {
		t.Errorf("the answer is %q, %v", body, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

// Example shows the health check of a page.
func Example() {
	h := New(Options{Service: "nixmodules", Document: func(context.Context) (*state.Document, error) { return state.New("nixmodules"), nil }})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	fmt.Print(w.Body)
	// Output: ok
}
