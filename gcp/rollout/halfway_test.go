package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
)

// TestZoneIsLostInTheMiddle has a zone go away while its hosts are being changed,
// for longer than they have: they have not failed, and nothing pauses.
func TestZoneIsLostInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		cfg.Rollout.Waves = cfg.Rollout.Waves[2:]
		s, o := published(t, cfg, 1, 60)
		s.slow(time.Minute)
		p := s.start(o, "v2", Options{})
		time.Sleep(30 * time.Second)
		s.mu.Lock()
		s.unknown["prod-1/us-east1-b"], s.lost = true, "prod-1/us-east1-b"
		s.mu.Unlock()
		time.Sleep(time.Hour)
		if r := o.doc(t).Rollout; r.Phase != state.Running || len(r.Failed) > 0 || s.versions()["v2"] < 40 {
			p.kill()
			t.Fatalf("without the zone the rollout is %s: %s; failed %v, hosts run %v", r.Phase, r.Reason, r.Failed, s.versions())
		}
		s.mu.Lock()
		clear(s.unknown)
		s.lost = ""
		s.mu.Unlock()
		if err := <-p.ended; err != nil || s.versions()["v2"] != 60 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
	})
}

// TestHostsStoppedHalfwayCount rolls back while hosts are at taking the new
// version: until they have, or are taken back, they count against the limits.
func TestHostsStoppedHalfwayCount(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(2, 10)
			cfg.Rollout.Waves = cfg.Rollout.Waves[2:]
			cfg.Rollout.MaxConcurrent, cfg.Rollout.MaxPerZone = 10, fleet.Percent(25)
			s, o := published(t, cfg, seed, 40)
			s.slow(50 * time.Second)
			p := s.start(o, "v2", Options{})
			time.Sleep(3*time.Minute + time.Duration(seed)*7*time.Second)
			s.mu.Lock()
			s.rolledBack, s.opTime = true, 20*time.Second
			s.mu.Unlock()
			speed := state.RollbackSpeed(state.SpeedOf(cfg.Rollout))
			o.ask(t, s, state.Request{Action: state.Rollback, Plan: &speed})
			if err := <-p.ended; err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			if got := s.versions(); got["v1"] != 40 {
				t.Errorf("seed %d: hosts run %v", seed, got)
			}
		})
	}
}
