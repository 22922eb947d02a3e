package rollout

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
)

// starter is bigdisk rollout start as a process.
type starter struct {
	dead   atomic.Bool
	cancel context.CancelFunc
	ended  chan error
}

func (s *sim) starting(o *object, version string) *starter {
	ctx, cancel := context.WithCancel(context.Background())
	p := &starter{cancel: cancel, ended: make(chan error, 1)}
	service := &Service{Config: s.cfg, Store: simStore{s, &p.dead, o}, Cloud: conn{s, &p.dead}, Holder: "carol@ci"}
	go func() { p.ended <- service.Start(ctx, version) }()
	return p
}

func (p *starter) kill() {
	p.dead.Store(true)
	p.cancel()
	<-p.ended
}

// serviceYard is a fleet on v1 with v2 published and a reconcile service at
// work.
func serviceYard(t *testing.T, hosts int) (*sim, *object, func() error) {
	s, o := published(t, testConfig(3, 100), 1, hosts)
	stop := s.reconciling(o)
	time.Sleep(time.Minute)
	return s, o, stop
}

// repairs wants the service to be back at work.
func repairs(t *testing.T, s *sim, o *object, want string) {
	t.Helper()
	s.recreate("prod-1/us-east1-a/host-0")
	time.Sleep(10 * time.Minute)
	if got := s.versions(); got[want] != len(s.hosts) {
		t.Errorf("a host that was made anew is not repaired: %v", got)
	}
	if l := o.doc(t).Lease; l == nil || l.Purpose != purposeReconcile {
		t.Errorf("the lease is %+v", l)
	}
}

// TestStartBesideReconcileService starts a new version while the service holds
// the lease: within seconds the starter has it, and the service goes on when the
// rollout is over.
func TestStartBesideReconcileService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		p := s.starting(o, "v2")
		time.Sleep(20 * time.Second)
		if d := o.doc(t); d.Lease == nil || d.Lease.Holder != "carol@ci" || !d.Rollout.Active() {
			t.Errorf("after 20 s the lease is %+v, the rollout %+v", d.Lease, d.Rollout)
		}
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if d := o.doc(t); s.versions()["v2"] != 30 || d.Deployed != "v2" {
			t.Errorf("hosts run %v", s.versions())
		}
		time.Sleep(2 * time.Minute)
		repairs(t, s, o, "v2")
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestRequestsBesideReconcileService pauses, resumes, aborts and rolls back a
// rollout that the service carries out, since its starter was killed.
func TestRequestsBesideReconcileService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		p := s.starting(o, "v2")
		time.Sleep(2 * time.Minute)
		p.kill()
		time.Sleep(2 * time.Minute)
		if d := o.doc(t); d.Lease == nil || d.Lease.Purpose != purposeReconcile || d.Rollout.Phase != state.Running {
			t.Fatalf("the service does not go on with the rollout: %+v", d.Lease)
		}
		for _, step := range []struct{ action, phase string }{{state.Pause, state.Paused}, {state.Resume, state.Running}, {state.Abort, state.Aborted}} {
			if err := s.service(o).Ask(t.Context(), step.action, "because", nil); err != nil || o.doc(t).Rollout.Phase != step.phase {
				t.Errorf("%s: %v, and the rollout is %s", step.action, err, o.doc(t).Rollout.Phase)
			}
			time.Sleep(time.Minute)
		}
		s.mu.Lock()
		s.rolledBack = true
		s.mu.Unlock()
		if byController, err := s.service(o).Rollback(t.Context(), "", nil); err != nil || !byController {
			t.Errorf("rollback: %v, by the service: %v", err, byController)
		}
		time.Sleep(time.Hour)
		if d := o.doc(t); d.Rollout.Kind != state.KindRollback || d.Rollout.Phase != state.Done || s.versions()["v1"] != 30 {
			t.Errorf("the %s is %s; hosts run %v", d.Rollout.Kind, d.Rollout.Phase, s.versions())
		}
		_ = stop() // its error is the end of its context
	})
}

// TestStartTakesOverFromReconcileService goes on, by another process, with the
// rollout that the service carries out, in the middle of hosts' changes.
func TestStartTakesOverFromReconcileService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 60)
		p := s.starting(o, "v2")
		time.Sleep(20 * time.Second)
		p.kill()
		time.Sleep(33 * time.Minute)
		again := s.starting(o, "")
		time.Sleep(20 * time.Second)
		if d := o.doc(t); d.Lease == nil || d.Lease.Holder != "carol@ci" {
			t.Errorf("the lease is %+v", d.Lease)
		}
		if err := <-again.ended; err != nil || s.versions()["v2"] != 60 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
		_ = stop() // its error is the end of its context
	})
}

// TestTwoStartsBesideReconcileService: one gets the lease, the other says who
// has it.
func TestTwoStartsBesideReconcileService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		p, q := s.starting(o, "v2"), s.starting(o, "v2")
		var lost error
		select {
		case lost = <-p.ended:
			p = q
		case lost = <-q.ended:
		case <-time.After(time.Minute):
			t.Fatal("both are at work, or neither")
		}
		if !errors.Is(lost, lease.ErrHeld) || !strings.Contains(lost.Error(), "carol@ci (rollout") {
			t.Errorf("the other says %v", lost)
		}
		if err := <-p.ended; err != nil || s.versions()["v2"] != 30 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
		_ = stop() // its error is the end of its context
	})
}

// TestStarterDiesBeforeItBegins asks for the lease and is killed: the service
// takes it back.
func TestStarterDiesBeforeItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		o.ask(t, s, state.Request{Action: state.Yield})
		time.Sleep(10 * time.Second)
		if d := o.doc(t); d.Lease != nil || d.Request != nil {
			t.Errorf("the service has not given the lease away: %+v, asked for %+v", d.Lease, d.Request)
		}
		time.Sleep(time.Minute)
		repairs(t, s, o, "v1")
		_ = stop() // its error is the end of its context
	})
}

// TestOnlyAServiceYields asks a single reconciliation, which ends by itself.
func TestOnlyAServiceYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(1, 100), 1, 4)
		s.pending["prod-1/us-east1-a/host-0"] = 1 // it waits for that
		ended := make(chan error, 1)
		go func() { ended <- s.service(o).Reconcile(context.Background(), false) }()
		time.Sleep(time.Minute)
		if err := s.service(o).Start(t.Context(), "v2"); !errors.Is(err, lease.ErrHeld) || !strings.Contains(err.Error(), "bob@laptop (reconcile") {
			t.Errorf("start beside a single reconciliation: %v", err)
		}
		s.mu.Lock()
		clear(s.pending)
		s.mu.Unlock()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
