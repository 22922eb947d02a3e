package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// TestEachFault: whatever goes wrong alone with every tenth call, or with the
// first calls of each kind, everything is made once.
func TestEachFault(t *testing.T) {
	for _, kind := range gcetest.AllFaults {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", kind, silent), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, gcetest.Options{Seed: 7, Clock: gcetest.ScaledClock(2000)}, twentyZones())
				w.AddFault(gcetest.Fault{Kind: kind, Method: "images.insert", Count: 2, NoHTTPStatus: silent})
				w.AddFault(gcetest.Fault{Kind: kind, Method: "disks.insert", Count: 2, NoHTTPStatus: silent})
				hits := w.AddFault(gcetest.Fault{Kind: kind, Probability: 0.1, NoHTTPStatus: silent})
				r, err := w.publish(t.Context())
				w.ClearFaults()
				w.wantComplete(r, err, Created, Found)
				if hits() == 0 {
					t.Error("the fault hit nothing")
				}
				before := len(w.Mutations())
				r, err = w.publish(t.Context())
				w.wantComplete(r, err, Found)
				w.wantNothingNew(before)
			})
		}
	}
}

// TestAllFaults: so it is when all of them come together, a tenth each.
func TestAllFaults(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, gcetest.Options{Seed: seed, Clock: gcetest.ScaledClock(2000)}, twentyZones())
			for _, kind := range gcetest.AllFaults {
				w.AddFault(gcetest.Fault{Kind: kind, Probability: 0.1})
			}
			r, err := w.publish(t.Context())
			w.ClearFaults()
			w.wantComplete(r, err, Created, Found)
			if v := w.Violations(); len(v) > 0 {
				t.Errorf("violations: %q", v)
			}
		})
	}
}

// TestHopelessFaults: with faults among the rest that nothing helps against, the
// end is an error that names every disk that is missing, and no other.
func TestHopelessFaults(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, gcetest.Options{Seed: seed, Clock: gcetest.ScaledClock(2000)}, twentyZones())
			for _, kind := range append([]gcetest.FaultKind{gcetest.QuotaExceeded, gcetest.OpQuotaExceeded, gcetest.PermissionDenied}, gcetest.AllFaults...) {
				w.AddFault(gcetest.Fault{Kind: kind, Method: "disks.insert", Probability: 0.1})
			}
			r, err := w.publish(t.Context())
			w.ClearFaults()
			if e := incomplete(t, err); e.Failed == 0 || e.Left != 0 {
				t.Errorf("got %v", err)
			}
			c := w.client(gce.Options{})
			for _, it := range r.Items {
				if it.Kind != KindDisk {
					continue
				}
				_, err := c.Disk(t.Context(), it.Project, it.Place, it.Name)
				if there := err == nil; there != (it.State == Created || it.State == Found) {
					t.Errorf("%s is %s, and reading it gives %v", it.Name, it.State, err)
				}
			}
			r, err = w.publish(t.Context())
			w.wantComplete(r, err, Created, Found)
		})
	}
}

// TestKilledAnywhere stops a run before each call in turn, as if it had been
// killed, and runs again.
func TestKilledAnywhere(t *testing.T) {
	calls := 0
	for stop := 1; ; stop++ {
		w := newWorld(t, gcetest.Options{Clock: gcetest.ScaledClock(5000)}, twoProjects)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		seen := 0
		w.watch(func(*http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if seen++; seen == stop {
				cancel()
			}
		})
		_, err := w.publish(ctx)
		if err == nil {
			calls = seen
			cancel()
			break
		}
		if ctx.Err() == nil {
			t.Fatal(err)
		}
		r, err := w.publish(t.Context())
		w.wantComplete(r, err, Created, Found)
		if n := len(w.Mutations()); n != 3+6 {
			t.Errorf("stopped before call %d: %d mutations", stop, n)
		}
	}
	if calls < 10 {
		t.Errorf("a whole run had %d calls", calls)
	}
}

// TestPace: 500 zones' disks in one project, each of which takes two seconds,
// take about the time that 10 mutations a second allow, and never go over them.
func TestPace(t *testing.T) {
	var zones []string
	for i := range 500 {
		zones = append(zones, fmt.Sprintf("us-test%d-a", i+1))
	}
	w := newWorld(t, gcetest.Options{
		Zones: zones, Latency: gcetest.Fixed(2 * time.Second), Clock: gcetest.ScaledClock(10),
		RateLimits: map[gcetest.Group]gcetest.RateLimit{gcetest.Mutations: {Calls: 600, Per: time.Minute}},
	}, fmt.Sprintf("targets: [{project: prod-1, storageLocation: us, diskType: pd-ssd, zones: [%s]}]\n", strings.Join(zones, ", ")))
	r, err := w.publish(t.Context())
	w.wantComplete(r, err, Created)
	t.Logf("500 disks in %.1f s; most mutations in 1 s: %d, in 10 s: %d, in a minute: %d", r.Seconds,
		w.Peak("prod-1", gcetest.Mutations, time.Second), w.Peak("prod-1", gcetest.Mutations, 10*time.Second), w.Peak("prod-1", gcetest.Mutations, time.Minute))
	if r.Seconds < 50 || r.Seconds > 90 {
		t.Errorf("it took %.1f s, and 501 mutations at 10 a second take 50", r.Seconds)
	}
	// Calls leave a tenth of a second apart, and arrive when the machine lets
	// them: on the tests' clock that may be seconds late, and then together.
	if n := w.Peak("prod-1", gcetest.Mutations, 10*time.Second); n > 150 {
		t.Errorf("%d mutations in 10 s", n)
	}
	for _, c := range w.Calls("disks.insert") {
		if c.Status != 200 {
			t.Errorf("a call was answered with %d %s", c.Status, c.Reason)
		}
	}
}

// TestFromDisk: the image is written while the disk is attached for writing to
// the builder alone, every zone's disk comes from the one snapshot, and nothing
// but them is left.
func TestFromDisk(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	at := w.builder()
	writes := 0
	from := func(o *Options) {
		o.FromDisk = &FromDisk{Builder: at, Write: func(_ context.Context, device string) error {
			writes++
			a := w.Attachments()
			if len(a) != 1 || a[0].Device != device || a[0].Mode != "READ_WRITE" || a[0].Instance != at.Instance || device != "svc-v1" {
				t.Errorf("while writing to %s attached is %+v", device, a)
			}
			return nil
		}}
	}
	r, err := w.publish(t.Context(), func(o *Options) { from(o); o.DryRun = true })
	if err != nil || r.Count(Planned) != len(r.Items) || writes != 0 {
		t.Errorf("%v: %+v", err, r)
	}
	r, err = w.publish(t.Context(), from)
	wantFromDisk(t, w, r, err, Created)
	before := len(w.Mutations())
	r, err = w.publish(t.Context(), from)
	wantFromDisk(t, w, r, err, Found)
	w.wantNothingNew(before)
	if writes != 1 {
		t.Errorf("the image was written %d times", writes)
	}
}

// wantFromDisk checks that there is one snapshot and the configured disks from
// it, and nothing else.
func wantFromDisk(t *testing.T, w *world, r *Report, err error, states ...State) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	c := w.client(gce.Options{})
	snapshots, err := c.Snapshots(t.Context(), "prod-1", "")
	if err != nil || len(snapshots) != 1 || snapshots[0].GetName() != "svc-v1-snapshot" {
		t.Fatalf("%v: %v", err, snapshots)
	}
	n := 0
	for _, project := range w.config.Projects() {
		disks, _, err := c.Disks(t.Context(), project, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range disks {
			if gce.Path(d.GetSourceSnapshot()) != "projects/prod-1/global/snapshots/svc-v1-snapshot" {
				t.Errorf("disk %s comes from %q", d.GetName(), d.GetSourceSnapshot())
			}
		}
		n += len(disks)
	}
	if n != 6 || len(w.Attachments()) != 0 {
		t.Errorf("%d disks, attached is %v", n, w.Attachments())
	}
	for _, it := range r.Items {
		ok := false
		for _, s := range states {
			ok = ok || it.State == s
		}
		if !ok {
			t.Errorf("%s is %s", it.Name, it.State)
		}
	}
}

// TestFromDiskKilledAnywhere is [TestKilledAnywhere] for that way.
func TestFromDiskKilledAnywhere(t *testing.T) {
	for stop := 1; ; stop++ {
		w := newWorld(t, gcetest.Options{Clock: gcetest.ScaledClock(5000)}, twoProjects)
		at := w.builder()
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		seen := 0
		w.watch(func(*http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if seen++; seen == stop {
				cancel()
			}
		})
		from := func(o *Options) {
			o.FromDisk = &FromDisk{Builder: at, Write: func(ctx context.Context, _ string) error { return ctx.Err() }}
		}
		_, err := w.publish(ctx, from)
		if err == nil {
			cancel()
			return
		}
		if ctx.Err() == nil {
			t.Fatal(err)
		}
		r, err := w.publish(t.Context(), from)
		wantFromDisk(t, w, r, err, Created, Found)
		if t.Failed() {
			t.Fatalf("stopped before call %d", stop)
		}
	}
}

// TestFromDiskFaults: all faults at a tenth each do not hinder it.
func TestFromDiskFaults(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, gcetest.Options{Seed: seed, Clock: gcetest.ScaledClock(2000)}, twoProjects)
			at := w.builder()
			for _, kind := range gcetest.AllFaults {
				w.AddFault(gcetest.Fault{Kind: kind, Probability: 0.1})
			}
			from := func(o *Options) {
				o.FromDisk = &FromDisk{Builder: at, Write: func(context.Context, string) error { return nil }}
			}
			r, err := w.publish(t.Context(), from)
			w.ClearFaults()
			wantFromDisk(t, w, r, err, Created, Found)
		})
	}
}

// TestFromDiskBase: the disk begins as the base version's snapshot, and keeps
// its size where that is larger.
func TestFromDiskBase(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	at := w.builder()
	publish := func(version, base string, size int64, write func(context.Context, string) error) (*Report, error) {
		return w.publish(t.Context(), func(o *Options) {
			o.Release.Version, o.Release.Size = version, size
			o.FromDisk = &FromDisk{Builder: at, Base: base, Write: write}
		})
	}
	nothing := func(context.Context, string) error { return nil }
	if _, err := publish("v1", "v0", 1<<30, nothing); err == nil || !strings.Contains(err.Error(), "the base version v0") {
		t.Errorf("a base that is not there: %v", err)
	}
	if _, err := publish("v1", "", 5<<30, nothing); err != nil {
		t.Fatal(err)
	}
	c := w.client(gce.Options{})
	_, err := publish("v2", "v1", 3<<30, func(ctx context.Context, _ string) error {
		d, err := c.Disk(ctx, "prod-1", "us-central1-a", "svc-v2-build")
		if err != nil || gce.Base(d.GetSourceSnapshot()) != "svc-v1-snapshot" || d.GetSizeGb() != 5 || d.GetLabels()["version"] != "" {
			return fmt.Errorf("%w: %v", err, d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.Disk(t.Context(), "prod-2", "us-central1-b", "svc-v2-us-central1-b-1"); err != nil || d.GetSizeGb() != 5 {
		t.Errorf("%v: %v", err, d)
	}
}

// TestFromDiskWriteFails: what stays is told, and the next run goes on with it.
func TestFromDiskWriteFails(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	at, fail := w.builder(), errors.New("no space left")
	from := func(o *Options) {
		o.FromDisk = &FromDisk{Builder: at, Write: func(context.Context, string) error { return fail }}
	}
	r, err := w.publish(t.Context(), from)
	if e := incomplete(t, err); e.Failed != 1 || e.Left != len(r.Items)-2 || !strings.Contains(e.First, "disk svc-v1-build stays attached to builder-1, run again to go on: no space left") {
		t.Errorf("got %v", err)
	}
	fail = nil
	r, err = w.publish(t.Context(), from)
	wantFromDisk(t, w, r, err, Created, Found)
}

// TestFromDiskForeign: a disk of that name which is another one is not written
// to.
func TestFromDiskForeign(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	at := w.builder()
	w.AddDisk("prod-1", "us-central1-a", &computepb.Disk{Name: proto.String("svc-v1-build"), SizeGb: proto.Int64(1)})
	_, err := w.publish(t.Context(), func(o *Options) {
		o.FromDisk = &FromDisk{Builder: at, Write: func(context.Context, string) error { t.Error("written to"); return nil }}
	})
	if err == nil || !strings.Contains(err.Error(), `exists and is another one: its label service is "", and "svc" is wanted`) {
		t.Errorf("got %v", err)
	}
}

// Example publishes to a Compute Engine in memory, twice.
func Example() {
	err := example()
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// object svc/v1/disk.raw.tar.gz created
	// object svc/v1/manifest.json created
	// image svc-v1-us created
	// disk svc-v1-us-central1-a-1 created
	// object svc/v1/disk.raw.tar.gz found
	// object svc/v1/manifest.json found
	// image svc-v1-us found
	// disk svc-v1-us-central1-a-1 found
}

func example() error {
	server, err := gcetest.Start(gcetest.Options{})
	if err != nil {
		return err
	}
	defer server.Close()
	config, err := exampleConfig()
	if err != nil {
		return err
	}
	client, err := gce.New(context.Background(), gce.Options{Endpoint: server.URL()})
	if err != nil {
		return err
	}
	defer client.Close()
	storage := &memory{}
	for range 2 {
		report, err := Run(context.Background(), Options{
			Config: config, Compute: client, Uploader: storage,
			Release: Release{Version: "v1", SHA256: sha, Size: 1 << 30},
		})
		if err != nil {
			return err
		}
		for _, it := range report.Items {
			fmt.Println(it.Kind, it.Name, it.State)
		}
	}
	return nil
}

// TestLogs: what is logged while waiting is words, not requests.
func TestLogs(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	var b lockedBuffer
	w.AddFault(gcetest.Fault{Kind: gcetest.OpStockout, Method: "disks.insert", Zone: "us-west1-b", Count: 1})
	if _, err := w.publish(t.Context(), func(o *Options) { o.Logger = newTestLogger(&b) }); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "trying again later") || !strings.Contains(got, "zone is out of resources") {
		t.Errorf("logged: %s", got)
	}
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
