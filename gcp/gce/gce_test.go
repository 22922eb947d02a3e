package gce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// jumpClock does not wait: whoever asks for a time to pass is at its end at
// once, and the clock with it.
type jumpClock struct {
	mu  sync.Mutex
	now time.Time
}

func newJumpClock() *jumpClock { return &jumpClock{now: time.Unix(1e9, 0)} }

func (c *jumpClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *jumpClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	passed := make(chan time.Time, 1)
	passed <- c.now
	return passed
}

// server answers requests from a list, in order, and keeps what was asked.
type server struct {
	mu      sync.Mutex
	answers []answer
	asked   []string // "POST disks 0001": the method, the path's end, the number in the request ID
}

// answer is one reply: a status and a body, or a broken connection.
type answer struct {
	status int
	body   string
	cut    bool
	header map[string]string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	id := r.URL.Query().Get("requestId")
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+Base(r.URL.Path)+" "+id[max(0, len(id)-4):]))
	if len(s.answers) == 0 {
		s.mu.Unlock()
		http.Error(w, "nothing more was expected", http.StatusTeapot)
		return
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	s.mu.Unlock()
	if a.cut {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
		return
	}
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// refusal is an error as the API writes it.
func refusal(status int, reason, message string) answer {
	body, _ := json.Marshal(map[string]any{"error": map[string]any{
		"code": status, "message": message, "errors": []any{map[string]any{"reason": reason, "message": message}}}})
	return answer{status: status, body: string(body)}
}

func operation(status string, more string) answer {
	return answer{status: 200, body: `{"name": "op-1", "status": "` + status + `"` + more + `}`}
}

// failure is the error inside an operation.
func failure(code string, status int) answer {
	return operation("DONE", fmt.Sprintf(`, "error": {"errors": [{"code": %q, "message": "it failed."}]}, "httpErrorStatusCode": %d`, code, status))
}

var (
	running = operation("RUNNING", "")
	done    = operation("DONE", `, "progress": 100`)
	broken  = answer{cut: true}
)

// start serves the answers and returns a client whose clock jumps.
func start(t *testing.T, answers ...answer) (*Client, *server, *jumpClock) {
	t.Helper()
	s := &server{answers: answers}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	clock, ids := newJumpClock(), 0
	c, err := New(t.Context(), Options{
		Endpoint: web.URL, Clock: clock, Random: func() float64 { return 0.5 },
		NewRequestID: func() string { ids++; return fmt.Sprintf("00000000-0000-4000-8000-%012d", ids) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, s, clock
}

func insertDisk(ctx context.Context, c *Client) error {
	return c.InsertDisk(ctx, "prod-1", "us-central1-a", &computepb.Disk{Name: proto.String("d")})
}

// TestMutation: what is asked, and with which request ID, for every way that an
// insert can go.
func TestMutation(t *testing.T) {
	rate := refusal(403, "rateLimitExceeded", "Rate Limit Exceeded")
	for name, test := range map[string]struct {
		answers []answer
		asked   []string
		want    error
		says    string
	}{
		"at once":                 {[]answer{done}, []string{"POST disks 0001"}, nil, ""},
		"awaited":                 {[]answer{running, running, done}, []string{"POST disks 0001", "POST wait", "POST wait"}, nil, ""},
		"reset":                   {[]answer{broken, done}, []string{"POST disks 0001", "POST disks 0001"}, nil, ""},
		"502 and 429":             {[]answer{{status: 502, body: "<html>"}, {status: 429}, done}, []string{"POST disks 0001", "POST disks 0001", "POST disks 0001"}, nil, ""},
		"rate limit":              {[]answer{rate, rate, done}, []string{"POST disks 0001", "POST disks 0001", "POST disks 0001"}, nil, ""},
		"wait fails":              {[]answer{running, broken, refusal(503, "backendError", ""), done}, []string{"POST disks 0001", "POST wait", "POST wait", "POST wait"}, nil, ""},
		"operation fails inside":  {[]answer{running, failure("INTERNAL_ERROR", 500), done}, []string{"POST disks 0001", "POST wait", "POST disks 0002"}, nil, ""},
		"only a status":           {[]answer{operation("DONE", `, "httpErrorStatusCode": 503, "httpErrorMessage": "SERVICE UNAVAILABLE"`), done}, []string{"POST disks 0001", "POST disks 0002"}, nil, ""},
		"not ready":               {[]answer{refusal(400, "resourceNotReady", "not ready"), done}, []string{"POST disks 0001", "POST disks 0002"}, nil, ""},
		"permission":              {[]answer{refusal(403, "forbidden", "Required 'compute.disks.create' permission")}, []string{"POST disks 0001"}, ErrPermission, "insert projects/prod-1/zones/us-central1-a/disks/d: permission denied (forbidden): Required 'compute.disks.create' permission"},
		"quota at once":           {[]answer{refusal(403, "quotaExceeded", "Quota 'SSD' exceeded")}, []string{"POST disks 0001"}, ErrQuota, "quota exceeded"},
		"quota inside":            {[]answer{failure("QUOTA_EXCEEDED", 403)}, []string{"POST disks 0001"}, ErrQuota, "it failed [operation op-1]"},
		"stockout":                {[]answer{failure("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", 503)}, []string{"POST disks 0001"}, ErrStockout, "out of resources"},
		"stockout at once":        {[]answer{refusal(503, "", "ZONE_RESOURCE_POOL_EXHAUSTED: the zone")}, []string{"POST disks 0001"}, ErrStockout, ""},
		"too fast from one":       {[]answer{failure("RESOURCE_OPERATION_RATE_EXCEEDED", 403)}, []string{"POST disks 0001"}, ErrSourceRate, ""},
		"exists":                  {[]answer{refusal(409, "alreadyExists", "exists")}, []string{"POST disks 0001"}, ErrExists, ""},
		"invalid":                 {[]answer{refusal(400, "invalid", "Invalid value for field 'x'")}, []string{"POST disks 0001"}, ErrInvalid, "Invalid value for field 'x'"},
		"error without a status":  {[]answer{operation("DONE", `, "error": {"errors": [{"code": "WEIRD", "message": "m"}]}`)}, []string{"POST disks 0001"}, ErrInvalid, "(WEIRD): m"},
		"error without any words": {[]answer{operation("DONE", `, "error": {}`)}, []string{"POST disks 0001"}, ErrInvalid, ""},
		"operation is forgotten":  {[]answer{running, refusal(404, "notFound", "no such operation")}, []string{"POST disks 0001", "POST wait"}, ErrTimeout, "not known any more"},
	} {
		t.Run(name, func(t *testing.T) {
			c, s, _ := start(t, test.answers...)
			err := insertDisk(t.Context(), c)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %q, want %q in it", err, test.says)
			}
			if !slices.Equal(s.asked, test.asked) {
				t.Errorf("asked %q, want %q", s.asked, test.asked)
			}
		})
	}
}

// TestBudget: retries end, after about the time that they were given.
func TestBudget(t *testing.T) {
	var answers []answer
	for range 100 {
		answers = append(answers, answer{status: 503})
	}
	c, s, clock := start(t, answers...)
	began := clock.Now()
	err := insertDisk(t.Context(), c)
	if took := clock.Now().Sub(began); !errors.Is(err, ErrUnavailable) || took > 10*time.Minute || took < 9*time.Minute {
		t.Errorf("%v after %v", err, took)
	}
	if n := len(s.asked); n < 10 || n > 50 {
		t.Errorf("%d tries", n)
	}
}

// TestRetryAfter: the service may ask for more than we would wait.
func TestRetryAfter(t *testing.T) {
	c, _, clock := start(t, answer{status: 429, header: map[string]string{"Retry-After": "45"}}, done)
	began := clock.Now()
	if err := insertDisk(t.Context(), c); err != nil || clock.Now().Sub(began) < 45*time.Second {
		t.Errorf("%v after %v", err, clock.Now().Sub(began))
	}
}

// TestStuck: an operation that does not end is not awaited for ever, and the
// waiting is no busy loop although the wait call returns at once.
func TestStuck(t *testing.T) {
	c, s, _ := start(t, slices.Repeat([]answer{running}, 1000)...)
	err := insertDisk(t.Context(), c)
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "has not ended in 30m0s [operation op-1]") {
		t.Errorf("got %v", err)
	}
	if n := len(s.asked); n > 200 {
		t.Errorf("%d calls in 30 minutes", n)
	}
}

// TestInterrupted: a context that ends is not retried, and is told as such.
func TestInterrupted(t *testing.T) {
	c, s, _ := start(t, running, broken)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := insertDisk(ctx, c); !errors.Is(err, context.Canceled) || len(s.asked) != 0 {
		t.Errorf("%v after %q", err, s.asked)
	}
}

// TestPace: mutations of one project keep their distance, those of another do
// not wait for them.
func TestPace(t *testing.T) {
	clock := newJumpClock()
	l := newLimiter(clock, 10)
	for i := range 5 {
		if d := l.reserve("a"); d != time.Duration(i)*100*time.Millisecond {
			t.Errorf("call %d waits %v", i, d)
		}
	}
	if d := l.reserve("b"); d != 0 {
		t.Errorf("another project waits %v", d)
	}
	l.pause("b", time.Minute)
	if d := l.reserve("b"); d != time.Minute {
		t.Errorf("after a pause of a minute a call waits %v", d)
	}
	if d := newLimiter(clock, -1).reserve("a"); d != 0 {
		t.Errorf("without a limit a call waits %v", d)
	}
}

// TestLists: pages are followed, a page that fails begins the list anew, and
// what could not be reached is told.
func TestLists(t *testing.T) {
	page := answer{status: 200, body: `{"nextPageToken": "x", "items": {
		"zones/us-a1-a": {"disks": [{"name": "one"}]},
		"zones/us-a1-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}`}
	last := answer{status: 200, body: `{"unreachables": ["projects/p/zones/us-a1-d"], "items": {
		"zones/us-a1-a": {"disks": [{"name": "two"}]},
		"zones/us-a1-c": {"warning": {"code": "UNREACHABLE"}}}}`}
	c, s, _ := start(t, page, answer{status: 500}, page, last)
	disks, unreachable, err := c.Disks(t.Context(), "prod-1", "labels.service=s")
	if err != nil || len(disks) != 2 || disks[0].GetName() != "one" || disks[1].GetName() != "two" {
		t.Errorf("got %v, %v", disks, err)
	}
	slices.Sort(unreachable)
	if !slices.Equal(unreachable, []string{"us-a1-c", "us-a1-d"}) || len(s.asked) != 4 {
		t.Errorf("unreachable: %q after %q", unreachable, s.asked)
	}
	vague := answer{status: 200, body: `{"warning": {"code": "UNREACHABLE"}, "items": {}}`}
	c, _, _ = start(t, slices.Repeat([]answer{vague}, 100)...)
	if _, _, err := c.Instances(t.Context(), "prod-1", ""); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a list that lacks something gave %v", err)
	}
	c, _, _ = start(t, answer{status: 200, body: `{"items": [{"name": "i"}]}`}, answer{status: 200, body: `{}`})
	if images, err := c.Images(t.Context(), "prod-1", ""); err != nil || len(images) != 1 {
		t.Errorf("got %v, %v", images, err)
	}
	if snapshots, err := c.Snapshots(t.Context(), "prod-1", ""); err != nil || len(snapshots) != 0 {
		t.Errorf("got %v, %v", snapshots, err)
	}
}

func TestAttach(t *testing.T) {
	c, s, _ := start(t, done, refusal(400, "invalid", "Invalid value for field 'disk': 'x'. No attached disk found with device name 'x'"))
	err := c.AttachDisk(t.Context(), "prod-1", "us-central1-a", "vm", &computepb.AttachedDisk{
		Source: proto.String("zones/us-central1-a/disks/d"), DeviceName: proto.String("d")})
	if !errors.Is(err, ErrInvalid) || len(s.asked) != 0 {
		t.Errorf("without a mode: %v", err)
	}
	err = c.AttachDisk(t.Context(), "prod-1", "us-central1-a", "vm", &computepb.AttachedDisk{
		Source: proto.String("zones/us-central1-a/disks/d"), DeviceName: proto.String("d"), Mode: proto.String("READ_ONLY")})
	if err != nil {
		t.Error(err)
	}
	if err := c.DetachDisk(t.Context(), "prod-1", "us-central1-a", "vm", "x"); err != nil {
		t.Errorf("detaching what is not attached: %v", err)
	}
}

func TestGuestAttributes(t *testing.T) {
	c, _, _ := start(t, answer{status: 200, body: `{"queryValue": {"items": [{"namespace": "n", "key": "k", "value": "v"}]}}`},
		refusal(404, "notFound", "nothing"))
	got, err := c.GuestAttributes(t.Context(), "prod-1", "us-central1-a", "vm", "n")
	if err != nil || got["k"] != "v" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := c.GuestAttributes(t.Context(), "prod-1", "us-central1-a", "vm", "n"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestPath(t *testing.T) {
	for link, want := range map[string]string{
		"https://www.googleapis.com/compute/v1/projects/p/global/images/i": "projects/p/global/images/i",
		"https://compute.googleapis.com/compute/beta/projects/p/zones/z":   "projects/p/zones/z",
		"projects/p/zones/z": "projects/p/zones/z",
		"zones/z/disks/d":    "zones/z/disks/d",
	} {
		if got := Path(link); got != want {
			t.Errorf("%s: got %s", link, got)
		}
	}
	if got := Path(Link("p", "global/images/i")); got != "projects/p/global/images/i" {
		t.Errorf("got %s", got)
	}
}
