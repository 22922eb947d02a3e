// Package hostchange decides what to do next on one host. In go what was read
// just now (what is attached, what the host reports) and the goal; out comes one
// [Action]. Nothing is remembered between two decisions, so that a change goes
// on from wherever it was left, by whichever process looks next.
//
// What it holds to:
//   - a disk of ours is attached READ_ONLY or not at all;
//   - the disk that the host says is in use is never detached, but where a
//     rollback takes a version away from a host that has the target attached;
//   - nothing else is detached before the host reports the target healthy,
//     unless the new disk has no room otherwise and another version is reported
//     to be in use.
package hostchange

import (
	"fmt"
	"slices"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/world"
)

// Goal is what a host should come to.
type Goal struct {
	Service string
	// Version is what the host should run.
	Version string
	// Keep may stay attached beside it; "" for nothing.
	Keep string
	// Leave is what a rollback takes away: the host goes back to Version by
	// itself once the disk that was attached last is gone. "" otherwise.
	Leave string
	// Reattach is set where hosts may have Version attached from before, below
	// a newer one: a host takes what was attached last. Who carries a goal out
	// takes it back once the target was detached for that: a host that stays
	// with another version after that never will take it.
	Reattach bool
}

// Device is the device name of the goal's disk.
func (g Goal) Device() string { return fleet.DeviceName(g.Service, g.Version) }

// Reading is a host's report.
type Reading struct {
	// Report is what the host said; meaningless where Err is set.
	Report guest.Report
	// Err is why there is no report.
	Err error
	// Started is when the instance started, and Touched when something was last
	// done to it in this change; zero if not known. An earlier process may have
	// done something right before.
	Started, Touched time.Time
	// Seen is when this change first read the instance.
	Seen time.Time
	// Oldest is how old a report may be to tell of the host as it is now: hosts
	// repeat theirs. Zero for any age.
	Oldest time.Time
	// Settled is set once the host had all the time it gets, and said nothing
	// new since Seen: whatever an earlier process did, it has looked at.
	Settled bool
}

// skew is how far a host's clock may be off.
const skew = 30 * time.Second

// fresh reports whether the reading may be of the host as it is now: nothing in
// it is from before the instance started or was touched.
func (r *Reading) fresh() bool {
	return r != nil && r.Err == nil && !r.Report.Time.Before(r.Started.Add(-skew)) && !r.Report.Time.Before(r.Touched.Add(-skew))
}

// silent reports whether the host has stopped repeating its report: nobody knows
// whether it still is as it says.
func (r *Reading) silent() bool { return r.Err == nil && r.Report.Time.Before(r.Oldest) }

// after reports whether the reading surely is from after the host was touched,
// by this process or an earlier one.
func (r *Reading) after() bool {
	if !r.Touched.IsZero() {
		return r.fresh() && !r.Report.Time.Before(r.Touched.Add(skew))
	}
	return r.fresh() && (r.Settled || !r.Seen.IsZero() && !r.Report.Time.Before(r.Seen.Add(skew)))
}

// Kind is what an [Action] is.
type Kind int

// The kinds of actions.
const (
	// Attach the target's disk under the goal's device name.
	Attach Kind = iota + 1
	// Detach Action.Device.
	Detach
	// Ask the host for its report: it was not read yet.
	Ask
	// Wait and look again.
	Wait
	// Sick: the host says that the target is bad.
	Sick
	// Blocked: only people can help.
	Blocked
	// Done: nothing is left to do.
	Done
)

// Action is what to do next.
type Action struct {
	Kind   Kind
	Device string // for Detach
	// Why is for people: what is waited for, or what is wrong.
	Why string
}

// Ours lists the service's disks on a host.
func Ours(h *world.Host) []world.Attachment {
	var ours []world.Attachment
	for _, a := range h.Attachments {
		if a.Version != "" && !a.Boot {
			ours = append(ours, a)
		}
	}
	return ours
}

// Target finds the goal's disk among those attached: the one with the right
// device name if there are two.
func (g Goal) Target(ours []world.Attachment) (world.Attachment, bool) {
	var found world.Attachment
	ok := false
	for _, o := range ours {
		if o.Version == fleet.LabelValue(g.Version) && (!ok || o.Device == g.Device()) {
			found, ok = o, true
		}
	}
	return found, ok
}

// Next decides. reading is nil as long as nobody asked the host.
func Next(g Goal, h *world.Host, reading *Reading) Action {
	ours := Ours(h)
	target, attached := g.Target(ours)
	if !attached {
		return attach(g, h, ours, reading)
	}
	if !target.ReadOnly {
		return Action{Kind: Blocked, Why: fmt.Sprintf("disk %s is attached READ_WRITE: detach it by hand", target.Disk)}
	}
	if target.Device != g.Device() {
		return Action{Kind: Blocked, Why: fmt.Sprintf("disk %s is attached as %s, and the host looks for %s: detach it by hand", target.Disk, target.Device, g.Device())}
	}
	if reading == nil {
		return Action{Kind: Ask}
	}
	if g.Healthy(reading) {
		return g.tidy(target, ours)
	}
	return g.unhealthy(target, ours, reading)
}

// Healthy reports whether the host runs the goal's version and is well.
func (g Goal) Healthy(r *Reading) bool {
	return r.fresh() && !r.silent() && r.Report.Health == guest.OK && g.is(g.Version, r.Report.Version)
}

func (g Goal) is(version, reported string) bool {
	return reported != "" && version != "" && world.SameVersion(g.Service, version, reported)
}

// attach brings the target, once there is room for it.
func attach(g Goal, h *world.Host, ours []world.Attachment, reading *Reading) Action {
	for _, a := range h.Attachments {
		if a.Device == g.Device() {
			return Action{Kind: Blocked, Why: fmt.Sprintf("device name %s is taken by disk %s, which is not of version %s", a.Device, a.Disk, g.Version)}
		}
	}
	if len(h.Attachments) < h.DiskLimit() {
		return Action{Kind: Attach}
	}
	if reading == nil {
		return Action{Kind: Ask}
	}
	full := Action{Kind: Blocked, Why: fmt.Sprintf("all %d places for disks are taken", h.DiskLimit())}
	if !reading.fresh() || reading.Report.Current == "" {
		return full
	}
	used := func(o world.Attachment) bool {
		return o.Version == fleet.LabelValue(reading.Report.Current) || g.is(o.Version, reading.Report.Current)
	}
	if !slices.ContainsFunc(ours, used) {
		return full
	}
	for _, o := range ours {
		if !used(o) {
			return Action{Kind: Detach, Device: o.Device, Why: "to make room"}
		}
	}
	return full
}

// tidy takes away what the healthy host needs no longer.
func (g Goal) tidy(target world.Attachment, ours []world.Attachment) Action {
	for _, o := range ours {
		if o.Device != target.Device && (g.Keep == "" || o.Version != fleet.LabelValue(g.Keep) || o.Version == target.Version) {
			return Action{Kind: Detach, Device: o.Device, Why: "it is older than the version before"}
		}
	}
	return Action{Kind: Done}
}

// unhealthy is for a host that has the target attached and does not say that
// it runs it.
func (g Goal) unhealthy(target world.Attachment, ours []world.Attachment, r *Reading) Action {
	about := r.fresh() && g.is(g.Version, r.Report.Version)
	if about && r.Report.Health == guest.Failed {
		return Action{Kind: Sick, Why: "the host says: " + r.Report.Error}
	}
	if about && !r.silent() {
		return Action{Kind: Wait, Why: "the host is checking the disk"}
	}
	for _, o := range ours {
		idle := about || g.is(g.Leave, r.Report.Version) && (r.after() || untouched(target, ours, r))
		if g.Leave != "" && o.Version == fleet.LabelValue(g.Leave) && idle {
			return Action{Kind: Detach, Device: o.Device, Why: "so that the host goes back to the version before"}
		}
	}
	if g.Reattach && r.after() && g.reportsAnother(ours, r) {
		return Action{Kind: Detach, Device: target.Device, Why: "to attach it again: the host takes what was attached last"}
	}
	return Action{Kind: Wait, Why: g.missing(r)}
}

// untouched reports whether nothing was done to the host since it reported: not
// by this change, and the target was not attached last, as an earlier process
// would have left it.
func untouched(target world.Attachment, ours []world.Attachment, r *Reading) bool {
	return r.fresh() && r.Touched.IsZero() && ours[len(ours)-1].Device != target.Device
}

// reportsAnother reports whether the host runs another version that is attached,
// so that the target is idle.
func (g Goal) reportsAnother(ours []world.Attachment, r *Reading) bool {
	return slices.ContainsFunc(ours, func(o world.Attachment) bool {
		return o.Version != fleet.LabelValue(g.Version) && r.Report.Current != "" && g.is(o.Version, r.Report.Current) &&
			g.is(o.Version, r.Report.Version)
	})
}

// missing says what there is instead of a report about the target.
func (g Goal) missing(r *Reading) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case !r.fresh():
		return fmt.Sprintf("the last report is of %s, from before the change", r.Report.Time.Format(time.RFC3339))
	case r.silent():
		return fmt.Sprintf("silent since %s", r.Report.Time.Format(time.RFC3339))
	}
	return fmt.Sprintf("the host reports on version %s", r.Report.Version)
}
