package status

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// midway is a rollout in its second wave: 10 of 100 hosts done in ten minutes,
// then half an hour of bake, then two minutes of the second wave.
func midway(t testing.TB) *state.Document {
	t.Helper()
	d := state.New("nixmodules")
	d.Deployed = "v1"
	speed := state.SpeedOf(fleet.Rollout{
		Waves: []fleet.Wave{
			{Name: "canary", Hosts: fleet.Percent(10), Min: 1, Bake: 30 * time.Minute},
			{Name: "half", Hosts: fleet.Percent(50), Min: 1, Bake: 15 * time.Minute}, {Name: "all", Hosts: fleet.Percent(100), Min: 1},
		},
		MaxConcurrent: 10, MaxPerZone: fleet.Percent(100), HealthTimeout: 5 * time.Minute, MaxFailures: fleet.Percent(2), OnFailure: fleet.OnFailurePause,
	})
	if err := d.Begin("v2", speed, "alice@desk", noon); err != nil {
		t.Fatal(err)
	}
	r := d.Rollout
	d.Zones = map[world.Zone]state.Zone{"p/a": {Hosts: 60}, "p/b": {Hosts: 40, Unknown: "UNREACHABLE"}}
	for i := range 2 {
		r.Waves[i].Members = world.Set{}
	}
	for i := range 50 {
		id := world.ID(fmt.Sprintf("p/a/h%02d", i))
		if i < 10 {
			r.Done.Add(id)
			r.Waves[0].Members.Add(id)
		} else {
			r.Waves[1].Members.Add(id)
		}
	}
	r.Waves[0].Size, r.Waves[0].Started, r.Waves[0].Changed, r.Waves[0].Ended = 10, noon, noon.Add(10*time.Minute), noon.Add(40*time.Minute)
	r.Waves[1].Size, r.Waves[1].Started = 40, noon.Add(40*time.Minute)
	r.Wave = 1
	r.Failed["p/a/h10"] = state.Failure{Reason: "bad block", At: noon, Wave: 1}
	r.Changing = map[world.ID]state.Change{"p/a/h11": {Step: "attaching", Since: noon}}
	d.Lease = &state.Lease{Owner: "o", Holder: "alice@desk", Purpose: "rollout", Renewed: noon.Add(42 * time.Minute), TTL: state.Duration(30 * time.Second)}
	return d
}

// TestAbortedIsMixed does not call a version deployed that only some hosts have.
func TestAbortedIsMixed(t *testing.T) {
	d := midway(t)
	d.End(state.Aborted, "enough", noon)
	var text strings.Builder
	if err := Of(d, noon).Text(&text); err != nil {
		t.Fatal(err)
	}
	if want := "deployed: mixed: the rollout to v2 was aborted: 10 hosts have v2, the others v1"; !strings.Contains(text.String(), want) {
		t.Errorf("no %q in\n%s", want, text.String())
	}
}

// TestAbortedWhileTheFirstHostsChanged does not either where none was done yet: they
// may run the version all the same.
func TestAbortedWhileTheFirstHostsChanged(t *testing.T) {
	d := midway(t)
	clear(d.Rollout.Done)
	clear(d.Rollout.Failed)
	d.Rollout.Waves[0].Started = noon
	d.End(state.Aborted, "enough", noon)
	if s := Of(d, noon); s.Mixed == "" {
		t.Errorf("%s is deployed, although hosts were in change", s.Deployed)
	}
}

func TestOf(t *testing.T) {
	s := Of(midway(t), noon.Add(42*time.Minute))
	r := s.Rollout
	if r.Hosts != 100 || r.Done != 10 || r.Changing != 1 || r.Failed != 1 || s.Silent {
		t.Errorf("%+v", s)
	}
	for i, want := range []Wave{
		{Name: "canary", State: Over, Hosts: 10, Done: 10}, {Name: "half", State: Changing, Hosts: 40, Changing: 1, Failed: 1}, {Name: "all", State: Pending, Hosts: 50},
	} {
		w := r.Waves[i]
		if w.Name != want.Name || w.State != want.State || w.Hosts != want.Hosts || w.Done != want.Done || w.Failed != want.Failed || w.Changing != want.Changing {
			t.Errorf("wave %d: %+v", i, w)
		}
	}
	// 89 hosts at a host in 1.2 minutes, and a quarter of an hour of bake.
	if eta := time.Duration(*r.ETASeconds) * time.Second; eta < 115*time.Minute || eta > 130*time.Minute {
		t.Errorf("about %s left", eta)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
	var text strings.Builder
	if err := s.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"rollout from v1 to v2: RUNNING", "10 of 100 hosts done", "p/a/h10", "bad block", "unknown: UNREACHABLE", "alice@desk"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestSilentController(t *testing.T) {
	s := Of(midway(t), noon.Add(50*time.Minute))
	var text strings.Builder
	if err := s.Text(&text); err != nil || !s.Silent || !strings.Contains(text.String(), "silent for 8m0s") {
		t.Errorf("%v, %v\n%s", err, s.Silent, text.String())
	}
}

func TestPaused(t *testing.T) {
	d := midway(t)
	d.Rollout.Stop("too many failed", noon)
	s := Of(d, noon)
	var text strings.Builder
	if err := s.Text(&text); err != nil || s.Rollout.ETASeconds != nil || !strings.Contains(text.String(), "PAUSED\nwhy: too many failed") || !strings.Contains(text.String(), "next: bigdisk rollout resume") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func ExampleOf() {
	s := Of(state.New("nixmodules"), noon)
	fmt.Println(s.Service, s.Rollout == nil, s.Controller == "")
	// Output: nixmodules true true
}
