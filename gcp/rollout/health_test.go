package rollout

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/world"
)

// TestReconcilerTellsOfSickHosts has hosts with the right disk that get sick, go
// silent or lose their report, and one that gets well again: they are told of, and
// nothing is done to them.
func TestReconcilerTellsOfSickHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		time.Sleep(10 * time.Minute)
		failed, silent, mute := world.ID("prod-1/us-east1-a/host-0"), world.ID("prod-1/us-east1-b/host-1"), world.ID("prod-1/us-east1-c/host-2")
		s.says(failed, "v1", guest.Failed)
		s.mu.Lock()
		s.hosts[silent].beat()
		s.hosts[silent].silent, s.hosts[mute].reported = true, false
		s.mu.Unlock()
		time.Sleep(30 * time.Minute)
		sick := o.doc(t).Reconcile.Sick
		for id, why := range map[world.ID]string{failed: "the host says: bad", silent: "silent since", mute: "no report"} {
			if !strings.Contains(sick[id].Reason, why) {
				t.Errorf("%s: %q, not %q", id, sick[id].Reason, why)
			}
		}
		if n := s.count("attach") + s.count("detach"); len(sick) != 3 || n != 0 {
			t.Errorf("sick: %v; %d changes", sick, n)
		}
		st, err := s.service(o).Status(t.Context())
		var text strings.Builder
		if err != nil || st.Text(&text) != nil || !strings.Contains(text.String(), "3 sick") || !strings.Contains(text.String(), "the host says: bad") {
			t.Errorf("%v\n%s", err, text.String())
		}
		s.says(failed, "v1", guest.OK)
		time.Sleep(10 * time.Minute)
		if sick := o.doc(t).Reconcile.Sick; len(sick) != 2 {
			t.Errorf("one host is well again; sick: %v", sick)
		}
		_ = stop() // its error is the end of its context
	})
}

// TestReconcileOnceTellsOfSickHosts: a single reconciliation asks every host,
// too, and fails if one is not well.
func TestReconcileOnceTellsOfSickHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSim(t, testConfig(3, 100), 1), newObject("v1")
		s.publish("v1")
		s.addHosts(120, "v1")
		if err := s.service(o).Reconcile(context.Background(), false); err != nil {
			t.Errorf("all are well: %v", err)
		}
		time.Sleep(time.Minute)
		s.says("prod-1/us-east1-a/host-0", "v1", guest.Failed)
		err := s.service(o).Reconcile(context.Background(), false)
		if d := o.doc(t); !errors.Is(err, ErrUnrepaired) || !strings.Contains(err.Error(), "1 of 120 are not well") || len(d.Reconcile.Sick) != 1 {
			t.Errorf("%v, %+v", err, d.Reconcile)
		}
	})
}

// TestReconcilerBringsStraysBack has a host that somebody attached an old version
// to, which it took.
func TestReconcilerBringsStraysBack(t *testing.T) {
	for _, keep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, o := newSim(t, testConfig(3, 100), 1), newObject("v2")
			s.publish("v1")
			s.publish("v2")
			s.addHosts(6, "v2")
			s.cfg.Rollout.KeepPrevious, s.rolledBack = keep, true
			stray := world.ID("prod-1/us-east1-a/host-0")
			h := s.hosts[stray]
			h.Attachments = append(h.Attachments, world.Attachment{Device: "nixmodules-v1", Disk: "prod-1/us-east1-a/nixmodules-v1-us-east1-a-1", Version: "v1", ReadOnly: true})
			s.agent(h)
			stop := s.reconciling(o)
			time.Sleep(15 * time.Minute)
			if got := s.versions(); got["v2"] != 6 {
				t.Errorf("keepPrevious %v: hosts run %v; %v, %+v", keep, got, h.Attachments, o.doc(t).Reconcile)
			}
			if d := o.doc(t).Reconcile; len(d.Sick) > 0 || d.Repaired != 1 {
				t.Errorf("keepPrevious %v: %+v", keep, d)
			}
			_ = stop() // its error is the end of its context
		})
	}
}
