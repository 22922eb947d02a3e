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
// start of v1 has to attach it once more, and that keeps nothing from then on.
func again(t *testing.T, hosts int) (*sim, *object) {
	cfg := testConfig(1, 100)
	s, o := published(t, cfg, 1, hosts)
	if err := <-s.start(o, "v2", Options{}).ended; err != nil {
		t.Fatal(err)
	}
	s.allowAll, s.rolledBack = true, true
	cfg.Rollout.KeepPrevious = false
	return s, o
}

// onV2 makes a fleet of 30 hosts that went from v1 to v2, and that may go back.
func onV2(t *testing.T, seed uint64) (*sim, *object) {
	t.Helper()
	s, o := published(t, testConfig(3, 10), seed, 30)
	if err := s.service(o).Start(t.Context(), "v2"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	s.rolledBack = true
	return s, o
}

// slow makes all hosts take so long before they report.
func (s *sim) slow(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hosts {
		h.delay = delay
	}
}

// used are the disks that hosts run from, and those that they ran from before.
func (s *sim) used(before map[world.ID]world.ID) map[world.ID]world.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[world.ID]world.ID{}
	for id, h := range s.hosts {
		all := map[world.ID]bool{}
		for _, a := range h.Ours() {
			all[a.Disk] = true
			if a.Device == s.cfg.Service+"-"+h.current {
				now[id] = a.Disk
			}
		}
		if before[id] != "" && !all[before[id]] {
			s.t.Errorf("%s lost %s, from which it ran before: %v", id, before[id], h.Attachments)
		}
		if len(all) > 3 {
			s.t.Errorf("%s has %d disks: %v", id, len(all), h.Attachments)
		}
	}
	return now
}

// keepNew is the speed of a rollback after which hosts keep the new disk.
func keepNew(s *sim) *state.Speed {
	speed := state.RollbackSpeed(state.SpeedOf(s.cfg.Rollout))
	speed.KeepPrevious = true
	return &speed
}

// TestRollbackNeedsNoAttachment goes back where nothing can be attached or made:
// hosts have the old disk.
func TestRollbackNeedsNoAttachment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := onV2(t, 1)
		s.noDisks = true
		attached := s.calls["attach"]
		if _, err := s.service(o).Rollback(t.Context(), "", nil); err != nil || s.versions()["v1"] != 30 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
		if n := s.calls["attach"] - attached; n != 0 || attached == 0 {
			t.Errorf("%d attachments, and %d before", n, attached)
		}
	})
}

// TestBothWaysKeepWhatWasUsed goes to and fro between versions, by rollouts and
// by rollbacks: a host keeps the disk that it ran from until its next rollout.
func TestBothWaysKeepWhatWasUsed(t *testing.T) {
	for name, steps := range map[string][]string{
		"rollouts":  {"v2", "v1", "v2", "v1", "v3", "v1"},
		"rollbacks": {"v2", "back", "v2", "back", "v3", "back", "v2", "v3"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, o := published(t, testConfig(3, 4), 1, 30)
				s.publish("v3")
				s.rolledBack = true
				used := s.used(nil)
				for _, step := range steps {
					var err error
					if step == "back" {
						_, err = s.service(o).Rollback(t.Context(), "", keepNew(s))
					} else {
						err = s.service(o).Start(t.Context(), step)
					}
					if d := o.doc(t); err != nil || s.versions()[d.Deployed] != 30 || step != "back" && d.Deployed != step {
						t.Fatalf("%s: %v; hosts run %v", step, err, s.versions())
					}
					time.Sleep(time.Minute)
					used = s.used(used)
				}
			})
		})
	}
}

// TestRollbackWithoutRoomForDisks cannot make the disks that would let hosts keep
// the new one: they go back all the same.
func TestRollbackWithoutRoomForDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := onV2(t, 1)
		s.noDisks = true
		if _, err := s.service(o).Rollback(t.Context(), "", keepNew(s)); err != nil || s.versions()["v1"] != 30 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
		for _, h := range s.hosts {
			if h.Has("v2") {
				t.Errorf("%s has %v", h.ID, h.Attachments)
			}
		}
	})
}

// TestKilledRollbackKeepsWhatWasUsed kills controllers in the middle of a
// rollback: no host gets a third disk of a version, or loses what it ran from.
func TestKilledRollbackKeepsWhatWasUsed(t *testing.T) {
	for seed := range 10 {
		synctest.Test(t, func(t *testing.T) {
			s, o := onV2(t, uint64(seed))
			used := s.used(nil)
			o.ask(t, s, state.Request{Action: state.Rollback, Plan: keepNew(s)})
			for range 3 {
				p := s.start(o, "", Options{})
				time.Sleep(time.Duration(20+seed*3) * time.Second)
				p.kill()
				time.Sleep(time.Minute)
			}
			_ = s.service(o).Start(t.Context(), "") // it may be over already
			if s.used(used); s.versions()["v1"] != 30 {
				t.Errorf("seed %d: hosts run %v", seed, s.versions())
			}
		})
	}
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
		s.slow(24 * time.Hour)
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
		s.slow(time.Hour)
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
		s.slow(2 * time.Minute)
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
		o.ask(t, s, state.Request{Action: state.Rollback, Plan: keepNew(s)})
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
