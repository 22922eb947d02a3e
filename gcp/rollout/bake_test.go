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

// canaryAt starts a rollout of 40 hosts and returns its canary after a while.
func canaryAt(t *testing.T, after time.Duration) (*sim, *object, *process, world.ID) {
	s, o := published(t, testConfig(1, 200), 1, 40)
	p := s.start(o, "v2", Options{})
	time.Sleep(after)
	w := o.doc(t).Rollout.Waves[0]
	for id := range w.Members {
		if w.Changed.IsZero() || !w.Ended.IsZero() {
			t.Fatalf("after %s the canary is not baking: %+v", after, w)
		}
		return s, o, p, id
	}
	t.Fatal("there is no canary")
	return nil, nil, nil, ""
}

// canaryPaused wants the rollout to be paused for the canary.
func canaryPaused(t *testing.T, o *object, id world.ID, why string) {
	t.Helper()
	if r := o.doc(t).Rollout; r.Phase != state.Paused || r.Wave != 0 || !strings.Contains(r.Failed[id].Reason, why) {
		t.Errorf("the rollout is %s in wave %d (%s), the canary failed with %+v, not %q", r.Phase, r.Wave, r.Reason, r.Failed[id], why)
	}
}

// TestBakeNoticesDeadHosts has a canary whose agent stops during the bake.
func TestBakeNoticesDeadHosts(t *testing.T) {
	for _, c := range []struct {
		name string
		die  func(h *simHost)
		why  string
	}{
		{"hangs", func(h *simHost) { h.silent = true }, "silent since"},
		{"does not come up again", func(h *simHost) { h.silent, h.Started = true, time.Now() }, "started anew"},
		{"has no report any more", func(h *simHost) { h.reported = false }, "no report"},
		{"checks for ever", func(h *simHost) { h.report.Health = guest.Pending }, "pending"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, o, p, id := canaryAt(t, 3*time.Minute)
				s.mu.Lock()
				s.hosts[id].beat()
				c.die(s.hosts[id])
				s.mu.Unlock()
				time.Sleep(25 * time.Minute)
				canaryPaused(t, o, id, c.why)
				p.kill()
			})
		})
	}
}

// TestBakeLetsHostsRestart has a canary that starts anew during the bake and
// comes up again.
func TestBakeLetsHostsRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p, id := canaryAt(t, 3*time.Minute)
		s.mu.Lock()
		s.hosts[id].beat()
		s.hosts[id].silent, s.hosts[id].Started = true, time.Now().Add(time.Minute)
		s.mu.Unlock()
		time.Sleep(4 * time.Minute)
		s.mu.Lock()
		s.hosts[id].silent, s.hosts[id].report.Time = false, time.Now()
		s.mu.Unlock()
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if got := s.versions(); got["v2"] != 40 {
			t.Errorf("hosts run %v", got)
		}
	})
}

// TestBakeIsWatched kills the controller for the rest of the bake, in which the
// canary gets sick.
func TestBakeIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, p, id := canaryAt(t, 3*time.Minute)
		p.kill()
		s.says(id, "v2", guest.Failed)
		time.Sleep(time.Hour)
		p = s.start(o, "v2", Options{})
		time.Sleep(5 * time.Minute)
		canaryPaused(t, o, id, "bad")
		p.kill()
	})
}

// TestNewControllerWatchesTheRestOfTheBake kills the controller in the middle of
// a bake, for an hour in which nothing happens: the next one watches for as long
// as was left.
func TestNewControllerWatchesTheRestOfTheBake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, p, _ := canaryAt(t, 20*time.Minute)
		left := o.doc(t).Rollout.Waves[0].BakeUntil.Sub(time.Now())
		p.kill()
		time.Sleep(time.Hour)
		again := time.Now()
		if err := <-s.start(o, "v2", Options{}).ended; err != nil {
			t.Fatal(err)
		}
		w := o.doc(t).Rollout.Waves[0]
		if took := w.Ended.Sub(again); took < left || took > left+2*time.Minute {
			t.Errorf("%s of the bake were left, and it took %s more", left, took)
		}
	})
}

// TestBakeUnderKills kills the controller every few minutes: the bake ends all
// the same, and was watched for its whole length.
func TestBakeUnderKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, p, _ := canaryAt(t, 3*time.Minute)
		var alive time.Duration
		for n := 0; o.doc(t).Rollout.Wave == 0; n++ {
			if n == 20 {
				t.Fatalf("after %s under controllers' eyes the canary still bakes: %+v", alive, o.doc(t).Rollout.Waves[0])
			}
			p.kill()
			time.Sleep(5 * time.Minute)
			p = s.start(o, "v2", Options{})
			time.Sleep(4 * time.Minute)
			alive += 4 * time.Minute
		}
		if w := o.doc(t).Rollout.Waves[0]; w.Watched < w.Bake || alive > time.Duration(w.Bake)+18*time.Minute {
			t.Errorf("the canary was watched for %s of %s; after the first kill controllers lived for %s", time.Duration(w.Watched), time.Duration(w.Bake), alive)
		}
		p.kill()
	})
}

// TestBakeStandsStillWhilePaused pauses in the middle of a bake for longer than
// it takes.
func TestBakeStandsStillWhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, p, _ := canaryAt(t, 10*time.Minute)
		o.ask(t, s, state.Request{Action: state.Pause})
		time.Sleep(2 * time.Hour)
		o.ask(t, s, state.Request{Action: state.Resume})
		resumed := time.Now()
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		if left := o.doc(t).Rollout.Waves[0].Ended.Sub(resumed); left < 20*time.Minute || left > 24*time.Minute {
			t.Errorf("the bake ended %s after it was resumed", left)
		}
	})
}

// TestRepairedCanaryBakesAgain has a canary that gets sick at the end of its
// bake and is repaired.
func TestRepairedCanaryBakesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, p, id := canaryAt(t, 25*time.Minute)
		s.says(id, "v2", guest.Failed)
		time.Sleep(35 * time.Minute)
		canaryPaused(t, o, id, "bad")
		s.says(id, "v2", guest.OK)
		o.ask(t, s, state.Request{Action: state.Resume})
		resumed := time.Now()
		if err := <-p.ended; err != nil {
			t.Fatal(err)
		}
		w := o.doc(t).Rollout.Waves[0]
		if bake := w.Ended.Sub(resumed); bake < time.Duration(w.Bake) {
			t.Errorf("the repaired canary baked for %s of %s", bake, time.Duration(w.Bake))
		}
	})
}
