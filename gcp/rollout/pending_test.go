package rollout

import (
	"errors"
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
