// Package state is the document that a rollout is remembered by: one JSON
// object per service, in Cloud Storage. It holds what cannot be read from the
// fleet itself: which version is being rolled out, which hosts belong to which
// wave, who is done, since when a wave bakes, what failed, who holds the lease
// and what other processes ask of it. What is in flight on a host is not in
// here; it is found again by reading the instance.
//
// Bytes go in through [Decode], which refuses what it does not know, and come
// out of [Document.Encode]. The package talks to nobody; package lease reads and
// writes the document.
package state

import (
	"slices"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/world"
)

// Schema is the version of the document's form that this package writes.
const Schema = 1

// Document is everything that is remembered about a service.
type Document struct {
	// Schema is [Schema].
	Schema int `json:"schema"`
	// Service is the service's name.
	Service string `json:"service"`
	// Lease is who works on the service now; nil if nobody does.
	Lease *Lease `json:"lease,omitempty"`
	// Request is what another process asks of the controller, until it has
	// done so.
	Request *Request `json:"request,omitempty"`
	// Answered is the ID of the last request that was dealt with, and Answer
	// why it was refused; "" if it was not.
	Answered string `json:"answered,omitempty"`
	Answer   string `json:"answer,omitempty"`
	// Deployed is the version of the last rollout or rollback that ended well:
	// what hosts should have, unless [Document.Mixed]. "" before the first one.
	Deployed string `json:"deployed,omitempty"`
	// Rollout is the last rollout, running or ended; nil before the first one.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Zones is how many hosts each zone had when it was last looked at.
	Zones map[world.Zone]Zone `json:"zones,omitempty"`
	// Reconcile is what the last reconciliation found.
	Reconcile *Reconcile `json:"reconcile,omitempty"`
	// History has the rollouts that ended, oldest first, [MaxHistory] at most.
	History []Past `json:"history,omitempty"`
}

// MaxHistory is how many ended rollouts are remembered.
const MaxHistory = 100

// Lease says which process may change hosts.
type Lease struct {
	// Owner is the process's own random ID.
	Owner string `json:"owner"`
	// Holder says it for people: USER@HOST, process ID.
	Holder string `json:"holder"`
	// Purpose is what the holder is doing: "rollout" or "reconcile".
	Purpose string `json:"purpose"`
	// Acquired is when it took the lease, and Renewed its last heartbeat, by
	// its clock.
	Acquired time.Time `json:"acquired"`
	Renewed  time.Time `json:"renewed"`
	// Beat counts heartbeats. Others tell by it that the holder lives, without
	// comparing clocks.
	Beat int64 `json:"beat"`
	// TTL is how long Beat may stand still before others take the lease.
	TTL Duration `json:"ttl"`
}

// What can be asked for in a [Request].
const (
	Pause    = "pause"
	Resume   = "resume"
	Abort    = "abort"
	Rollback = "rollback"
	// Yield asks a reconcile service to give the lease to who wants to carry out
	// a rollout, and to come back when that is over. It changes nothing in the
	// document.
	Yield = "yield"
)

// Request is what a process without the lease asks of the one that has it.
type Request struct {
	// ID is the request's own random ID.
	ID     string    `json:"id"`
	Action string    `json:"action"` // one of those above
	By     string    `json:"by"`     // for people: USER@HOST
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	// Plan are a rollback's waves and speed; nil for anything else.
	Plan *Speed `json:"plan,omitempty"`
}

// Speed is how fast hosts are changed.
type Speed struct {
	Waves         []WaveConfig `json:"waves"`
	MaxConcurrent int          `json:"maxConcurrent"`
	MaxPerZone    fleet.Share  `json:"maxPerZone"`
	HealthTimeout Duration     `json:"healthTimeout"`
	MaxFailures   fleet.Share  `json:"maxFailures"`
	OnFailure     string       `json:"onFailure"`
	KeepPrevious  bool         `json:"keepPrevious"`
}

// WaveConfig is what a wave was asked to be.
type WaveConfig struct {
	Name  string      `json:"name"`
	Hosts fleet.Share `json:"hosts"`
	Min   int         `json:"min,omitempty"`
	Bake  Duration    `json:"bake,omitempty"`
}

// The kinds of rollouts.
const (
	KindRollout  = "rollout"
	KindRollback = "rollback"
)

// The phases of a rollout.
const (
	Running    = "running"
	Paused     = "paused"
	Done       = "done"
	Aborted    = "aborted"
	RolledBack = "rolled back" // ended by a rollback that took its place
)

// Rollout is one version's way onto the hosts.
type Rollout struct {
	// ID is the time it was made and the version, unique in the history.
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Version is where hosts go, Previous what they come from and may keep; ""
	// if there was none.
	Version  string `json:"version"`
	Previous string `json:"previous,omitempty"`
	Phase    string `json:"phase"`
	// Reason is why it is paused, aborted or rolled back.
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Reattach is set when hosts may have Version attached from before the last
	// rollout, and so below a newer one.
	Reattach bool `json:"reattach,omitempty"`
	// Speed was taken from the configuration when it started.
	Speed Speed `json:"speed"`
	// Wave is the index of the wave under way; len(Waves) after the last.
	Wave  int    `json:"wave"`
	Waves []Wave `json:"waves"`
	// Done has the hosts that reported the version healthy and need nothing
	// more.
	Done world.Set `json:"done"`
	// Failed has the hosts that did not, and why.
	Failed map[world.ID]Failure `json:"failed,omitempty"`
	// Sick are, in a rollback, the hosts that were sick when it began.
	Sick world.Set `json:"sick,omitempty"`
	// Changing are the hosts that were in change when the document was
	// written: for people to read, never to act on.
	Changing map[world.ID]Change `json:"changing,omitempty"`
	// Waiting says what the wave waits for, besides hosts in change.
	Waiting []string `json:"waiting,omitempty"`
	// Events are what happened, oldest first, [MaxEvents] at most.
	Events []Event `json:"events,omitempty"`
}

// MaxEvents is how many events of a rollout are remembered.
const MaxEvents = 100

// Wave is a wave of a rollout.
type Wave struct {
	WaveConfig
	// Members are its hosts, fixed when it starts. Empty in waves to come, and
	// in the last wave, which is for all hosts that no wave had before.
	Members world.Set `json:"members,omitempty"`
	// Size is how many hosts it was planned to have.
	Size int `json:"size"`
	// Started is when it began, and Changed when its last host was done. Zero
	// before that.
	Started time.Time `json:"started,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	// Watched is how long controllers have watched it bake, and BakeUntil when it
	// will have been watched for its whole bake if one goes on to.
	Watched   Duration  `json:"watched,omitempty"`
	BakeUntil time.Time `json:"bakeUntil,omitzero"`
	// Ended is when it was over.
	Ended time.Time `json:"ended,omitzero"`
}

// Failure is why a host failed.
type Failure struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// Wave is the index of the wave it counts for.
	Wave int `json:"wave"`
	// Incarnation is the instance's numeric id.
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// Change is what a host in change is at.
type Change struct {
	Step  string    `json:"step"`
	Since time.Time `json:"since"`
}

// Event is something that happened to a rollout.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Zone is what a zone looked like.
type Zone struct {
	Hosts int `json:"hosts"`
	// Unknown is why the zone could not be read; "" if it could.
	Unknown string `json:"unknown,omitempty"`
}

// Reconcile is what a reconciliation found and did.
type Reconcile struct {
	At time.Time `json:"at"`
	// Hosts is how many hosts were looked at, Right those that had what they
	// should, and Repaired those that were given it.
	Hosts    int                  `json:"hosts"`
	Right    int                  `json:"right"`
	Repaired int                  `json:"repaired"`
	Failed   map[world.ID]Failure `json:"failed,omitempty"`
	// Sick has hosts that have what they should, and are not well.
	Sick map[world.ID]Failure `json:"sick,omitempty"`
	// Stopped is why it gave up; "" if it did not.
	Stopped string `json:"stopped,omitempty"`
}

// sick lists the hosts that are known not to be well.
func (d *Document) sick() world.Set {
	sick := world.Set{}
	for id := range d.Rollout.Failed {
		sick.Add(id)
	}
	if d.Reconcile != nil {
		for _, hosts := range []map[world.ID]Failure{d.Reconcile.Failed, d.Reconcile.Sick} {
			for id := range hosts {
				sick.Add(id)
			}
		}
	}
	return sick
}

// Past is a rollout that ended.
type Past struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Version  string    `json:"version"`
	Previous string    `json:"previous,omitempty"`
	Phase    string    `json:"phase"`
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Done     int       `json:"done"`
	Failed   int       `json:"failed"`
}

// New returns the document of a service that nothing has happened to.
func New(service string) *Document {
	return &Document{Schema: Schema, Service: service}
}

// Active reports whether the rollout has not ended.
func (r *Rollout) Active() bool { return r != nil && (r.Phase == Running || r.Phase == Paused) }

// Note remembers an event.
func (r *Rollout) Note(at time.Time, text string) {
	r.Events = append(r.Events, Event{at, text})
	if extra := len(r.Events) - MaxEvents; extra > 0 {
		r.Events = slices.Delete(r.Events, 0, extra)
	}
}

// WaveOf is the index of the wave that a host belongs to: one that has begun
// and lists it, or else the last.
func (r *Rollout) WaveOf(id world.ID) int {
	for i := range r.Waves {
		if r.Waves[i].Members.Has(id) {
			return i
		}
	}
	return len(r.Waves) - 1
}

// End ends the rollout and puts it into the history.
func (d *Document) End(phase, reason string, at time.Time) {
	r := d.Rollout
	r.Phase, r.Reason, r.Ended, r.Changing, r.Waiting = phase, reason, at, nil, nil
	if phase == Done {
		d.Deployed = r.Version
	}
	d.History = append(d.History, Past{
		ID: r.ID, Kind: r.Kind, Version: r.Version, Previous: r.Previous, Phase: phase, Reason: reason, By: r.By,
		Started: r.Started, Ended: at, Done: len(r.Done), Failed: len(r.Failed),
	})
	if extra := len(d.History) - MaxHistory; extra > 0 {
		d.History = slices.Delete(d.History, 0, extra)
	}
}

// Continues reports whether the last rollout is the one with an ID, or the rollback
// that came right after it.
func (d *Document) Continues(id string) bool {
	r := d.Rollout
	if r == nil || r.ID == id || r.Kind != KindRollback {
		return r != nil && r.ID == id
	}
	before := len(d.History) - 1
	if !r.Active() {
		before-- // the last one is the rollback's own
	}
	return before >= 0 && d.History[before].ID == id
}

// Desired is the version a host should have, and the one it may keep beside
// it; "" if nothing is known about it.
func (d *Document) Desired(id world.ID) (version, previous string) {
	r := d.Rollout
	switch {
	case r == nil:
		return d.Deployed, ""
	case r.Phase == Done || r.Done.Has(id):
		return r.Version, r.Previous
	}
	return r.Previous, ""
}

// Versions lists, without repetition, the versions that something here still
// refers to: what is deployed, the last rollout's two, and those of the last
// one that ended well.
func (d *Document) Versions() []string {
	var versions []string
	add := func(all ...string) {
		for _, v := range all {
			if v != "" && !slices.Contains(versions, v) {
				versions = append(versions, v)
			}
		}
	}
	add(d.Deployed)
	if d.Rollout != nil {
		add(d.Rollout.Version, d.Rollout.Previous)
	}
	for _, p := range slices.Backward(d.History) {
		if p.Phase == Done {
			add(p.Version, p.Previous)
			break
		}
	}
	return versions
}
