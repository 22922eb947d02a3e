package rollout

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// process is a controller as a process runs it: it takes the lease, begins the
// rollout unless one is under way, and carries it out. kill ends it as SIGKILL
// would.
type process struct {
	dead   atomic.Bool
	cancel context.CancelFunc
	ended  chan error
}

func (s *sim) start(o *object, version string, opt Options) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- s.run(ctx, p, o, version, opt) }()
	return p
}

func (s *sim) run(ctx context.Context, p *process, o *object, version string, opt Options) error {
	keeper, err := lease.Acquire(ctx, simStore{s, &p.dead, o}, s.cfg.Service, lease.Options{Holder: "alice@desk", Purpose: "rollout"})
	if err != nil {
		return err
	}
	defer keeper.Close(context.Background())
	keeper.Update(func(d *state.Document) {
		if !d.Rollout.Active() && d.Deployed != version && version != "" {
			err = d.Begin(version, state.SpeedOf(s.cfg.Rollout), "alice@desk", time.Now())
		}
	})
	if err != nil {
		return err
	}
	return New(s.cfg, conn{s, &p.dead}, keeper, opt).Run(ctx)
}

func (p *process) kill() {
	p.dead.Store(true)
	p.cancel()
	<-p.ended
}

func newObject(deployed string) *object {
	d := state.New("nixmodules")
	d.Deployed = deployed
	data, err := d.Encode()
	if err != nil {
		panic(err)
	}
	return &object{data: data, generation: 7}
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

// ask writes a request, as another process does.
func (o *object) ask(t testing.TB, s *sim, q state.Request) {
	t.Helper()
	q.ID, q.By, q.At = "request-"+q.Action, "bob@laptop", time.Now()
	_, err := lease.Edit(context.Background(), simStore{s, new(atomic.Bool), o}, "nixmodules", func(d *state.Document) error {
		d.Request = &q
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRolloutOfAllHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(20, 100)
		s, o := published(t, cfg, 1, 2000)
		began := time.Now()
		if err := <-s.start(o, "v2", Options{}).ended; err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if n := s.versions()["v2"]; n != 2000 || len(d.Rollout.Done) != 2000 || d.Deployed != "v2" || d.Lease != nil {
			t.Errorf("%d hosts run v2, %d are done, %q is deployed, lease %v", n, len(d.Rollout.Done), d.Deployed, d.Lease)
		}
		for i, want := range []int{20, 180, 1800} {
			w := d.Rollout.Waves[i]
			if w.Size != want || w.Ended.Sub(w.Changed) < time.Duration(w.Bake) {
				t.Errorf("wave %s has %d hosts, not %d, and baked for %s", w.Name, w.Size, want, w.Ended.Sub(w.Changed))
			}
		}
		s.checkWrites(o)
		t.Logf("took %s, calls %v, writes %d", time.Since(began), s.calls, len(o.writes))
	})
}

func TestKilledAtRandomMoments(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			cfg := testConfig(3, 10)
			cfg.Rollout.Waves = cfg.Rollout.Waves[1:]
			cfg.Rollout.Waves[0].Bake = 5 * time.Minute
			cfg.Rollout.MaxConcurrent = 8
			s, o := published(t, cfg, seed, 60)
			for range 1 + rng.IntN(3) {
				p := s.start(o, "v2", Options{})
				time.Sleep(time.Duration(rng.Int64N(int64(12 * time.Minute))))
				p.kill()
			}
			if err := <-s.start(o, "v2", Options{}).ended; err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			d := o.doc(t)
			if n := s.versions()["v2"]; n != 60 || d.Deployed != "v2" {
				t.Errorf("seed %d: %d hosts run v2", seed, n)
			}
			for _, w := range d.Rollout.Waves {
				if w.Ended.Sub(w.Changed) < time.Duration(w.Bake) {
					t.Errorf("seed %d: wave %s baked for %s of %s", seed, w.Name, w.Ended.Sub(w.Changed), time.Duration(w.Bake))
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

func TestBadVersionIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(20, 100)
		cfg.Rollout.OnFailure = fleet.OnFailureRollback
		s, o := published(t, cfg, 3, 2000)
		n := 0
		bad := map[world.ID]bool{}
		for _, id := range slices.Sorted(maps.Keys(s.hosts)) {
			if n++; n%20 == 0 {
				bad[id] = true
			}
		}
		s.badOn = func(id world.ID, version string) bool { return version == "v2" && bad[id] }
		if err := <-s.start(o, "v2", Options{}).ended; err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if got := s.versions(); got["v1"] != 2000 {
			t.Errorf("hosts run %v, failed %v", got, d.Rollout.Failed)
		}
		if d.Rollout.Kind != state.KindRollback || d.Rollout.Phase != state.Done || d.Deployed != "v1" {
			t.Errorf("a %s to %s is %s", d.Rollout.Kind, d.Rollout.Version, d.Rollout.Phase)
		}
		past := d.History[0]
		if past.Phase != state.RolledBack || past.Done > 200 || !strings.Contains(past.Reason, "wrong hash") {
			t.Errorf("the rollout ended as %+v", past)
		}
		for _, h := range s.hosts {
			if h.Has("v2") && (bad[h.ID] || len(h.Ours()) != 3) {
				t.Errorf("%s still has v2: %+v", h.ID, h.Attachments)
			}
		}
	})
}

func TestOneSickHostDoesNotStopAWave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 4, 40)
		var sick world.ID
		for id := range s.hosts {
			sick = id
		}
		s.badOn = func(id world.ID, version string) bool { return version == "v2" && id == sick }
		if err := <-s.start(o, "v2", Options{}).ended; err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if got := s.versions(); got["v2"] != 39 || len(d.Rollout.Failed) != 1 || d.Deployed != "v2" {
			t.Errorf("hosts run %v, failed %v", got, d.Rollout.Failed)
		}
	})
}

func TestFailuresPauseAndResumeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 5, 60)
		s.badOn = func(_ world.ID, version string) bool { return version == "v2" }
		p := s.start(o, "v2", Options{})
		time.Sleep(time.Hour)
		d := o.doc(t)
		if r := d.Rollout; r.Phase != state.Paused || r.Wave != 0 || !strings.Contains(r.Reason, "every host of wave canary failed") || !strings.Contains(r.Reason, "wrong hash") {
			t.Fatalf("the rollout is %s in wave %d: %s", r.Phase, r.Wave, r.Reason)
		}
		s.mu.Lock()
		s.badOn = func(world.ID, string) bool { return false }
		for _, h := range s.hosts {
			s.agent(h)
		}
		s.mu.Unlock()
		o.ask(t, s, state.Request{Action: state.Resume, Reason: "fixed the hosts"})
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if got := s.versions(); got["v2"] != 60 {
			t.Errorf("hosts run %v", got)
		}
	})
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 6, 60)
		p := s.start(o, "v2", Options{})
		time.Sleep(32 * time.Minute)
		o.ask(t, s, state.Request{Action: state.Pause, Reason: "lunch"})
		time.Sleep(10 * time.Second)
		if d := o.doc(t); d.Rollout.Phase != state.Paused || d.Request != nil || !strings.Contains(d.Rollout.Reason, "lunch") {
			t.Errorf("paused: %s, %s", d.Rollout.Phase, d.Rollout.Reason)
		}
		time.Sleep(5 * time.Minute)
		before := s.versions()["v2"]
		time.Sleep(time.Hour)
		if after := s.versions()["v2"]; after != before {
			t.Errorf("%d hosts changed while it was paused", after-before)
		}
		o.ask(t, s, state.Request{Action: state.Abort, Reason: "enough"})
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if d.Rollout.Phase != state.Aborted || d.Deployed != "v1" {
			t.Errorf("the rollout is %s", d.Rollout.Phase)
		}
		s.rolledBack = true
		speed := state.RollbackSpeed(d.Rollout.Speed)
		o.ask(t, s, state.Request{Action: state.Rollback, Plan: &speed})
		if err := <-s.start(o, "", Options{}).ended; err != nil {
			t.Fatal(err)
		}
		if got := s.versions(); got["v1"] != 60 {
			t.Errorf("after the rollback hosts run %v", got)
		}
	})
}

func TestTwoControllers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 7, 60)
		first := s.start(o, "v2", Options{})
		time.Sleep(time.Minute)
		began := time.Now()
		err := <-s.start(o, "v2", Options{}).ended
		if !errors.Is(err, lease.ErrHeld) || !strings.Contains(err.Error(), "alice@desk") || time.Since(began) > 10*time.Second {
			t.Errorf("after %s the second says %v", time.Since(began), err)
		}
		if err := <-first.ended; err != nil {
			t.Fatal(err)
		}
	})
}

func TestFaults(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(4, 20)
			s, o := published(t, cfg, seed, 100)
			s.fault = 0.1
			if err := <-s.start(o, "v2", Options{StopWhenPaused: true}).ended; err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if got := s.versions(); got["v2"] != 100 {
				t.Errorf("seed %d: hosts run %v", seed, got)
			}
		})
	}
}

func TestHostsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(4, 15)
		cfg.Rollout.Waves[0].Min = 7 // as many as go: a wave of which nobody is left pauses the rollout
		s, o := published(t, cfg, 8, 100)
		p := s.start(o, "v2", Options{})
		for i := range 20 {
			time.Sleep(2 * time.Minute)
			var ids []world.ID
			s.mu.Lock()
			for id := range s.hosts {
				ids = append(ids, id)
			}
			s.mu.Unlock()
			switch i % 3 {
			case 0:
				s.vanish(ids[0])
			case 1:
				s.recreate(ids[1])
			case 2:
				s.recreate(world.IDOf("prod-1", "us-east1-a", "new-"+string(rune('a'+i))))
			}
		}
		select {
		case err := <-p.ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(48 * time.Hour):
			t.Fatalf("two days later the rollout is %s: %s", o.doc(t).Rollout.Phase, o.doc(t).Rollout.Reason)
		}
		d := o.doc(t)
		if got := s.versions(); got["v2"] != len(s.hosts) || len(d.Rollout.Failed) > 0 || d.Deployed != "v2" {
			t.Errorf("%d hosts run %v, failed %v", len(s.hosts), got, d.Rollout.Failed)
		}
	})
}

// TestUnknownZoneIsWaitedFor has a zone that cannot be read when the rollout
// begins, so that no wave can be chosen, and again in the last wave, which begins
// with the other zones.
func TestUnknownZoneIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 9, 30)
		unknown := func(is bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.unknown = map[world.Zone]bool{}; is {
				s.unknown["prod-1/us-east1-b"] = true
			}
		}
		unknown(true)
		p := s.start(o, "v2", Options{})
		time.Sleep(3 * time.Hour)
		check := func(when string, changed int) {
			d := o.doc(t)
			if got := s.versions(); d.Rollout.Phase != state.Running || got["v2"] != changed || !strings.Contains(strings.Join(d.Rollout.Waiting, " "), "us-east1-b cannot be read") {
				t.Errorf("%s: %s, %v, waiting for %q", when, d.Rollout.Phase, got, d.Rollout.Waiting)
			}
		}
		check("at first", 0)
		unknown(false)
		time.Sleep(40 * time.Minute) // the canary's 30 minutes; the second wave bakes
		before := 0
		for id, h := range s.hosts {
			if h.current == "v2" && id.Zone() == "prod-1/us-east1-b" {
				before++
			}
		}
		unknown(true)
		time.Sleep(3 * time.Hour)
		check("in the last wave", 20+before)
		unknown(false)
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if got := s.versions(); got["v2"] != 30 {
			t.Errorf("hosts run %v", got)
		}
	})
}

func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := newSim(t, cfg, 10), newObject("v1")
		s.publish("v1")
		s.addHosts(30, "v1")
		for i, id := 0, world.ID(""); i < 7; i++ {
			id = world.IDOf("prod-1", "us-east1-a", "host-"+string(rune('0'+3*(i%3))))
			s.recreate(id)
		}
		keeper, err := lease.Acquire(t.Context(), simStore{s, new(atomic.Bool), o}, "nixmodules", lease.Options{Purpose: "reconcile"})
		if err != nil {
			t.Fatal(err)
		}
		if err := New(cfg, conn{s, new(atomic.Bool)}, keeper, Options{}).Reconcile(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := keeper.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if got := s.versions(); got["v1"] != 30 || d.Reconcile.Repaired != 3 || d.Reconcile.Right != 30 {
			t.Errorf("hosts run %v: %+v", got, d.Reconcile)
		}
	})
}

// TestWhatIsInFlightCounts kills controllers whose operations and hosts take
// longer than it takes to replace them: what they began counts against the
// limits, though no instance shows it yet.
func TestWhatIsInFlightCounts(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(2, 5)
			cfg.Rollout.Waves = cfg.Rollout.Waves[2:]
			cfg.Rollout.MaxConcurrent, cfg.Rollout.MaxPerZone = 6, fleet.Percent(40)
			s, o := published(t, cfg, seed, 20)
			s.opTime = 90 * time.Second
			s.slow(2 * time.Minute)
			for range 8 {
				p := s.start(o, "v2", Options{})
				time.Sleep(40*time.Second + time.Duration(seed)*7*time.Second)
				p.kill()
			}
			if err := <-s.start(o, "v2", Options{}).ended; err != nil {
				t.Fatal(err)
			}
			if got := s.versions(); got["v2"] != 20 {
				t.Errorf("hosts run %v", got)
			}
		})
	}
}

// TestWaitsForOperationsOfOthers has an operation under way when a controller
// begins: nothing is changed before it has ended.
func TestWaitsForOperationsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(2, 100), 1, 10)
		s.pending["prod-1/us-east1-a/host-0"] = 1
		p := s.start(o, "v2", Options{})
		time.Sleep(2 * time.Minute)
		s.mu.Lock()
		if n := s.calls["attach"]; n > 0 {
			t.Errorf("%d hosts changed while an operation was under way", n)
		}
		clear(s.pending)
		s.mu.Unlock()
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
	})
}
