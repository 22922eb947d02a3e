package progress

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that moves only when told.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Unix(1700000000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestSnapshot(t *testing.T) {
	c := newClock()
	tr := New(c.now)
	resolve := tr.Stage("resolve", Paths, 0)
	resolve.Add(20)
	c.forward(2 * time.Second)
	resolve.Finish()
	resolve.Finish()
	write := tr.Stage("write", Bytes, 1000)
	c.forward(4 * time.Second)
	write.Add(400)

	want := []State{
		{Stage: "resolve", Unit: Paths, Done: 20, Total: 20, Rate: 10, Elapsed: 2, Finished: true},
		{Stage: "write", Unit: Bytes, Done: 400, Total: 1000, Rate: 100, ETA: 6, Elapsed: 4},
	}
	got := tr.Snapshot()
	if len(got) != len(want) {
		t.Fatalf("%d states, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("state %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestNilTrackerTakesEverything(t *testing.T) {
	var tr *Tracker
	s := tr.Stage("x", Paths, 1)
	s.Add(1)
	s.Finish()
	if got := tr.Snapshot(); got != nil {
		t.Errorf("a nil tracker has states %v", got)
	}
	d := Show(tr, Plain, os.Stderr)
	d.Close()
	d.Close()
}

func TestConcurrentAdds(t *testing.T) {
	tr := New(nil)
	s := tr.Stage("write", Bytes, 8000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				s.Add(1)
				tr.Snapshot()
			}
		})
	}
	wg.Wait()
	if got := tr.Snapshot()[0].Done; got != 8000 {
		t.Errorf("done is %d, want 8000", got)
	}
}

func TestPlainPrinter(t *testing.T) {
	c := newClock()
	tr := New(c.now)
	var out bytes.Buffer
	p := newPlainPrinter(&out, c.now)
	resolve := tr.Stage("resolve", Paths, 0)
	resolve.Add(287)
	c.forward(time.Second)
	p.print(tr.Snapshot())
	resolve.Finish()
	write := tr.Stage("write", Bytes, 4<<30)
	p.print(tr.Snapshot())
	write.Add(1 << 30)
	c.forward(10 * time.Second)
	p.print(tr.Snapshot())
	p.print(tr.Snapshot())
	c.forward(time.Second)
	p.close(tr.Snapshot())

	want := strings.Join([]string{
		"resolve: 287 paths in 1.0s, 287 paths/s",
		"write: 1.0 GiB of 4.0 GiB (25 %), 102.4 MiB/s, 30s left",
		"write: stopped after 1.0 GiB of 4.0 GiB (25 %)",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestJSONPrinter(t *testing.T) {
	c := newClock()
	tr := New(c.now)
	var out bytes.Buffer
	p := newJSONPrinter(&out)
	write := tr.Stage("write", Bytes, 100)
	p.print(tr.Snapshot())
	p.print(tr.Snapshot())
	write.Add(50)
	c.forward(time.Second)
	p.print(tr.Snapshot())
	write.Add(50)
	write.Finish()
	p.close(tr.Snapshot())

	want := `{"stage":"write","unit":"bytes","done":0,"total":100,"rate":0,"eta":0,"elapsed":0,"finished":false}
{"stage":"write","unit":"bytes","done":50,"total":100,"rate":50,"eta":1,"elapsed":1,"finished":false}
{"stage":"write","unit":"bytes","done":100,"total":100,"rate":100,"eta":0,"elapsed":1,"finished":true}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestBarPrinter(t *testing.T) {
	c := newClock()
	tr := New(c.now)
	var out bytes.Buffer
	p := newBarPrinter(&out)
	tr.Stage("resolve", Paths, 3).Finish()
	write := tr.Stage("write", Bytes, 4<<20)
	write.Add(1 << 20)
	c.forward(2 * time.Second)
	p.print(tr.Snapshot())
	if _, err := p.Write([]byte("a line above\n")); err != nil {
		t.Fatal(err)
	}
	p.close(tr.Snapshot())
	for _, want := range []string{"resolve", "write", "1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6.0s left", "a line above\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the bars do not show %q:\n%q", want, out.String())
		}
	}
}

// TestShowWithoutTerminal is the way a log file sees a run.
func TestShowWithoutTerminal(t *testing.T) {
	tests := []struct {
		mode Mode
		want string
	}{
		{Auto, "write: 10 B in "},
		{Plain, "write: 10 B in "},
		{JSON, `"finished":true`},
		{None, ""},
	}
	for _, test := range tests {
		t.Run(string(test.mode), func(t *testing.T) {
			f, err := os.Create(t.TempDir() + "/log")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tr := New(nil)
			d := Show(tr, test.mode, f)
			s := tr.Stage("write", Bytes, 10)
			s.Add(10)
			s.Finish()
			if _, err := d.Write([]byte("said\n")); err != nil {
				t.Fatal(err)
			}
			d.Close()
			got, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(got, []byte("said\n")) || !bytes.Contains(got, []byte(test.want)) {
				t.Errorf("got %q, want %q and what was said", got, test.want)
			}
			if bytes.ContainsRune(got, '\x1b') {
				t.Errorf("control codes in a file: %q", got)
			}
		})
	}
}

func TestParseMode(t *testing.T) {
	for _, s := range []string{"auto", "plain", "json", "none"} {
		if m, err := ParseMode(s); err != nil || string(m) != s {
			t.Errorf("ParseMode(%q) = %q, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "bars", "JSON"} {
		if _, err := ParseMode(s); err == nil {
			t.Errorf("ParseMode(%q) took it", s)
		}
	}
}

func TestText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 40: "1.0 TiB", 1<<63 - 1: "8.0 EiB"} {
		if got := amount(n, Bytes); got != want {
			t.Errorf("amount(%d) = %q, want %q", n, got, want)
		}
	}
	for s, want := range map[float64]string{0.44: "0.4s", 12.3: "12s", 185: "3m05s", 7800: "2h10m"} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %q, want %q", s, got, want)
		}
	}
	if got, err := json.Marshal(State{}); err != nil || !bytes.HasPrefix(got, []byte(`{"stage":`)) {
		t.Errorf("a state is %s, %v", got, err)
	}
}
