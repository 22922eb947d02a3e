package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// sha is the SHA-256 of the image that tests publish.
const sha = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// speed is how many times faster than the machine's the tests' clock runs.
const speed = 500

// memory is an uploader to nowhere.
type memory struct {
	mu      sync.Mutex
	objects map[string]string // name to content
	puts    int               // that made an object
	fail    error
}

func (m *memory) Look(_ context.Context, _ Content, name string) (Object, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, found := m.objects[name]
	return Object{Bytes: 100}, found, m.fail
}

func (m *memory) Put(ctx context.Context, c Content, name string) (Object, bool, error) {
	_, found, err := m.Look(ctx, c, name)
	if found || err != nil {
		return Object{Bytes: 100}, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = make(map[string]string)
	}
	m.objects[name], m.puts = string(c), m.puts+1
	return Object{Bytes: 100}, true, nil
}

// world is a Compute Engine, a bucket, and the configuration of a fleet there.
type world struct {
	*gcetest.Server
	t       *testing.T
	clock   gcetest.Clock
	url     string
	config  *fleet.Config
	storage *memory
	// gate is told of every call before it is served, once it is set.
	gate atomic.Pointer[func(*http.Request)]
}

// newWorld starts a Compute Engine whose archives hold 1 GiB, for a
// configuration that lacks service and bucket.
func newWorld(t *testing.T, opt gcetest.Options, config string) *world {
	t.Helper()
	w := &world{t: t, storage: &memory{}}
	if opt.Clock == nil {
		opt.Clock = gcetest.ScaledClock(speed)
	}
	if opt.Latency == nil {
		opt.Latency = gcetest.Uniform(time.Second, 5*time.Second)
	}
	w.clock = opt.Clock
	w.Server = gcetest.New(opt)
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if gate := w.gate.Load(); gate != nil {
			(*gate)(r)
		}
		w.Server.ServeHTTP(rw, r)
	}))
	w.url = web.URL
	t.Cleanup(func() {
		web.CloseClientConnections()
		if err := w.Server.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	c, err := fleet.Parse([]byte("service: svc\nbucket: bucket\n" + config))
	if err != nil {
		t.Fatal(err)
	}
	w.config = c
	return w
}

// watch has f told of every call before it is served.
func (w *world) watch(f func(*http.Request)) { w.gate.Store(&f) }

// client connects to the world's Compute Engine.
func (w *world) client(opts gce.Options) *gce.Client {
	w.t.Helper()
	opts.Endpoint, opts.Clock = w.url, w.clock
	// The tests' clock runs on while a busy machine gets nothing done.
	opts.Retry.Budget = 10 * time.Hour
	if opts.MutationsPerSecond == 0 {
		opts.MutationsPerSecond = w.config.Publish.MutationsPerSecond
	}
	c, err := gce.New(w.t.Context(), opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// publish runs once, as a new process would.
func (w *world) publish(ctx context.Context, change ...func(*Options)) (*Report, error) {
	w.t.Helper()
	opts := Options{
		Config: w.config, Uploader: w.storage, Clock: w.clock,
		Release: Release{Version: "v1", SHA256: sha, Size: 1 << 30, Suffix: ".raw"},
	}
	for _, f := range change {
		f(&opts)
	}
	if opts.Compute == nil {
		opts.Compute = w.client(gce.Options{})
	}
	return Run(ctx, opts)
}

// wantComplete checks that the report has everything in one state.
func (w *world) wantComplete(r *Report, err error, states ...State) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("publishing failed: %v", err)
	}
	for _, it := range r.Items {
		if !slices.Contains(states, it.State) {
			w.t.Errorf("%s %s in %s is %s, want %v", it.Kind, it.Name, it.Place, it.State, states)
		}
	}
	w.wantOnce()
}

// wantOnce checks that what is configured is there and ready, and nothing else.
func (w *world) wantOnce() {
	w.t.Helper()
	c := w.client(gce.Options{ReadsPerSecond: -1})
	images, disks := make(map[string]bool), make(map[string]bool)
	for _, t := range w.config.Targets {
		images[t.Project+" "+fleet.ImageName("svc", "v1", t.StorageLocation)] = true
		for _, z := range t.Zones {
			for i := range z.Copies {
				disks[t.Project+" "+z.Name+" "+fleet.DiskName("svc", "v1", z.Name, i+1)] = true
			}
		}
	}
	for _, project := range w.config.Projects() {
		w.wantImages(c, project, images)
		w.wantDisks(c, project, disks)
	}
	for missing := range images {
		w.t.Errorf("there is no image %s", missing)
	}
	for missing := range disks {
		w.t.Errorf("there is no disk %s", missing)
	}
}

func (w *world) wantImages(c *gce.Client, project string, want map[string]bool) {
	w.t.Helper()
	got, err := c.Images(w.t.Context(), project, "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range got {
		key := project + " " + i.GetName()
		if !want[key] || i.GetStatus() != "READY" || i.GetFamily() != "svc" || i.GetLabels()["sha"] != sha[:32] {
			w.t.Errorf("image %s is %s, labels %v", key, i.GetStatus(), i.GetLabels())
		}
		delete(want, key)
	}
}

func (w *world) wantDisks(c *gce.Client, project string, want map[string]bool) {
	w.t.Helper()
	got, unreachable, err := c.Disks(w.t.Context(), project, "")
	if err != nil || len(unreachable) > 0 {
		w.t.Fatal(err, unreachable)
	}
	for _, d := range got {
		key := project + " " + gce.Base(d.GetZone()) + " " + d.GetName()
		if !want[key] || d.GetStatus() != "READY" || d.GetLabels()["version"] != "v1" || d.GetLabels()["service"] != "svc" {
			w.t.Errorf("disk %s is %s, labels %v", key, d.GetStatus(), d.GetLabels())
		}
		if hyper := strings.HasPrefix(gce.Base(d.GetType()), "hyperdisk"); hyper != (d.GetAccessMode() == "READ_ONLY_MANY") {
			w.t.Errorf("disk %s of type %s has access mode %s", key, gce.Base(d.GetType()), d.GetAccessMode())
		}
		delete(want, key)
	}
}

// wantNothingNew checks that a run changed nothing.
func (w *world) wantNothingNew(before int) {
	w.t.Helper()
	if after := w.Mutations(); len(after) != before {
		w.t.Errorf("%d more mutations, the first is %+v", len(after)-before, after[before])
	}
	if v := w.Violations(); len(v) > 0 {
		w.t.Errorf("violations: %q", v)
	}
}

// twoProjects is a small fleet with everything in it: two projects, two storage
// locations, a disk type with access modes, copies.
const twoProjects = `
targets:
  - {project: prod-1, storageLocation: us, diskType: pd-ssd, zones: [us-central1-a, {name: us-west1-b, diskType: hyperdisk-ml, copies: 2}]}
  - {project: prod-1, storageLocation: europe-west1, diskType: pd-balanced, zones: [europe-west1-b]}
  - {project: prod-2, storageLocation: us, diskType: pd-standard, zones: [us-central1-a, us-central1-b]}
`

// twentyZones is a fleet of 20 zones in 3 projects.
func twentyZones() string {
	var b strings.Builder
	b.WriteString("targets:\n")
	for i := range 3 {
		zones := gcetest.DefaultZones[i*7 : min(i*7+7, 20)]
		fmt.Fprintf(&b, "  - {project: prod-%d, storageLocation: us, diskType: pd-ssd, zones: [%s]}\n", i+1, strings.Join(zones, ", "))
	}
	return b.String()
}

// errorOf finds the item and returns what went wrong with it.
func errorOf(t *testing.T, r *Report, place string) Item {
	t.Helper()
	for _, it := range r.Items {
		if it.Kind == KindDisk && it.Place == place {
			return it
		}
	}
	t.Fatalf("there is no disk in %s", place)
	return Item{}
}

// incomplete returns the error as what it has to be.
func incomplete(t *testing.T, err error) *IncompleteError {
	t.Helper()
	e := new(IncompleteError)
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *IncompleteError", err)
	}
	return e
}

// builder adds the instance that writes disks.
func (w *world) builder() fleet.Builder {
	w.t.Helper()
	name := "builder-1"
	if err := w.AddInstance("prod-1", "us-central1-a", &computepb.Instance{Name: &name}); err != nil {
		w.t.Fatal(err)
	}
	w.SetChecks(gcetest.Checks{Builders: []string{name}})
	return fleet.Builder{Project: "prod-1", Zone: "us-central1-a", Instance: name, DiskType: "pd-ssd"}
}

func exampleConfig() (*fleet.Config, error) {
	return fleet.Parse([]byte(`
service: svc
bucket: bucket
targets: [{project: prod-1, storageLocation: us, diskType: pd-ssd, zones: [us-central1-a]}]
`))
}

func newTestLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
