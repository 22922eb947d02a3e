package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/cloud"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
)

// These tests run whole rollouts against the Compute Engine of package gcetest,
// through the real client and everything between, on a synthetic clock: hours
// pass in seconds. The server is called without a network, so that time stands
// still while anything works.

// direct is a network of one server in the same process. A dead one answers
// nothing; what it was asked goes on.
type direct struct {
	server *gcetest.Server
	dead   *atomic.Bool
}

var errKilled = errors.New("the process was killed")

func (d direct) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	if d.dead.Load() {
		return nil, errKilled
	}
	defer func() {
		switch broken := recover(); broken {
		case nil:
		case http.ErrAbortHandler: // the server drops the connection
			resp, err = nil, io.ErrUnexpectedEOF
		default:
			panic(broken)
		}
	}()
	recorder, served := httptest.NewRecorder(), req.Clone(req.Context())
	recorder.Header().Set("Date", d.server.Clock().Now().UTC().Format(http.TimeFormat))
	if served.Body == nil {
		served.Body = http.NoBody
	}
	served.RequestURI = req.URL.RequestURI()
	d.server.ServeHTTP(recorder, served)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return recorder.Result(), nil
}

// object is the document in a bucket.
type object struct {
	mu         sync.Mutex
	data       []byte
	generation int64
	writes     []time.Time
}

type process struct {
	dead   atomic.Bool
	cancel context.CancelFunc
	ended  chan error
}

// objectOf is the object as one process sees it.
type objectOf struct {
	*object
	p *process
}

func (o objectOf) Read(context.Context) ([]byte, int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.p.dead.Load() {
		return nil, 0, errKilled
	}
	return o.data, o.generation, nil
}

func (o objectOf) Write(_ context.Context, data []byte, generation int64) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.p.dead.Load():
		return 0, errKilled
	case generation != o.generation:
		return 0, lease.ErrConflict
	}
	o.data, o.generation = data, o.generation+1
	o.writes = append(o.writes, time.Now())
	return o.generation, nil
}

func (o *object) doc(t testing.TB) *state.Document {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	d, err := state.Decode(o.data, "nixmodules")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// yard is a fleet at gcetest with the state of its rollouts.
type yard struct {
	t      *testing.T
	cfg    *fleet.Config
	server *gcetest.Server
	hosts  *gcetest.Hosts
	state  *object
}

const (
	project = "prod-1"
	service = "nixmodules"
)

// newYard makes a server with hosts that run v1, and v1 and v2 published.
func newYard(t *testing.T, zones []string, hosts int, behave func(host, version string, nth int) gcetest.Behaviour, change func(*fleet.Config)) *yard {
	return newYardAt(t, gcetest.RealClock(), zones, hosts, behave, change)
}

// newYardAt is newYard where Compute Engine and the hosts go by another clock than
// the controllers.
func newYardAt(t *testing.T, clock gcetest.Clock, zones []string, hosts int, behave func(host, version string, nth int) gcetest.Behaviour, change func(*fleet.Config)) *yard {
	cfg := &fleet.Config{
		Service: service, Bucket: "b", State: "gs://b/state",
		Hosts: fleet.Hosts{Filter: "labels.role=repl-host AND status=RUNNING"},
		Rollout: fleet.Rollout{
			Waves: []fleet.Wave{
				{Name: "canary", Hosts: fleet.Percent(1), Min: 1, Bake: 30 * time.Minute},
				{Name: "wave-2", Hosts: fleet.Percent(10), Min: 1, Bake: 15 * time.Minute},
				{Name: "wave-3", Hosts: fleet.Percent(100), Min: 1},
			},
			MaxConcurrent: 50, MaxPerZone: fleet.Percent(20), HealthTimeout: 5 * time.Minute,
			MaxFailures: fleet.Percent(2), OnFailure: fleet.OnFailurePause, KeepPrevious: true,
		},
	}
	target := fleet.Target{Project: project, StorageLocation: "us", DiskType: "pd-balanced", HostsPerDisk: 10}
	for _, z := range zones {
		target.Zones = append(target.Zones, fleet.Zone{Name: z, DiskType: "pd-balanced", HostsPerDisk: 10, Copies: 1})
	}
	cfg.Targets = []fleet.Target{target}
	if change != nil {
		change(cfg)
	}
	y := &yard{t: t, cfg: cfg, state: &object{}}
	y.server = gcetest.New(gcetest.Options{Projects: []string{project}, Latency: gcetest.Uniform(time.Second, 4*time.Second), Seed: 1, Clock: clock})
	d := state.New(service)
	d.Deployed = "v1"
	y.state.data, _ = d.Encode()
	y.state.generation = 1
	y.publish("v1", (hosts+9)/10)
	y.publish("v2", 1)
	var err error
	y.hosts, err = y.server.AddHosts(gcetest.HostSpec{
		Project: project, Zones: zones, Count: hosts, Service: service, Labels: map[string]string{"role": "repl-host"}, Behave: behave,
		Disk: func(zone string, n int) (string, string) {
			return fleet.DiskName(service, "v1", zone, 1+n/10), fleet.DeviceName(service, "v1")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	perZone := (hosts + len(zones) - 1) / len(zones)
	speed := state.SpeedOf(cfg.Rollout)
	y.server.SetChecks(gcetest.Checks{
		Service: service, MaxConcurrent: cfg.Rollout.MaxConcurrent, ChangeTimeout: cfg.Rollout.HealthTimeout,
		MaxPerZone: func(string, string) int { return plan.PerZone(&speed, perZone) },
	})
	return y
}

// publish makes an image and its disks, as bigdisk publish does.
func (y *yard) publish(version string, copies int) {
	labels := map[string]string{"service": service, "version": version, "sha": strings.Repeat("a", 32)}
	y.server.AddImage(project, &computepb.Image{
		Name: proto.String(fleet.ImageName(service, version, "us")), Labels: labels, DiskSizeGb: proto.Int64(10), Family: proto.String(service),
	})
	for _, z := range y.cfg.Targets[0].Zones {
		for n := 1; n <= max(1, copies/len(y.cfg.Targets[0].Zones)+1); n++ {
			if version != "v1" && n > 1 {
				break
			}
			own := map[string]string{"copy": fmt.Sprint(n)}
			for k, v := range labels {
				own[k] = v
			}
			y.server.AddDisk(project, z.Name, &computepb.Disk{
				Name: proto.String(fleet.DiskName(service, version, z.Name, n)), SizeGb: proto.Int64(10), Labels: own,
				Type: proto.String(fleet.DiskTypeURL(project, z.Name, z.DiskType)),
			})
		}
	}
}

// start runs a controller as a process does.
func (y *yard) start(version string, opt rollout.Options) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- y.run(ctx, p, version, opt) }()
	return p
}

func (y *yard) run(ctx context.Context, p *process, version string, opt rollout.Options) error {
	client, err := gce.New(ctx, gce.Options{
		Endpoint: "http://compute.test", ClientOptions: []option.ClientOption{option.WithHTTPClient(&http.Client{Transport: direct{y.server, &p.dead}})},
		Retry: gce.Retry{Budget: 10 * time.Second}, OperationTimeout: 5 * time.Minute, MutationsPerSecond: 20, ReadsPerSecond: 50, WaitsPerSecond: 50,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	keeper, err := lease.Acquire(ctx, objectOf{y.state, p}, service, lease.Options{Holder: "alice@desk", Purpose: "rollout"})
	if err != nil {
		return err
	}
	defer keeper.Close(context.Background())
	keeper.Update(func(d *state.Document) {
		if !d.Rollout.Active() && d.Deployed != version && version != "" {
			err = d.Begin(version, state.SpeedOf(y.cfg.Rollout), "alice@desk", time.Now())
		}
	})
	if err != nil {
		return err
	}
	return rollout.New(y.cfg, cloud.New(y.cfg, client, nil), keeper, opt).Run(ctx)
}

// wait returns what a controller came to, within a day.
func (y *yard) wait(p *process) error {
	y.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(24 * time.Hour):
		p.kill()
		r := y.state.doc(y.t).Rollout
		y.t.Fatalf("still %s in wave %d after a day, waiting for %q; %d done, changing %v, failed %v", r.Phase, r.Wave, r.Waiting, len(r.Done), r.Changing, r.Failed)
		return nil
	}
}

func (p *process) kill() {
	p.dead.Store(true)
	p.cancel()
	<-p.ended
}

// close ends the server, and complains about rules that were broken.
func (y *yard) close() {
	y.t.Helper()
	if err := y.server.Close(); err != nil {
		y.t.Error(err)
	}
	for i, v := range y.server.Violations() {
		if y.t.Error(v); i == 10 {
			break
		}
	}
	if n := y.server.GuestQueriesOverLimit(); n > 0 {
		y.t.Errorf("%d guest attributes were read too soon", n)
	}
	y.state.mu.Lock()
	defer y.state.mu.Unlock()
	for i, at := range y.state.writes {
		if i >= 10 && at.Sub(y.state.writes[i-10]) < 8*time.Second {
			y.t.Errorf("ten writes of the document in %s", at.Sub(y.state.writes[i-10]))
			break
		}
	}
}

// running counts hosts by the version they run.
func (y *yard) running() map[string]int {
	counts := map[string]int{}
	for _, v := range y.hosts.Current() {
		counts[fleet.PlainVersion(service, v)]++
	}
	return counts
}

// attachedTwice lists the instances that disks were attached to more than once.
func (y *yard) attachedTwice() (hosts []string) {
	count := map[string]int{}
	for _, call := range y.server.Calls("instances.attachDisk") {
		if count[call.Resource]++; call.Applied() && count[call.Resource] == 2 {
			hosts = append(hosts, call.Resource)
		}
	}
	return hosts
}

func TestTwoThousandHostsInTwentyZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, gcetest.DefaultZones, 2000, func(host, version string, _ int) gcetest.Behaviour {
			if strings.HasSuffix(host, "7") {
				return gcetest.SlowHost
			}
			return gcetest.Healthy
		}, nil)
		defer y.close()
		began := time.Now()
		if err := y.wait(y.start("v2", rollout.Options{LookEvery: 5 * time.Minute})); err != nil {
			t.Fatal(err)
		}
		d := y.state.doc(t)
		if n := y.running()["v2"]; n != 2000 || d.Deployed != "v2" || len(d.Rollout.Failed) > 0 {
			t.Errorf("hosts run %v, failed %v", y.running(), d.Rollout.Failed)
		}
		for i, want := range []int{20, 180, 1800} {
			w := d.Rollout.Waves[i]
			if w.Size != want || w.Ended.Sub(w.Changed) < time.Duration(w.Bake) {
				t.Errorf("wave %s has %d hosts, not %d, and baked for %s", w.Name, w.Size, want, w.Ended.Sub(w.Changed))
			}
		}
		if twice := y.attachedTwice(); len(twice) > 0 {
			t.Errorf("changed twice: %v", twice)
		}
		all, zone := y.server.PeakChanging()
		t.Logf("2,000 hosts in 20 zones, %d waves: %s, at most %d in change at once (%d in a zone), %d calls of the API, %d writes of the document",
			len(d.Rollout.Waves), time.Since(began).Round(time.Second), all, zone, len(y.server.Calls()), len(y.state.writes))
	})
}

func TestEveryFaultAtTenPercent(t *testing.T) {
	final := []gcetest.FaultKind{gcetest.QuotaExceeded, gcetest.OpQuotaExceeded, gcetest.PermissionDenied}
	for _, c := range []struct {
		name   string
		faults []gcetest.FaultKind
	}{
		{"all that pass", gcetest.AllFaults},
		{"with quota and permission", append(final, gcetest.AllFaults...)},
		{"operations that never end", []gcetest.FaultKind{gcetest.OpStuck}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, gcetest.DefaultZones[:4], 80, nil, nil)
				defer y.close()
				for _, kind := range c.faults {
					y.server.AddFault(gcetest.Fault{Kind: kind, Probability: 0.1})
				}
				err := y.wait(y.start("v2", rollout.Options{StopWhenPaused: true}))
				d := y.state.doc(t)
				switch {
				case err == nil && y.running()["v2"]+len(d.Rollout.Failed) >= 80 && len(d.Rollout.Done)+len(d.Rollout.Failed) == 80 && d.Deployed == "v2":
					t.Logf("done, %d failed", len(d.Rollout.Failed))
				case errors.Is(err, rollout.ErrPaused) && d.Rollout.Phase == state.Paused && d.Rollout.Reason != "":
					t.Logf("paused: %s", d.Rollout.Reason)
				default:
					t.Errorf("%v; the rollout is %s, hosts run %v, failed %v", err, d.Rollout.Phase, y.running(), d.Rollout.Failed)
				}
			})
		})
	}
}

func TestKilledAHundredTimesOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		y := newYard(t, gcetest.DefaultZones[:5], 150, nil, func(cfg *fleet.Config) {
			cfg.Rollout.Waves[0].Bake, cfg.Rollout.Waves[1].Bake = 30*time.Minute, 15*time.Minute
			cfg.Rollout.MaxConcurrent = 2
		})
		defer y.close()
		kills := 0
		for ; kills < 100; kills++ {
			p := y.start("v2", rollout.Options{})
			select {
			case err := <-p.ended:
				t.Fatalf("kill %d came too late: %v", kills, err)
			case <-time.After(31*time.Second + time.Duration(rng.Int64N(int64(20*time.Second)))):
				p.kill()
			}
		}
		if err := y.wait(y.start("v2", rollout.Options{})); err != nil {
			t.Fatal(err)
		}
		d := y.state.doc(t)
		if n := y.running()["v2"]; n != 150 || d.Deployed != "v2" {
			t.Errorf("hosts run %v, failed %v", y.running(), d.Rollout.Failed)
		}
		for _, w := range d.Rollout.Waves {
			if w.Ended.Sub(w.Changed) < time.Duration(w.Bake) {
				t.Errorf("wave %s baked for %s", w.Name, w.Ended.Sub(w.Changed))
			}
		}
		if twice := y.attachedTwice(); len(twice) > 0 {
			t.Errorf("changed twice: %v", twice)
		}
	})
}

func TestBadVersionOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := func(host string) bool { return strings.HasSuffix(host, "-3") || strings.HasSuffix(host, "-23") }
		y := newYard(t, gcetest.DefaultZones[:10], 400, func(host, version string, _ int) gcetest.Behaviour {
			if version == "v2" && bad(host) {
				return gcetest.Sick
			}
			return gcetest.Healthy
		}, func(cfg *fleet.Config) {
			cfg.Rollout.OnFailure = fleet.OnFailureRollback
			cfg.Rollout.Waves[1].Hosts = fleet.Percent(40)
		})
		defer y.close()
		if err := y.wait(y.start("v2", rollout.Options{})); err != nil {
			t.Fatal(err)
		}
		d := y.state.doc(t)
		if n := y.running()["v1"]; n != 400 || d.Deployed != "v1" || d.Rollout.Kind != state.KindRollback || d.History[0].Phase != state.RolledBack {
			t.Errorf("hosts run %v; %s to %s is %s, failed %v", y.running(), d.Rollout.Kind, d.Rollout.Version, d.Rollout.Phase, d.Rollout.Failed)
		}
		if d.History[0].Done > 160 {
			t.Errorf("%d hosts had the bad version", d.History[0].Done)
		}
		for _, a := range y.server.Attachments() {
			if a.Device == fleet.DeviceName(service, "v2") && bad(a.Instance) {
				t.Errorf("v2 still is on %s, which refused it", a.Instance)
			}
		}
	})
}

func TestHostsVanishAndComeBackOverHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, gcetest.DefaultZones[:4], 80, func(host, version string, nth int) gcetest.Behaviour {
			switch {
			case version == "v2" && nth == 0 && strings.HasSuffix(host, "-5"):
				return gcetest.Vanishing
			case version == "v2" && nth == 0 && strings.HasSuffix(host, "-6"):
				return gcetest.Recreated
			}
			return gcetest.Healthy
		}, nil)
		defer y.close()
		if err := y.wait(y.start("v2", rollout.Options{})); err != nil {
			t.Fatal(err)
		}
		if n := y.running(); n["v2"] != len(y.hosts.Current()) || len(y.hosts.Current()) > 77 {
			t.Errorf("hosts run %v", n)
		}
	})
}
