package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

func waves(shares ...string) []state.WaveConfig {
	var all []state.WaveConfig
	for i, s := range shares {
		share, err := fleet.ParseShare(s)
		if err != nil {
			panic(err)
		}
		all = append(all, state.WaveConfig{Name: fmt.Sprint("w", i), Hosts: share, Min: 1})
	}
	return all
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		waves []state.WaveConfig
		hosts int
		want  []int
	}{
		{waves("1%", "10%", "100%"), 2000, []int{20, 180, 1800}},
		{waves("1%", "10%", "100%"), 20, []int{1, 1, 18}},
		{waves("1%", "10%", "100%"), 1, []int{1, 0, 0}},
		{waves("1%", "10%", "100%"), 0, []int{0, 0, 0}},
		{waves("5", "5", "100%"), 8, []int{5, 0, 3}},
		{waves("50", "10%", "100%"), 40, []int{40, 0, 0}},
		{waves("100%"), 7, []int{7}},
	} {
		if got := Sizes(c.waves, c.hosts); !slices.Equal(got, c.want) {
			t.Errorf("%d hosts: got %v, want %v", c.hosts, got, c.want)
		}
	}
}

// TestMembers has hosts come and go between waves: no host is in two waves, and
// together with those before each wave has what it asks for.
func TestMembers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		r := &state.Rollout{Version: "v2", Speed: state.Speed{Waves: waves("1%", "10%", "40%", "100%")}, Waves: make([]state.Wave, 4)}
		var hosts []world.ID
		for i := range rng.IntN(300) {
			hosts = append(hosts, world.ID(fmt.Sprintf("p/z/h%d", i)))
		}
		seen := world.Set{}
		for i := range 3 {
			r.Waves[i].Members = Members(r, i, hosts)
			for id := range r.Waves[i].Members {
				if seen.Has(id) || !InWave(r, i, id) || r.WaveOf(id) != i {
					t.Fatalf("%s is in two waves", id)
				}
				seen.Add(id)
			}
			want := 0
			for _, n := range Sizes(r.Speed.Waves, len(hosts))[:i+1] {
				want += n
			}
			if got := present(seen, hosts); got < want {
				t.Fatalf("wave %d: %d of %d hosts, and %d are wanted", i, got, len(hosts), want)
			}
			rng.Shuffle(len(hosts), func(a, b int) { hosts[a], hosts[b] = hosts[b], hosts[a] })
			hosts = hosts[:rng.IntN(len(hosts)+1)]
			for j := range rng.IntN(20) {
				hosts = append(hosts, world.ID(fmt.Sprintf("p/z/new%d-%d", i, j)))
			}
		}
		if Members(r, 3, hosts) != nil || !InWave(r, 3, "p/z/anyone") {
			t.Fatal("the last wave is for everyone")
		}
	}
}

// TestTurn has a rollback begin with hosts that can be healed, and end with the
// sick ones.
func TestTurn(t *testing.T) {
	w := world.New()
	r := &state.Rollout{Kind: state.KindRollback, Version: "v1", Previous: "v2", Sick: world.Set{}}
	for i := range 40 {
		id := world.ID(fmt.Sprintf("p/z/h%d", i))
		w.Hosts[id] = &world.Host{ID: id, Attachments: []world.Attachment{{Version: "v1"}}}
		if i%4 == 0 {
			w.Hosts[id].Attachments = append(w.Hosts[id].Attachments, world.Attachment{Version: "v2"})
		}
		if i%8 == 0 {
			r.Sick.Add(id)
		}
	}
	got := Turn(r, w)
	for i, id := range got {
		want := 1
		if w.Hosts[id].Has("v2") {
			want = 0
		}
		if r.Sick.Has(id) {
			want = 2
		}
		if is := map[bool]int{i < 5: 0, i >= 5 && i < 35: 1, i >= 35: 2}[true]; is != want {
			t.Errorf("host %d of the rollback is %s, of kind %d", i, id, want)
		}
	}
	r.Kind = state.KindRollout
	if !slices.Equal(Turn(r, w), Order("v1", got)) {
		t.Error("a rollout has an order of its own")
	}
}

func fleetOf(hostsPerDisk int, zones ...string) *fleet.Config {
	cfg := &fleet.Config{Service: "svc", Targets: []fleet.Target{{Project: "p"}}, Rollout: fleet.Rollout{
		Waves:         []fleet.Wave{{Name: "canary", Hosts: fleet.Percent(10), Min: 1, Bake: time.Minute}, {Name: "all", Hosts: fleet.Percent(100)}},
		MaxConcurrent: 10, MaxPerZone: fleet.Percent(20), HealthTimeout: time.Minute, MaxFailures: fleet.Percent(2), OnFailure: fleet.OnFailurePause,
	}}
	for _, z := range zones {
		cfg.Targets[0].Zones = append(cfg.Targets[0].Zones, fleet.Zone{Name: z, HostsPerDisk: hostsPerDisk, Copies: 1})
	}
	return cfg
}

func addDisk(w *world.World, zone string, n int, users ...world.ID) *world.Disk {
	d := &world.Disk{ID: world.IDOf("p", zone, fleet.DiskName("svc", "v2", zone, n)), Version: "v2", Copy: n, Ready: true, Users: users}
	w.Disks[d.ID] = d
	return d
}

// TestSeats gives hosts seats until none is left, with copies made as the plan
// says: nobody stands, no disk is over its limit, and who has a seat keeps it.
func TestSeats(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 300 {
		limit := 1 + rng.IntN(12)
		cfg, w := fleetOf(limit, "a"), world.New()
		strangers := make([]world.ID, rng.IntN(limit+1))
		for i := range strangers {
			strangers[i] = world.ID(fmt.Sprintf("p/a/stranger%d", i))
		}
		first := addDisk(w, "a", 1, strangers...)
		var hosts []world.ID
		for i := range rng.IntN(60) {
			id := world.ID(fmt.Sprintf("p/a/h%d", i))
			h := &world.Host{ID: id}
			if i < limit-len(strangers) && rng.IntN(2) == 0 {
				h.Attachments = []world.Attachment{{Device: "svc-v2", Disk: first.ID, Version: "v2", ReadOnly: true}}
			}
			w.Hosts[id] = h
			hosts = append(hosts, id)
		}
		for _, c := range NewSeats(cfg, "v2", w, nil, false).Missing("p/a", "v2", hosts) {
			addDisk(w, "a", c.Copy)
		}
		seats := NewSeats(cfg, "v2", w, nil, false)
		if more := seats.Missing("p/a", "v2", hosts); len(more) > 0 {
			t.Fatalf("%d hosts at %d a disk: %d copies more", len(hosts), limit, len(more))
		}
		for _, id := range hosts {
			disk, ok := seats.Take(id)
			if again, _ := seats.Take(id); !ok || again != disk {
				t.Fatalf("%s has no seat, or another one when it asks again", id)
			}
			if len(w.Hosts[id].Attachments) > 0 && disk != first.ID {
				t.Fatalf("%s has to leave its disk", id)
			}
		}
		for id := range w.Disks {
			if n := seats.Readers(id); n > limit {
				t.Fatalf("%s has %d readers of %d", id, n, limit)
			}
		}
		if want := (len(hosts) + len(strangers) + limit - 1) / limit; len(w.Disks) > max(want, 1) {
			t.Fatalf("%d disks, and %d would do", len(w.Disks), want)
		}
	}
}

// TestSecondSeats has hosts with the version below another one: each gets a disk
// that it does not have yet, and is not too many for it.
func TestSecondSeats(t *testing.T) {
	for hosts := range 30 {
		cfg, w := fleetOf(10, "a"), world.New()
		var ids []world.ID
		for i := range hosts {
			id := world.ID(fmt.Sprintf("p/a/h%d", i))
			disk := world.IDOf("p", "a", fleet.DiskName("svc", "v2", "a", 1+i/10))
			if w.Disks[disk] == nil {
				addDisk(w, "a", 1+i/10)
			}
			w.Disks[disk].Users = append(w.Disks[disk].Users, id)
			w.Hosts[id] = &world.Host{ID: id, Attachments: []world.Attachment{{Device: "svc-v2", Disk: disk, Version: "v2"}, {Device: "svc-v3", Version: "v3"}}}
			ids = append(ids, id)
		}
		promised := map[world.ID]world.ID{}
		var seats *Seats
		for range 2 { // in the order in which they come, a few may find only what they have
			for _, c := range NewSeats(cfg, "v2", w, promised, true).Missing("p/a", "v2", ids) {
				addDisk(w, "a", c.Copy)
			}
			seats = NewSeats(cfg, "v2", w, promised, true)
			for _, id := range ids {
				if disk, ok := seats.Take(id); ok {
					promised[id] = disk
				}
			}
		}
		for _, id := range ids {
			if disk := promised[id]; disk == "" || disk == w.Hosts[id].Attachments[0].Disk {
				t.Fatalf("of %d hosts, %s is given %q", hosts, id, disk)
			}
		}
		for id := range w.Disks {
			if n := seats.Readers(id); n > 10 {
				t.Errorf("%s has %d readers", id, n)
			}
		}
		if want := (2*hosts + 9) / 10; len(w.Disks) > want+2 {
			t.Errorf("%d hosts get %d disks", hosts, len(w.Disks))
		}
	}
}

func TestCopiesTakeFreeNumbers(t *testing.T) {
	cfg, w := fleetOf(2, "a"), world.New()
	failed := addDisk(w, "a", 1)
	failed.Failed, failed.Ready = true, false
	addDisk(w, "a", 3).Ready = false
	hosts := []world.ID{"p/a/1", "p/a/2", "p/a/3", "p/a/4", "p/a/5"}
	var numbers []int
	for _, c := range NewSeats(cfg, "v2", w, nil, false).Missing("p/a", "v2", hosts) {
		numbers = append(numbers, c.Copy)
	}
	if !slices.Equal(numbers, []int{2, 4}) {
		t.Errorf("got copies %v", numbers)
	}
	if _, ok := NewSeats(cfg, "v2", w, nil, false).Take("p/a/1"); ok {
		t.Error("a seat at a disk that is not ready")
	}
}

func TestMake(t *testing.T) {
	cfg, w := fleetOf(10, "a", "b", "c"), world.New()
	d := state.New("svc")
	d.Deployed = "v1"
	addDisk(w, "a", 1)
	addDisk(w, "c", 1).Failed = true
	w.Unknown["p/b"] = "UNREACHABLE"
	for i := range 25 {
		id := world.ID(fmt.Sprintf("p/a/h%02d", i))
		w.Hosts[id] = &world.Host{ID: id}
	}
	p, err := Make(cfg, d, w, "v2")
	if err != nil {
		t.Fatal(err)
	}
	if p.Hosts != 25 || p.Attachments != 25 || len(p.Disks) != 2 || p.Waves[0].Hosts != 2 || len(p.Waves[0].First) != 2 || p.Zones[0].AtOnce != 5 {
		t.Errorf("%+v", p)
	}
	blockers := strings.Join(p.Blockers, "\n")
	for _, want := range []string{"p/b cannot be read", "svc-v2-c-1 failed"} {
		if !strings.Contains(blockers, want) {
			t.Errorf("%q is not among %q", want, blockers)
		}
	}
	var text strings.Builder
	if err := p.Text(&text); err != nil || !strings.Contains(text.String(), "in its way") {
		t.Errorf("%v\n%s", err, text.String())
	}
	if err := d.Begin("v3", state.SpeedOf(cfg.Rollout), "", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if p, err = Make(cfg, d, w, "v2"); err != nil || len(p.Blockers) == 0 || !strings.Contains(p.Blockers[0], "v3 is running") {
		t.Errorf("with another rollout under way: %v, %+v", err, p)
	}
}

func BenchmarkMembers(b *testing.B) {
	r := &state.Rollout{Version: "v2", Speed: state.Speed{Waves: waves("1%", "10%", "100%")}, Waves: make([]state.Wave, 3)}
	hosts := make([]world.ID, 10_000)
	for i := range hosts {
		hosts[i] = world.ID(fmt.Sprintf("p/z/host-%d", i))
	}
	for b.Loop() {
		Members(r, 0, hosts)
	}
}
