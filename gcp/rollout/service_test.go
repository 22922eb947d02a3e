package rollout

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// service is what a command works with in a process of its own.
func (s *sim) service(o *object) *Service {
	dead := new(atomic.Bool)
	return &Service{Config: s.cfg, Store: simStore{s, dead, o}, Cloud: conn{s, dead}, Holder: "bob@laptop"}
}

// reconciling runs reconcile --watch until stop is called.
func (s *sim) reconciling(o *object) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	service, ended := s.service(o), make(chan error, 1)
	go func() { ended <- service.Reconcile(ctx, true) }()
	return func() error { cancel(); return <-ended }
}

// TestReconcilerCarriesOutARollback asks for a rollback while the reconcile
// service holds the lease, and goes on to repair hosts after it.
func TestReconcilerCarriesOutARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		if err := s.service(o).Start(t.Context(), "v2"); err != nil {
			t.Fatal(err)
		}
		s.rolledBack = true
		stop := s.reconciling(o)
		time.Sleep(time.Minute)
		byController, err := s.service(o).Rollback(t.Context(), "v2 lacks python", nil)
		if err != nil || !byController {
			t.Errorf("rollback: %v, by the controller: %v", err, byController)
		}
		time.Sleep(time.Hour)
		d := o.doc(t)
		if got := s.versions(); got["v1"] != 30 || d.Rollout.Phase != state.Done || d.Deployed != "v1" {
			t.Errorf("the %s is %s; hosts run %v", d.Rollout.Kind, d.Rollout.Phase, got)
		}
		s.recreate("prod-1/us-east1-a/host-0")
		time.Sleep(10 * time.Minute)
		if got := s.versions(); got["v1"] != 30 {
			t.Errorf("after the rollback a host is not repaired: %v", got)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestReconcilerGoesOnWithAKilledRollout takes over from a starter that was
// killed.
func TestReconcilerGoesOnWithAKilledRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		stop := s.reconciling(o)
		time.Sleep(5 * time.Minute)
		p.kill()
		time.Sleep(3 * time.Hour)
		if d := o.doc(t); s.versions()["v2"] != 30 || d.Deployed != "v2" {
			t.Errorf("the rollout is %s; hosts run %v", d.Rollout.Phase, s.versions())
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestReconcilerWithAPausedRollout repairs, leaves what failed alone, and goes on
// with the rollout when somebody resumes.
func TestReconcilerWithAPausedRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		p.kill()
		if err := s.service(o).Ask(t.Context(), state.Pause, "", nil); err != nil && !errors.Is(err, ErrUnanswered) {
			t.Fatal(err)
		}
		stop := s.reconciling(o)
		time.Sleep(10 * time.Minute)
		canary := slices.Collect(maps.Keys(o.doc(t).Rollout.Waves[0].Members))[0]
		for id := range s.hosts {
			if id != canary {
				s.recreate(id)
				break
			}
		}
		time.Sleep(10 * time.Minute)
		if got := s.versions(); got["v1"] != 29 || o.doc(t).Rollout.Phase != state.Paused {
			t.Errorf("%s: hosts run %v", o.doc(t).Rollout.Phase, got)
		}
		s.mu.Lock()
		s.rolledBack = true
		s.mu.Unlock()
		if err := s.service(o).Ask(t.Context(), state.Resume, "", nil); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Hour)
		if got := s.versions(); got["v2"] != 30 {
			t.Errorf("after resume hosts run %v", got)
		}
		_ = stop() // its error is the end of its context
	})
}

func TestCanaryVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(1, 200), 1, 40)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		var first world.ID
		for first = range o.doc(t).Rollout.Waves[0].Members {
			s.vanish(first)
		}
		time.Sleep(time.Hour)
		if r := o.doc(t).Rollout; r.Phase != state.Paused || !strings.Contains(r.Reason, "none of the 1 hosts of wave canary is done") || s.versions()["v2"] > 0 {
			t.Fatalf("without its canary the rollout is %s: %s; hosts run %v", r.Phase, r.Reason, s.versions())
		}
		o.ask(t, s, state.Request{Action: state.Resume})
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		r := o.doc(t).Rollout
		if w := r.Waves[0]; len(w.Members) != 1 || w.Members.Has(first) || w.Ended.Sub(w.Changed) < 30*time.Minute || s.versions()["v2"] != 39 {
			t.Errorf("the second canary: %+v; hosts run %v", w, s.versions())
		}
	})
}

func TestNoHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSim(t, testConfig(1, 200), 1), newObject("v1")
		s.publish("v2")
		if err := s.service(o).Start(t.Context(), "v2"); !errors.Is(err, ErrNoHosts) || o.doc(t).Rollout != nil {
			t.Errorf("a rollout to nobody: %v", err)
		}
		err := <-s.start(o, "v2", Options{StopWhenPaused: true}).ended
		if d := o.doc(t); !errors.Is(err, ErrPaused) || !strings.Contains(d.Rollout.Reason, "no host matches the filter") || d.Deployed != "v1" {
			t.Errorf("a rollout whose hosts are gone: %v, %s", err, d.Rollout.Phase)
		}
	})
}

// TestRollbackPassesFailedHosts has one host in ten hang on the new version:
// all others go back all the same, and the command says how many did not.
func TestRollbackPassesFailedHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 200)
		if err := s.service(o).Start(t.Context(), "v2"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.rolledBack, s.allowAll = true, true
		n := 0
		for _, h := range s.hosts {
			if n++; n%10 == 0 {
				h.delay = 30 * time.Hour
			}
		}
		_, err := s.service(o).Rollback(t.Context(), "", nil)
		r := o.doc(t).Rollout
		if !errors.Is(err, ErrNotDone) || !strings.Contains(err.Error(), "of 200 hosts failed") || r.Phase != state.Done || len(r.Failed) != 20 || len(r.Done) != 180 {
			t.Errorf("%v; the rollback is %s, %d done, %d failed", err, r.Phase, len(r.Done), len(r.Failed))
		}
		time.Sleep(31 * time.Hour)
	})
}

// TestRollbackTakesSickHostsLast has hosts whose agents died while they ran the
// old version, and that would be a rollback's canaries by their names: they come
// last, and what they said then does not count.
func TestRollbackTakesSickHostsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		cfg.Rollout.Waves, cfg.Rollout.MaxFailures = cfg.Rollout.Waves[2:], fleet.Percent(40)
		s, o := published(t, cfg, 1, 40)
		for _, id := range plan.Order("v1", slices.Collect(maps.Keys(s.hosts)))[:4] {
			s.hosts[id].delay, s.hosts[id].silent = 100*time.Hour, true
		}
		s.allowAll = true
		if err := s.service(o).Start(t.Context(), "v2"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		s.rolledBack = true
		speed := state.RollbackSpeed(state.SpeedOf(cfg.Rollout))
		speed.Waves = append([]state.WaveConfig{{Name: "canary", Hosts: fleet.Percent(10)}}, speed.Waves...)
		service := s.service(o)
		service.Options.StopWhenPaused = true
		_, _ = service.Rollback(t.Context(), "", &speed) // the hosts that hang stay so
		r := o.doc(t).Rollout
		if len(r.Sick) != 4 || r.Phase != state.Done || len(r.Done) != 36 || len(r.Failed) != 4 {
			t.Errorf("the rollback is %s (%s): %d done, %d failed, sick %v", r.Phase, r.Reason, len(r.Done), len(r.Failed), r.Sick)
		}
		for id, f := range r.Failed {
			if f.Wave != 1 {
				t.Errorf("%s failed in the canary", id)
			}
		}
		time.Sleep(101 * time.Hour)
	})
}

func TestResumeWaitsForPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(1, 200), 1, 10)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		p.kill() // its lease is still there, and nobody answers
		o.ask(t, s, state.Request{Action: state.Pause})
		if err := s.service(o).Ask(t.Context(), state.Resume, "", nil); !errors.Is(err, state.ErrRefused) || o.doc(t).Request.Action != state.Pause {
			t.Errorf("%v; asked for is now %+v", err, o.doc(t).Request)
		}
	})
}

func TestPlanAsksForAVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSim(t, testConfig(1, 200), 1), newObject("v1")
		if _, err := s.service(o).Plan(t.Context(), ""); !errors.Is(err, ErrNothing) {
			t.Error(err)
		}
	})
}
