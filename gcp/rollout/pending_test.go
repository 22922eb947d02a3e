package rollout

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/rollout/state"
)

// TestRollbackComesAfterWhatWasAskedBefore has a dead controller be asked to
// abort, and then somebody roll back: the rollback is what counts.
func TestRollbackComesAfterWhatWasAskedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		p.kill()
		if err := s.service(o).Ask(t.Context(), state.Abort, "", nil); !errors.Is(err, ErrUnanswered) {
			t.Fatalf("a dead controller answers: %v", err)
		}
		s.rolledBack = true
		byController, err := s.service(o).Rollback(t.Context(), "v2 lacks python", nil)
		if r := o.doc(t).Rollout; byController || err != nil || r.Phase != state.Done || s.versions()["v1"] != 30 {
			t.Errorf("%v; the %s is %s: %s; hosts run %v", err, r.Kind, r.Phase, r.Reason, s.versions())
		}
	})
}

// TestStartComesAfterWhatWasAskedBefore has a dead reconciler be asked for a
// rollback, and then somebody start another version: it is not what is rolled back.
func TestStartComesAfterWhatWasAskedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		if err := s.service(o).Start(t.Context(), "v2"); err != nil {
			t.Fatal(err)
		}
		p := s.start(o, "v2", Options{}) // takes the lease, and has nothing to do
		<-p.ended
		o.ask(t, s, state.Request{Action: state.Rollback, Plan: s.service(o).rollbackSpeed(o.doc(t))})
		s.publish("v3")
		err := s.service(o).Start(t.Context(), "v3")
		if r := o.doc(t).Rollout; err != nil || r.Kind != state.KindRollout || s.versions()["v3"] != 30 {
			t.Errorf("%v; the %s to %s is %s: %s; hosts run %v", err, r.Kind, r.Version, r.Phase, r.Reason, s.versions())
		}
	})
}

// TestStartAfterAnAbortThatNobodyDid has a dead controller be asked to abort, and then
// somebody start another version: the abort comes first.
func TestStartAfterAnAbortThatNobodyDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		p.kill()
		if err := s.service(o).Ask(t.Context(), state.Abort, "v2 lacks python", nil); !errors.Is(err, ErrUnanswered) {
			t.Fatalf("a dead controller answers: %v", err)
		}
		s.publish("v3")
		err := s.service(o).Start(t.Context(), "v3")
		d := o.doc(t)
		if err != nil || s.versions()["v3"] != 30 {
			t.Fatalf("%v; the %s to %s is %s; hosts run %v", err, d.Rollout.Kind, d.Rollout.Version, d.Rollout.Phase, s.versions())
		}
		if past := d.History[0]; past.Phase != state.Aborted || !strings.Contains(past.Reason, "v2 lacks python") || d.Rollout.Previous != "v1" {
			t.Errorf("the first one is %+v; the second one comes from %s", past, d.Rollout.Previous)
		}
	})
}

// TestStartNamesWhatIsPending has a dead controller be asked for a rollback, and then
// somebody start another version: they are told why not, and of what is pending.
func TestStartNamesWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		p := s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		p.kill()
		if err := s.service(o).Ask(t.Context(), state.Rollback, "", nil); !errors.Is(err, ErrUnanswered) {
			t.Fatalf("a dead controller answers: %v", err)
		}
		s.publish("v3")
		if err := s.service(o).Start(t.Context(), "v3"); !errors.Is(err, state.ErrRefused) || !strings.Contains(err.Error(), "does the rollback that was asked for") {
			t.Error(err)
		}
		if q := o.doc(t).Request; q == nil || q.Action != state.Rollback {
			t.Errorf("asked for is now %+v", q)
		}
	})
}

// TestRefusedStartChangesNothing starts another version while a service's first rollout
// is under way: what is remembered stays as it was.
func TestRefusedStartChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSim(t, testConfig(3, 100), 1), newObject("")
		s.publish("v1")
		s.addHosts(30, "")
		p := s.start(o, "v1", Options{})
		time.Sleep(5 * time.Minute)
		p.kill()
		s.publish("v2")
		if err := s.service(o).Start(t.Context(), "v2"); !errors.Is(err, state.ErrRefused) {
			t.Errorf("a second rollout: %v", err)
		}
		if d := o.doc(t); d.Deployed != "" || d.Rollout.Version != "v1" || d.Rollout.Phase != state.Running || d.Lease != nil {
			t.Errorf("%q is deployed; the rollout to %s is %s; lease %v", d.Deployed, d.Rollout.Version, d.Rollout.Phase, d.Lease)
		}
	})
}

// TestStateIsLost removes the document, with hosts that have two versions attached
// each: what they run is what the next rollout can be rolled back to.
func TestStateIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 30)
		if err := s.service(o).Start(t.Context(), "v2"); err != nil {
			t.Fatal(err)
		}
		s.publish("v3")
		o.mu.Lock()
		o.data, o.generation = nil, 0
		o.mu.Unlock()
		if err := s.service(o).Start(t.Context(), "v3"); err != nil {
			t.Fatal(err)
		}
		if r := o.doc(t).Rollout; r.Previous != "v2" || s.versions()["v3"] != 30 {
			t.Errorf("the rollout goes from %s to %s; hosts run %v", r.Previous, r.Version, s.versions())
		}
	})
}
