package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/world"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func testSpeed() Speed {
	return SpeedOf(fleet.Rollout{
		Waves:         []fleet.Wave{{Name: "canary", Hosts: fleet.Percent(1), Min: 1, Bake: 30 * time.Minute}, {Name: "all", Hosts: fleet.Percent(100), Min: 1}},
		MaxConcurrent: 50, MaxPerZone: fleet.Percent(20), HealthTimeout: 5 * time.Minute, MaxFailures: fleet.Percent(2),
		OnFailure: fleet.OnFailurePause, KeepPrevious: true,
	})
}

// full is a document with everything in it.
func full(t testing.TB) *Document {
	t.Helper()
	d := New("nixmodules")
	d.Deployed = "v1"
	if err := d.Begin("v2", testSpeed(), "alice@desk", noon); err != nil {
		t.Fatal(err)
	}
	id := world.IDOf("prod-1", "us-central1-a", "host-1")
	d.Rollout.Waves[0].Members = world.SetOf(id)
	d.Rollout.Waves[0].BakeUntil = noon.Add(time.Hour)
	d.Rollout.Done = world.SetOf(id, "prod-1/us-central1-b/host-2")
	d.Rollout.Failed = map[world.ID]Failure{"prod-1/us-central1-b/host-3": {Reason: "no", At: noon, Incarnation: 7}}
	d.Zones = map[world.Zone]Zone{"prod-1/us-central1-a": {Hosts: 3}}
	d.Lease = &Lease{Owner: "o", Holder: "alice@desk", Beat: 3, TTL: Duration(time.Minute), Acquired: noon, Renewed: noon}
	speed := RollbackSpeed(testSpeed())
	d.Request = &Request{ID: "r", Action: Rollback, By: "bob", At: noon, Plan: &speed}
	return d
}

func TestRoundTrip(t *testing.T) {
	d := full(t)
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(text, "nixmodules")
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("%v\n%s\n%s", err, text, again)
	}
	if !strings.Contains(string(text), `"done":{"prod-1/us-central1-a":["host-1"],"prod-1/us-central1-b":["host-2"]}`) {
		t.Errorf("hosts are not grouped by zone: %s", text)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := full(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"a torn write", string(good[len(good)/2:]), "", "unexpected end"},
		{"another service", `"service":"nixmodules"`, `"service":"other"`, `of service "other"`},
		{"a newer schema", `"schema":1`, `"schema":2`, "schema 2"},
		{"an unknown field", `"schema":1`, `"schema":1,"color":"red"`, "color"},
		{"something after it", string(good), string(good) + "{}", "after"},
		{"an unknown phase", `"phase":"running"`, `"phase":"walking"`, "walking"},
		{"a wave that is not there", `"wave":0,"waves"`, `"wave":9,"waves"`, "wave 9"},
		{"no lease owner", `"owner":"o"`, `"owner":""`, "owner"},
		{"a host without a name", `["host-2"]`, `[""]`, "not the name of a host"},
		{"a negative duration", `"ttl":"1m0s"`, `"ttl":"-1m0s"`, "negative"},
		{"a request for nothing", `"action":"rollback"`, `"action":"dance"`, "dance"},
	} {
		text := strings.Replace(string(good), c.old, c.new, 1)
		if text == string(good) {
			t.Errorf("%s: the case changes nothing", c.name)
		}
		if _, err := Decode([]byte(text), "nixmodules"); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := full(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"schema":1,"service":"nixmodules"}`))
	f.Add([]byte(`{"schema":1,"service":"nixmodules","rollout":{"phase":"running","kind":"rollout","version":"v","waves":[]}}`))
	f.Add([]byte(`{"schema":1e9}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Decode(text, "nixmodules")
		if err != nil {
			return
		}
		once, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(once, "nixmodules")
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if twice, err := back.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
		d.Versions()
		d.Desired("p/z/h")
		for _, action := range []string{Pause, Resume, Abort, Rollback} {
			speed := RollbackSpeed(testSpeed())
			if back, err := d.Clone(); err == nil {
				_ = back.Apply(&Request{Action: action, Plan: &speed}, noon)
				if _, err := back.Encode(); err != nil {
					t.Fatalf("after %s: %v", action, err)
				}
			}
		}
	})
}

func TestMoves(t *testing.T) {
	speed := RollbackSpeed(testSpeed())
	ask := func(action string) func(*Document) error {
		return func(d *Document) error {
			return d.Apply(&Request{Action: action, By: "bob", Reason: "why", Plan: &speed}, noon)
		}
	}
	begin := func(version string) func(*Document) error {
		return func(d *Document) error { return d.Begin(version, testSpeed(), "alice", noon) }
	}
	end := func(d *Document) error { d.End(Done, "", noon); return nil }
	for _, c := range []struct {
		name    string
		moves   []func(*Document) error
		refused bool // the last move
		phase   string
		now     string // deployed
	}{
		{"begin", []func(*Document) error{begin("v2")}, false, Running, "v1"},
		{"what is deployed", []func(*Document) error{begin("v1")}, true, "", "v1"},
		{"two at once", []func(*Document) error{begin("v2"), begin("v3")}, true, Running, "v1"},
		{"to the end", []func(*Document) error{begin("v2"), end}, false, Done, "v2"},
		{"pause and resume", []func(*Document) error{begin("v2"), ask(Pause), ask(Resume)}, false, Running, "v1"},
		{"begin while paused", []func(*Document) error{begin("v2"), ask(Pause), begin("v3")}, true, Paused, "v1"},
		{"abort", []func(*Document) error{begin("v2"), ask(Abort)}, false, Aborted, "v1"},
		{"begin after abort", []func(*Document) error{begin("v2"), ask(Abort), begin("v3")}, false, Running, "v1"},
		{"pause what ended", []func(*Document) error{begin("v2"), end, ask(Pause)}, true, Done, "v2"},
		{"roll back what runs", []func(*Document) error{begin("v2"), ask(Rollback)}, false, Running, "v1"},
		{"roll back to the end", []func(*Document) error{begin("v2"), ask(Rollback), end}, false, Done, "v1"},
		{"roll back what is done", []func(*Document) error{begin("v2"), end, ask(Rollback), end}, false, Done, "v1"},
		{"roll back what was aborted", []func(*Document) error{begin("v2"), ask(Abort), ask(Rollback)}, false, Running, "v1"},
		{"roll back a rollback", []func(*Document) error{begin("v2"), ask(Rollback), ask(Rollback)}, true, Running, "v1"},
		{"nothing to roll back", []func(*Document) error{ask(Rollback)}, true, "", "v1"},
	} {
		d := New("nixmodules")
		d.Deployed = "v1"
		var err error
		for i, move := range c.moves {
			if err = move(d); err != nil && i < len(c.moves)-1 {
				t.Fatalf("%s: move %d: %v", c.name, i, err)
			}
		}
		if errors.Is(err, ErrRefused) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
		phase := ""
		if d.Rollout != nil {
			phase = d.Rollout.Phase
		}
		if phase != c.phase || d.Deployed != c.now {
			t.Errorf("%s: %s, deployed %s", c.name, phase, d.Deployed)
		}
		if _, err := d.Encode(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestWhatIsReferredTo(t *testing.T) {
	d := New("nixmodules")
	d.Deployed = "v1"
	speed := testSpeed()
	for _, version := range []string{"v2", "v3"} {
		if err := d.Begin(version, speed, "", noon); err != nil {
			t.Fatal(err)
		}
		d.End(Done, "", noon)
	}
	if err := d.Begin("v4", speed, "", noon); err != nil {
		t.Fatal(err)
	}
	d.End(Aborted, "", noon)
	got := d.Versions()
	slices.Sort(got)
	if !slices.Equal(got, []string{"v2", "v3", "v4"}) {
		t.Errorf("got %v", got)
	}
	d.Rollout.Done.Add("p/z/moved")
	for id, want := range map[world.ID]string{"p/z/moved": "v4", "p/z/left": "v3"} {
		if v, _ := d.Desired(id); v != want {
			t.Errorf("%s should have %s, got %s", id, want, v)
		}
	}
}

func TestBoundedHistory(t *testing.T) {
	d := New("nixmodules")
	for i := range 3 * MaxHistory {
		if err := d.Begin([]string{"a", "b"}[i%2], testSpeed(), "", noon); err != nil {
			t.Fatal(err)
		}
		for range 2 * MaxEvents {
			d.Rollout.Note(noon, "x")
		}
		d.End(Done, "", noon)
	}
	if len(d.History) != MaxHistory || len(d.Rollout.Events) != MaxEvents {
		t.Errorf("%d in the history, %d events", len(d.History), len(d.Rollout.Events))
	}
}

func TestSizeOfTenThousandHosts(t *testing.T) {
	d := full(t)
	for i := range 10_000 {
		d.Rollout.Done.Add(world.IDOf("prod-1", "us-central1-"+string(rune('a'+i%20)), "repl-host-"+string(rune('a'+i%26))+strings.Repeat("x", i%4)+json.Number(string(rune('0'+i%10))).String()+time.Duration(i).String()))
	}
	text, err := d.Encode()
	if err != nil || len(text) > 400_000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// TestHundredThousandFailedHosts has all hosts of a large fleet say at length why
// they are not well, to the rollout and to the reconciliation: the document can still be written.
func TestHundredThousandFailedHosts(t *testing.T) {
	d := full(t)
	d.Rollout.Failed, d.Reconcile = map[world.ID]Failure{}, &Reconcile{Sick: map[world.ID]Failure{}}
	why := Failure{Reason: strings.Repeat("é", 250), At: noon, Incarnation: 1 << 62}
	for i := range 100_000 {
		id := world.IDOf("production-project-1", "northamerica-northeast1-a", fmt.Sprintf("repl-host-group-%06d", i))
		d.Rollout.Failed[id], d.Reconcile.Sick[id] = why, why
	}
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(text, d.Service)
	if err != nil || len(again.Rollout.Failed) != 100_000 || len(again.Reconcile.Sick) != 100_000 {
		t.Errorf("%d bytes; read again: %v", len(text), err)
	}
	t.Logf("%d MB", len(text)>>20)
	if got := d.Rollout.Failed[world.IDOf("production-project-1", "northamerica-northeast1-a", "repl-host-group-000001")]; got != why {
		t.Errorf("writing has changed the document: %v", got)
	}
}
