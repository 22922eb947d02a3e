package state

import (
	"errors"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
)

// TestEncodeRefusesWhatDecodeDoes: a document that nobody can read again must not
// be written.
func TestEncodeRefusesWhatDecodeDoes(t *testing.T) {
	d := full(t)
	d.Rollout.Waves[0].Bake = Duration(-5 * time.Minute)
	if _, err := d.Encode(); err == nil {
		t.Error("a negative bake is encoded")
	}
	d = full(t)
	d.Lease.TTL, d.Rollout.Speed.MaxFailures = Duration(time.Minute), fleet.Count(5_000_000)
	if _, err := d.Encode(); err == nil {
		t.Error("a share that cannot be read is encoded")
	}
}

func TestRollbackRefusesAbsurdPlans(t *testing.T) {
	for name, spoil := range map[string]func(*Speed){
		"negative bake":     func(s *Speed) { s.Waves[0].Bake = Duration(-time.Minute) },
		"wave of no hosts":  func(s *Speed) { s.Waves = append([]WaveConfig{{Name: "a"}}, s.Waves...) },
		"negative minimum":  func(s *Speed) { s.Waves[0].Min = -1 },
		"none of a zone":    func(s *Speed) { s.MaxPerZone = fleet.Percent(0) },
		"far too many":      func(s *Speed) { s.MaxConcurrent = 2_000_000 },
		"none at all":       func(s *Speed) { s.MaxConcurrent = 0 },
		"last wave of half": func(s *Speed) { s.Waves[0].Hosts = fleet.Percent(50) },
	} {
		d := full(t)
		speed := RollbackSpeed(testSpeed())
		spoil(&speed)
		if err := d.Apply(&Request{Action: Rollback, Plan: &speed}, noon); !errors.Is(err, ErrRefused) || d.Rollout.Kind != KindRollout {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAbortedRollbackIsNoDeadEnd starts either version after a rollback that was
// aborted: hosts have both, so that none is deployed.
func TestAbortedRollbackIsNoDeadEnd(t *testing.T) {
	for version, previous := range map[string]string{"v1": "v2", "v2": "v1", "v3": "v2"} {
		d := New("nixmodules")
		d.Deployed = "v1"
		speed := RollbackSpeed(testSpeed())
		for _, err := range []error{
			d.Begin("v2", testSpeed(), "", noon), func() error { d.End(Done, "", noon); return nil }(),
			d.Apply(&Request{Action: Rollback, Plan: &speed}, noon), d.Apply(&Request{Action: Abort}, noon),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if !d.Mixed() {
			t.Error("after an aborted rollback one version is said to be deployed")
		}
		if err := d.Begin(version, testSpeed(), "", noon); err != nil || d.Rollout.Previous != previous {
			t.Errorf("start of %s: %v, it comes from %q, not %q", version, err, d.Rollout.Previous, previous)
		}
		if _, err := d.Encode(); err != nil {
			t.Error(err)
		}
		d.End(Done, "", noon)
		if err := d.Begin(version, testSpeed(), "", noon); d.Mixed() || !errors.Is(err, ErrRefused) {
			t.Errorf("%s is deployed, and can be started again: %v", version, err)
		}
	}
}

func TestRollbackIsNotStoppedByFailures(t *testing.T) {
	if s := RollbackSpeed(testSpeed()); s.MaxFailures.Of(2000) != 2000 {
		t.Errorf("a rollback stops at %s failures", s.MaxFailures)
	}
}
