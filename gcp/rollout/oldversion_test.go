package rollout

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// again makes a fleet that went from v1 to v2 with v1 still attached, so that a
// start of v1 has to attach it once more.
func again(t *testing.T, hosts int) (*sim, *object) {
	cfg := testConfig(1, 100)
	s, o := newSim(t, cfg, 1), newObject("v1")
	s.publish("v1")
	s.addHosts(hosts, "v1")
	s.publish("v2")
	if err := <-s.start(o, "v2", Options{}).ended; err != nil {
		t.Fatal(err)
	}
	s.allowAll, s.rolledBack = true, true
	return s, o
}

// count is how often a method was called.
func (s *sim) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// says makes a host say something; it goes on to say so.
func (s *sim) says(id world.ID, version string, health guest.Health) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[id]
	h.reported, h.report = true, guest.Report{Version: version, Health: health, Current: "v2", BootID: "b", Time: time.Now()}
	if health == guest.Failed {
		h.report.Error = "bad"
	}
}

// TestHostThatNeverSwitches attaches an old version anew to hosts that stay with
// the newer one: once each, and then they have failed.
func TestHostThatNeverSwitches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := again(t, 1)
		for _, h := range s.hosts {
			h.delay = 24 * time.Hour
		}
		detached, began := s.count("detach"), time.Now()
		p := s.start(o, "v1", Options{})
		for o.doc(t).Rollout.Phase != state.Paused && time.Since(began) < 3*time.Hour {
			time.Sleep(time.Minute)
		}
		r := o.doc(t).Rollout
		if n := s.count("detach") - detached; n != 1 || r.Phase != state.Paused || time.Since(began) > 16*time.Minute {
			t.Errorf("after %s it is %s: %s; %d times detached", time.Since(began), r.Phase, r.Reason, n)
		}
		if !strings.Contains(r.Reason, "not healthy after") {
			t.Errorf("it says %q", r.Reason)
		}
		p.kill()
		time.Sleep(25 * time.Hour)
	})
}

// TestAbortEndsHostsInChange aborts while a host does not switch: nobody waits
// for its health.
func TestAbortEndsHostsInChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := again(t, 1)
		for _, h := range s.hosts {
			h.delay = time.Hour
		}
		p := s.start(o, "v1", Options{})
		time.Sleep(time.Minute)
		asked := time.Now()
		o.ask(t, s, state.Request{Action: state.Abort})
		if err := <-p.ended; err != nil || time.Since(asked) > 30*time.Second {
			t.Errorf("%v after %s", err, time.Since(asked))
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestNewControllerDoesNotDetachAgain kills a controller right after it attached
// an old version anew; the next one takes what the host said before for just
// that.
func TestNewControllerDoesNotDetachAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := again(t, 1)
		for _, h := range s.hosts {
			h.delay = 2 * time.Minute
		}
		attached := s.count("attach")
		p := s.start(o, "v1", Options{})
		for s.count("attach") == attached {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(4 * time.Second)
		p.kill()
		detached := s.count("detach")
		p = s.start(o, "v1", Options{})
		time.Sleep(90 * time.Second)
		if n := s.count("detach") - detached; n != 0 {
			t.Errorf("detached %d times", n)
		}
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if got := s.versions(); got["v1"] != 1 {
			t.Errorf("hosts run %v", got)
		}
	})
}

// TestRollbackAsksHostsThatLookRight has hosts without the new version, as a
// killed controller leaves them, that do not run the old one.
func TestRollbackAsksHostsThatLookRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := again(t, 10)
		var broken, silent world.ID
		for id, h := range s.hosts {
			switch {
			case broken == "":
				broken = id
			case silent == "":
				silent = id
				h.reported = false
			default:
				continue
			}
			h.Attachments = h.Attachments[:2]
		}
		s.says(broken, "v1", guest.Failed)
		s.hosts[silent].reported = false
		speed := state.RollbackSpeed(state.SpeedOf(s.cfg.Rollout))
		o.ask(t, s, state.Request{Action: state.Rollback, Plan: &speed})
		p := s.start(o, "", Options{})
		time.Sleep(30 * time.Minute)
		r := o.doc(t).Rollout
		for id, want := range map[world.ID]string{broken: "bad", silent: "no report"} {
			if r.Done.Has(id) || !strings.Contains(r.Failed[id].Reason, want) {
				t.Errorf("%s is done: %v, failed: %+v", id, r.Done.Has(id), r.Failed[id])
			}
		}
		p.kill()
	})
}
