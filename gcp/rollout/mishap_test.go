package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// What people do by mistake while a rollout is under way.

// replace puts another object into the place of the document; nil removes it.
func (o *object) replace(d *state.Document) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if d == nil {
		o.data, o.generation = nil, 0
		return
	}
	data, err := d.Encode()
	if err != nil {
		panic(err)
	}
	o.data, o.generation = data, o.generation+1000
}

// foreign is the document of another fleet with the same service, where v7 was
// rolled out.
func foreign(t *testing.T, phase string) *state.Document {
	d := state.New("nixmodules")
	d.Deployed = "v6"
	if err := d.Begin("v7", state.SpeedOf(testConfig(1, 100).Rollout), "carol@desk", time.Now()); err != nil {
		t.Fatal(err)
	}
	if phase != state.Running {
		d.End(phase, "", time.Now())
	}
	return d
}

// TestStateIsReplaced removes the document while start and rollback are at work, or
// puts another fleet's into its place: they end, say why, and never take what
// is in there for the end of theirs.
func TestStateIsReplaced(t *testing.T) {
	for name, by := range map[string]func(*testing.T) *state.Document{
		"nothing":                     func(*testing.T) *state.Document { return nil },
		"one that is done":            func(t *testing.T) *state.Document { return foreign(t, state.Done) },
		"one that is running":         func(t *testing.T) *state.Document { return foreign(t, state.Running) },
		"one without a rollout":       func(*testing.T) *state.Document { return state.New("nixmodules") },
		"that of another service":     func(*testing.T) *state.Document { return state.New("other") },
		"one that was rolled back to": func(t *testing.T) *state.Document { return rolledBack(foreign(t, state.Done)) },
	} {
		for _, verb := range []string{state.KindRollout, state.KindRollback} {
			t.Run(verb+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, o := published(t, testConfig(3, 100), 1, 30)
					s.publish("v7")
					ended := make(chan error, 1)
					if verb == state.KindRollback {
						if err := s.service(o).Start(t.Context(), "v2"); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Minute)
						s.rolledBack = true
						for _, h := range s.hosts {
							h.delay = time.Minute
						}
						go func() { _, err := s.service(o).Rollback(t.Context(), "", nil); ended <- err }()
					} else {
						go func() { ended <- s.service(o).Start(t.Context(), "v2") }()
					}
					time.Sleep(20 * time.Second)
					o.replace(by(t))
					err := <-ended
					if err == nil {
						t.Errorf("it succeeds; hosts run %v", s.versions())
					}
					if n := s.versions()["v7"]; n > 0 {
						t.Errorf("%d hosts have another fleet's version", n)
					}
				})
			})
		}
	}
}

func rolledBack(d *state.Document) *state.Document {
	speed := state.RollbackSpeed(d.Rollout.Speed)
	if err := d.Apply(&state.Request{Action: state.Rollback, Plan: &speed}, time.Now()); err != nil {
		panic(err)
	}
	return d
}

// TestTwoFleetsDoNotShareAState gives a fleet the configuration's state of another one,
// as a copied file does: nobody can start, ask or reconcile with it, and a service
// that is at work ends when the document is replaced by it.
func TestTwoFleetsDoNotShareAState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o, stop := serviceYard(t, 30)
		stopSecond := s.reconciling(o) // it waits for the first one to go
		s.publish("v7")
		time.Sleep(10 * time.Minute)
		d := foreign(t, state.Running)
		d.Zones = map[world.Zone]state.Zone{"staging-1/us-east1-a": {Hosts: 7}}
		o.replace(d)
		time.Sleep(time.Hour)
		_, rollback := s.service(o).Rollback(t.Context(), "", nil)
		for what, err := range map[string]error{
			"the service": stop(), "the service that waits": stopSecond(), "start": s.service(o).Start(t.Context(), "v2"), "rollback": rollback,
			"abort": s.service(o).Ask(t.Context(), state.Abort, "", nil), "reconcile": s.service(o).Reconcile(t.Context(), false),
		} {
			if !errors.Is(err, state.ErrForeign) || !strings.Contains(err.Error(), "7 hosts in staging-1/us-east1-a") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if d := o.doc(t); s.versions()["v1"] != 30 || d.Rollout.Phase != state.Running || d.Request != nil || d.Lease != nil {
			t.Errorf("hosts run %v; the other fleet's rollout is %s, asked for %v", s.versions(), d.Rollout.Phase, d.Request)
		}
	})
}

// TestWhatWasAskedIsNotLost has people press at the same time: nobody's resume or
// pause takes the place of a rollback that the controller has not begun yet.
func TestWhatWasAskedIsNotLost(t *testing.T) {
	for _, second := range []string{state.Resume, state.Pause, state.Rollback} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(3, 100)
			cfg.Rollout.Waves = cfg.Rollout.Waves[2:]
			s, o := published(t, cfg, 1, 30)
			s.allowAll, s.rolledBack = true, true
			p := s.start(o, "v2", Options{})
			time.Sleep(10 * time.Second)
			asked := make(chan error, 2)
			go func() { asked <- s.service(o).Ask(t.Context(), state.Rollback, "v2 lacks python", nil) }()
			time.Sleep(100 * time.Millisecond)
			go func() { asked <- s.service(o).Ask(t.Context(), second, "", nil) }()
			refused := 0
			for range 2 {
				if err := <-asked; errors.Is(err, state.ErrRefused) {
					refused++
					if !strings.Contains(err.Error(), "the rollback that bob@laptop asked for is not done yet") {
						t.Error(err)
					}
				} else if err != nil {
					t.Errorf("%s: %v", second, err)
				}
			}
			if want := map[bool]int{true: 0, false: 1}[second == state.Rollback]; refused != want {
				t.Errorf("%s: %d are refused", second, refused)
			}
			if err := <-p.ended; err != nil || s.versions()["v1"] != 30 {
				t.Errorf("%s: %v; hosts run %v", second, err, s.versions())
			}
		})
	}
}

// TestSecondRollback is told of the first one.
func TestSecondRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := onV2(t, 1)
		s.slow(time.Minute)
		first := make(chan error, 1)
		go func() { _, err := s.service(o).Rollback(t.Context(), "", nil); first <- err }()
		time.Sleep(20 * time.Second)
		_, err := s.service(o).Rollback(t.Context(), "", nil)
		if !errors.Is(err, state.ErrRefused) || !strings.Contains(err.Error(), "a rollback to v1 is under way already") {
			t.Error(err)
		}
		if err := <-first; err != nil || s.versions()["v1"] != 30 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
	})
}

// TestDiskIsDeletedByHand deletes a zone's free copies in the middle of a rollout:
// they are made anew.
func TestDiskIsDeletedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 5), 1, 60)
		p := s.start(o, "v2", Options{})
		for range 40 {
			time.Sleep(2 * time.Minute)
			s.mu.Lock()
			for id, d := range s.disks {
				if d.Version == "v2" && s.readers(id) == 0 && len(s.pending) == 0 {
					delete(s.disks, id)
				}
			}
			s.mu.Unlock()
		}
		if err := <-p.ended; err != nil || s.versions()["v2"] != 60 {
			t.Errorf("%v; hosts run %v", err, s.versions())
		}
	})
}

// TestConfigurationLosesAZone drops a zone, and asks for fewer waves, between a
// rollout that is killed and the one who goes on with it.
func TestConfigurationLosesAZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(3, 100)
		s, o := published(t, cfg, 1, 60)
		p := s.start(o, "v2", Options{})
		time.Sleep(40 * time.Minute)
		p.kill()
		dropped := world.Zone("prod-1/us-east1-b")
		changed := *cfg
		changed.Rollout.Waves = cfg.Rollout.Waves[2:]
		changed.Targets = []fleet.Target{cfg.Targets[0]}
		changed.Targets[0].Zones = []fleet.Zone{cfg.Targets[0].Zones[0], cfg.Targets[0].Zones[2]}
		dead := new(atomic.Bool)
		service := &Service{Config: &changed, Store: simStore{s, dead, o}, Cloud: partly{conn{s, dead}, dropped}, Holder: "bob@laptop"}
		if err := service.Start(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		d := o.doc(t)
		if len(d.Rollout.Waves) != 3 || len(d.Rollout.Done) != 40 || d.Rollout.Waves[1].Ended.Sub(d.Rollout.Waves[1].Changed) < 15*time.Minute {
			t.Errorf("%d hosts are done; waves %+v", len(d.Rollout.Done), d.Rollout.Waves)
		}
		told := 0
		for _, e := range d.Rollout.Events {
			if strings.Contains(e.Text, "prod-1/us-east1-b is not in the configuration any more: its 20 hosts stay as they are") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("of the zone is told %d times: %+v", told, d.Rollout.Events)
		}
	})
}

// TestFilterLosesHosts has a filter that matches few hosts any more go on with a
// rollout: the rest is told of.
func TestFilterLosesHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(3, 100), 1, 60)
		p := s.start(o, "v2", Options{})
		for d := o.doc(t); d.Rollout == nil || d.Rollout.Wave < 2 || len(d.Rollout.Done) < 20; d = o.doc(t) {
			time.Sleep(time.Second)
		}
		p.kill()
		before := len(o.doc(t).Rollout.Done)
		service := s.service(o)
		service.Cloud = partly{service.Cloud.(conn), "prod-1/us-east1-b"}
		if err := service.Start(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if events := fmt.Sprint(o.doc(t).Rollout.Events); before < 20 || !strings.Contains(events, "hosts that were done are gone") || !strings.Contains(events, "hosts.filter") {
			t.Errorf("of %d done hosts: %s", before, events)
		}
	})
}

// partly is a fleet without one zone, as a configuration without it reads it.
type partly struct {
	conn
	without world.Zone
}

func (p partly) Look(ctx context.Context) (*world.World, error) {
	w, err := p.conn.Look(ctx)
	if err != nil {
		return nil, err
	}
	for id := range w.Hosts {
		if id.Zone() == p.without {
			delete(w.Hosts, id)
		}
	}
	for id := range w.Disks {
		if id.Zone() == p.without {
			delete(w.Disks, id)
		}
	}
	return w, nil
}
