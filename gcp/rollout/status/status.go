// Package status is what people and pages are told of a service's rollout. The
// document goes in, a [Status] comes out that prints as JSON; it takes one read
// of one object, and nothing of the fleet.
package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// Status is everything there is to tell.
type Status struct {
	Service string `json:"service"`
	// Deployed is the version that hosts should have when nothing is under way.
	Deployed string `json:"deployed,omitempty"`
	// Mixed says what hosts have when the last rollout or rollback was aborted:
	// some its version, the others the one before. "" if it was not.
	Mixed string `json:"mixed,omitempty"`
	// Controller is who works on it now; "" if nobody holds the lease.
	Controller string `json:"controller,omitempty"`
	// Heartbeat is the age of the controller's last sign of life, in seconds,
	// and Silent set when that is longer than its lease lasts.
	Heartbeat float64 `json:"heartbeatSeconds,omitempty"`
	Silent    bool    `json:"silent,omitempty"`
	// Request is what was asked for and is not done yet.
	Request *state.Request `json:"request,omitempty"`
	// Rollout is the last one; nil if there was none.
	Rollout   *Rollout         `json:"rollout,omitempty"`
	Reconcile *state.Reconcile `json:"reconcile,omitempty"`
	// Read is when the document was read.
	Read time.Time `json:"read"`
}

// Rollout is a rollout's progress.
type Rollout struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Version  string    `json:"version"`
	Previous string    `json:"previous,omitempty"`
	Phase    string    `json:"phase"`
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Hosts    int       `json:"hosts"`
	Done     int       `json:"done"`
	Changing int       `json:"changing"`
	Failed   int       `json:"failed"`
	// Waves, Zones, Failing and InChange are the parts.
	Waves    []Wave `json:"waves"`
	Zones    []Zone `json:"zones"`
	Failing  []Host `json:"failing"`
	InChange []Host `json:"inChange"`
	// Waiting says what holds it up, besides hosts in change.
	Waiting []string `json:"waiting,omitempty"`
	// ETASeconds is how long it will take from now, as far as it went; nil if that
	// cannot be told.
	ETASeconds *float64      `json:"etaSeconds,omitempty"`
	Events     []state.Event `json:"events"`
}

// The states of a wave.
const (
	Pending  = "pending"
	Changing = "changing"
	Baking   = "baking"
	Over     = "over"
)

// Wave is a wave's progress.
type Wave struct {
	Name      string    `json:"name"`
	State     string    `json:"state"` // one of those above
	Hosts     int       `json:"hosts"`
	Done      int       `json:"done"`
	Changing  int       `json:"changing"`
	Failed    int       `json:"failed"`
	Allowed   int       `json:"failuresAllowed"`
	Bake      float64   `json:"bakeSeconds"`
	Started   time.Time `json:"started,omitzero"`
	BakeUntil time.Time `json:"bakeUntil,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
}

// Zone is a zone's progress.
type Zone struct {
	Zone     world.Zone `json:"zone"`
	Hosts    int        `json:"hosts"`
	Done     int        `json:"done"`
	Changing int        `json:"changing"`
	Failed   int        `json:"failed"`
	// Unknown is why the zone could not be read.
	Unknown string `json:"unknown,omitempty"`
}

// Host is a host in change or one that failed.
type Host struct {
	Host world.ID  `json:"host"`
	Why  string    `json:"why"` // what it is at, or why it failed
	At   time.Time `json:"at"`  // since when
}

// Of reads a document.
func Of(d *state.Document, now time.Time) *Status {
	s := &Status{
		Service: d.Service, Deployed: d.Deployed, Request: d.Request, Reconcile: d.Reconcile, Read: now,
	}
	if r := d.Rollout; d.Mixed() && (r.Kind == state.KindRollback || len(r.Done)+len(r.Failed) > 0 || !r.Waves[0].Started.IsZero()) {
		s.Mixed = fmt.Sprintf("the %s to %s was aborted: %d hosts have %s, the others %s or something else", r.Kind, r.Version, len(r.Done), r.Version, cmp.Or(r.Previous, "nothing"))
	}
	if l := d.Lease; l != nil {
		s.Controller = lease.Held(l)
		s.Heartbeat = max(0, now.Sub(l.Renewed).Seconds())
		s.Silent = now.Sub(l.Renewed) > time.Duration(l.TTL)
	}
	if d.Rollout != nil {
		s.Rollout = rolloutOf(d, now)
	}
	return s
}

func rolloutOf(d *state.Document, now time.Time) *Rollout {
	r := d.Rollout
	s := &Rollout{
		ID: r.ID, Kind: r.Kind, Version: r.Version, Previous: r.Previous, Phase: r.Phase, Reason: r.Reason, By: r.By,
		Started: r.Started, Ended: r.Ended, Done: len(r.Done), Changing: len(r.Changing), Failed: len(r.Failed),
		Waiting: r.Waiting, Events: r.Events, Waves: waves(d), Zones: zones(d), Failing: []Host{}, InChange: []Host{},
	}
	for _, z := range s.Zones {
		s.Hosts += z.Hosts
	}
	s.Failing = append(s.Failing, listed(r.Failed)...)
	for _, id := range slices.Sorted(maps.Keys(r.Changing)) {
		s.InChange = append(s.InChange, Host{id, r.Changing[id].Step, r.Changing[id].Since})
	}
	if eta, ok := etaOf(r, s, now); ok {
		seconds := eta.Seconds()
		s.ETASeconds = &seconds
	}
	return s
}

// listed puts hosts into order.
func listed(failed map[world.ID]state.Failure) []Host {
	var all []Host
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		all = append(all, Host{id, failed[id].Reason, failed[id].At})
	}
	return all
}

func zones(d *state.Document) []Zone {
	byZone := map[world.Zone]*Zone{}
	at := func(zone world.Zone) *Zone {
		if byZone[zone] == nil {
			byZone[zone] = &Zone{Zone: zone}
		}
		return byZone[zone]
	}
	for zone, z := range d.Zones {
		at(zone).Hosts, at(zone).Unknown = z.Hosts, z.Unknown
	}
	for id := range d.Rollout.Done {
		at(id.Zone()).Done++
	}
	for id := range d.Rollout.Changing {
		at(id.Zone()).Changing++
	}
	for id := range d.Rollout.Failed {
		at(id.Zone()).Failed++
	}
	all := make([]Zone, 0, len(byZone))
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		all = append(all, *byZone[zone])
	}
	return all
}

func waves(d *state.Document) []Wave {
	r := d.Rollout
	all := make([]Wave, len(r.Waves))
	hosts := 0
	for _, z := range d.Zones {
		hosts += z.Hosts
	}
	sizes := plan.Sizes(r.Speed.Waves, hosts)
	for i, w := range r.Waves {
		size := w.Size
		if w.Started.IsZero() {
			size = sizes[i]
		}
		all[i] = Wave{
			Name: w.Name, State: waveState(r, i), Hosts: size, Allowed: plan.FailuresAllowed(r, size),
			Bake: time.Duration(w.Bake).Seconds(), Started: w.Started, BakeUntil: w.BakeUntil, Ended: w.Ended,
		}
	}
	for id := range r.Done {
		all[r.WaveOf(id)].Done++
	}
	for id := range r.Changing {
		all[r.WaveOf(id)].Changing++
	}
	for _, f := range r.Failed {
		all[min(f.Wave, len(all)-1)].Failed++
	}
	return all
}

func waveState(r *state.Rollout, i int) string {
	w := &r.Waves[i]
	switch {
	case !w.Ended.IsZero():
		return Over
	case w.Started.IsZero():
		return Pending
	case !w.Changed.IsZero():
		return Baking
	}
	return Changing
}

// etaOf guesses how long a running rollout will take: the hosts that are left at
// the pace of those that are done, and the bakes to come.
func etaOf(r *state.Rollout, s *Rollout, now time.Time) (time.Duration, bool) {
	if r.Phase != state.Running || s.Done == 0 {
		return 0, false
	}
	var spent, bakes time.Duration
	left := 0
	for i, w := range r.Waves {
		switch s.Waves[i].State {
		case Over:
			spent += w.Changed.Sub(w.Started)
		case Baking:
			spent += w.Changed.Sub(w.Started)
			bakes += max(0, w.BakeUntil.Sub(now))
		case Changing:
			spent += now.Sub(w.Started)
			bakes += time.Duration(w.Bake)
		default:
			bakes += time.Duration(w.Bake)
		}
		if s.Waves[i].State != Over {
			left += max(0, s.Waves[i].Hosts-s.Waves[i].Done-s.Waves[i].Failed)
		}
	}
	return bakes + pace(r, s, spent)*time.Duration(left), true
}

// pace is the time per host: what it took so far, or less where later waves have
// more hosts in change at once.
func pace(r *state.Rollout, s *Rollout, spent time.Duration) time.Duration {
	perHost := spent / time.Duration(s.Done)
	biggest := 1
	for _, w := range s.Waves {
		if w.State != Pending {
			biggest = max(biggest, min(w.Hosts, r.Speed.MaxConcurrent))
		}
	}
	now := s.Waves[min(r.Wave, len(s.Waves)-1)]
	if abreast := min(max(now.Hosts, 1), r.Speed.MaxConcurrent); abreast > biggest {
		perHost = perHost * time.Duration(biggest) / time.Duration(abreast)
	}
	return perHost
}
