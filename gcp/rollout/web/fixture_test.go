package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// sample is a document of a rollout of v12 to 60 hosts in three zones, of which
// done are done: three waves, the first one of 6 hosts.
func sample(now time.Time, done int) *state.Document {
	d := state.New("nixmodules")
	d.Deployed = "v11"
	d.Lease = &state.Lease{Owner: "o", Holder: "ops@builder-1, process 7", Purpose: "rollout", Acquired: now.Add(-time.Hour),
		Renewed: now.Add(-4 * time.Second), Beat: 9, TTL: state.Duration(30 * time.Second)}
	d.History = []state.Past{
		{ID: "1-v10", Kind: state.KindRollout, Version: "v10", Phase: state.Done, Started: now.Add(-300 * time.Hour), Ended: now.Add(-299 * time.Hour), Done: 60},
		{ID: "2-v11b", Kind: state.KindRollout, Version: "v11-rc1", Previous: "v10", Phase: state.RolledBack, Reason: "rolled back by ops: python was missing", Started: now.Add(-100 * time.Hour), Ended: now.Add(-99 * time.Hour), Done: 6, Failed: 2},
		{ID: "3-v11", Kind: state.KindRollout, Version: "v11", Previous: "v10", Phase: state.Done, Started: now.Add(-50 * time.Hour), Ended: now.Add(-49 * time.Hour), Done: 60},
	}
	r := &state.Rollout{
		ID: "4-v12", Kind: state.KindRollout, Version: "v12", Previous: "v11", Phase: state.Running, By: "ops@builder-1", Started: now.Add(-20 * time.Minute),
		Speed: state.Speed{MaxConcurrent: 10, MaxFailures: fleet.Percent(2), Waves: []state.WaveConfig{
			{Name: "canary", Hosts: fleet.Percent(10), Min: 1, Bake: state.Duration(5 * time.Minute)},
			{Name: "half", Hosts: fleet.Percent(50), Bake: state.Duration(10 * time.Minute)}, {Name: "all", Hosts: fleet.Percent(100)},
		}},
		Done: world.Set{}, Failed: map[world.ID]state.Failure{}, Changing: map[world.ID]state.Change{},
	}
	for _, w := range r.Speed.Waves {
		r.Waves = append(r.Waves, state.Wave{WaveConfig: w})
	}
	d.Rollout = r
	d.Zones = map[world.Zone]state.Zone{"prod-1/us-central1-a": {Hosts: 20}, "prod-1/us-west1-b": {Hosts: 20}, "prod-2/europe-west1-b": {Hosts: 20}}
	for n := range done {
		r.Done.Add(hostID(n))
	}
	begin := func(i, size, from int) {
		r.Wave, r.Waves[i].Started, r.Waves[i].Size, r.Waves[i].Members = i, now.Add(-time.Duration(15-5*i)*time.Minute), size, world.Set{}
		for n := from; n < from+size && i < 2; n++ {
			r.Waves[i].Members.Add(hostID(n))
		}
		r.Note(r.Waves[i].Started, fmt.Sprintf("wave %s begun", r.Waves[i].Name))
	}
	begin(0, 6, 0)
	if done >= 6 {
		r.Waves[0].Changed, r.Waves[0].Ended = now.Add(-12*time.Minute), now.Add(-11*time.Minute)
		begin(1, 24, 6)
	}
	for n := done; n < min(done+3, 60); n++ {
		r.Changing[hostID(n)] = state.Change{Step: "waiting for its report", Since: now.Add(-7 * time.Second)}
	}
	return d
}

// hostID spreads hosts over the zones.
func hostID(n int) world.ID {
	zones := []string{"prod-1/us-central1-a", "prod-1/us-west1-b", "prod-2/europe-west1-b"}
	return world.ID(fmt.Sprintf("%s/repl-host-%s-%d", zones[n%3], zones[n%3][7:], n/3))
}

// pause fails a host, and pauses for it.
func pause(d *state.Document, now time.Time) {
	delete(d.Rollout.Changing, hostID(13))
	d.Rollout.Failed[hostID(13)] = state.Failure{Reason: "verify image: block 4711 does not have the hash that it should have <script>alert(1)</script>", At: now.Add(-time.Minute), Wave: 1}
	d.Rollout.Stop("too many hosts of wave half failed: 1, and 0 may", now.Add(-time.Minute))
}

// source is a rollout that goes on a little with every read.
type source struct {
	mu    sync.Mutex
	reads int
	next  func(read int) (*state.Document, error)
}

func (s *source) document(context.Context) (*state.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.next(s.reads)
}

// clock is a time that tests move, or that moves by itself a little with every
// look at it.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	step time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(c.step)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Now()} }

// get asks the handler.
func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// sampleWorld has a disk of each version in each zone, and hosts with them.
func sampleWorld() *world.World {
	w := world.New()
	for i, zone := range []world.Zone{"prod-1/us-central1-a", "prod-1/us-west1-b"} {
		for _, version := range []string{"v11", "v12"} {
			id := world.ID(string(zone) + "/nixmodules-" + version)
			w.Disks[id] = &world.Disk{ID: id, Version: version, Copy: 1, Ready: i == 0 || version == "v11"}
		}
		for n := range 2 {
			id := world.ID(fmt.Sprintf("%s/host-%d", zone, n))
			w.Hosts[id] = &world.Host{ID: id, Attachments: []world.Attachment{{Boot: true}, {Version: "v11"}}}
		}
	}
	w.Unknown["prod-2/europe-west1-b"] = "the zone cannot be reached"
	return w
}
