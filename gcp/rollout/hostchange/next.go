// Package hostchange decides what to do next on one host. In go what was read
// just now (what is attached, what the host reports) and the goal; out comes one
// [Action]. Nothing is remembered between two decisions, so that a change goes
// on from wherever it was left, by whichever process looks next.
//
// What it holds to:
//   - a disk of ours is attached READ_ONLY or not at all;
//   - the disk that the host says is in use is never detached, but where a
//     rollback takes a version away from a host that has the target attached,
//     and was not told to leave what programs may run from;
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
	// Leave is what a rollback goes back from: the host goes back to Version by
	// itself once the disk that was attached last is gone. "" otherwise.
	Leave string
	// Reattach is set where hosts may have Version attached from before, below
	// a newer one: a host takes what was attached last. Who carries a goal out
	// takes it back once an action says Once: a host that stays with another
	// version after that never will take it.
	Reattach bool
	// Beside is set where nothing may be taken away that programs may run from,
	// neither what is in use or was until now nor Version from before it: another disk of Version is
	// attached as the last one, under [fleet.SecondDeviceName] or whichever of the
	// two names is free. Without it, or where there is no name or place for it, what
	// is in the way is detached.
	Beside bool
	// Tried is set by who carries the goal out once an action said Once.
	Tried bool
}

// Device is the device name of the goal's disk, where the host has no other one
// of the version.
func (g Goal) Device() string { return fleet.DeviceName(g.Service, g.Version) }

// names reports whether hosts look for the goal's disk under a device name.
func (g Goal) names(device string) bool {
	second, ok := fleet.SecondDeviceName(g.Service, g.Version)
	return device == g.Device() || ok && device == second
}

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

// skew is how far a host's clock may be off from Compute Engine's, which all other
// times of a [Reading] are by.
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
	Device string // for Attach and Detach
	// Once is set for what a change is not to do twice.
	Once bool
	// Idle is set where nothing uses what is detached: the reading stays true.
	Idle bool
	// Why is for people: what is waited for, or what is wrong.
	Why string
}

// Target finds the goal's disk among those attached: of several the last one,
// of those with a device name that hosts look for.
func (g Goal) Target(ours []world.Attachment) (world.Attachment, bool) {
	var found world.Attachment
	ok := false
	for _, o := range ours {
		if o.Version == fleet.LabelValue(g.Version) && (!ok || g.names(o.Device)) {
			found, ok = o, true
		}
	}
	return found, ok
}

// Next decides. reading is nil as long as nobody asked the host.
func Next(g Goal, h *world.Host, reading *Reading) Action {
	ours := h.Ours()
	target, attached := g.Target(ours)
	if !attached {
		return attach(g, h, ours, reading)
	}
	if !target.ReadOnly {
		return Action{Kind: Blocked, Why: fmt.Sprintf("disk %s is attached READ_WRITE: detach it by hand", target.Disk)}
	}
	if !g.names(target.Device) {
		return Action{Kind: Blocked, Why: fmt.Sprintf("disk %s is attached as %s, and the host looks for %s: detach it by hand", target.Disk, target.Device, g.Device())}
	}
	if reading == nil {
		return Action{Kind: Ask}
	}
	if g.Healthy(reading) {
		return g.tidy(target, ours, reading)
	}
	return g.unhealthy(h, target, reading)
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
		return Action{Kind: Attach, Device: g.Device()}
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

// tidy takes away what the healthy host needs no longer, and what it would take
// instead: what was attached after the disk that it runs from.
func (g Goal) tidy(target world.Attachment, ours []world.Attachment, r *Reading) Action {
	kept, below := "", "" // the last one of the version to be kept, and what the host had before the target
	for _, o := range ours {
		if g.is(g.Version, r.Report.Version) && o.Device == g.Service+"-"+r.Report.Version {
			target = o
		}
		if g.Keep != "" && o.Version == fleet.LabelValue(g.Keep) {
			kept = o.Device
		}
	}
	if i := slices.IndexFunc(ours, func(o world.Attachment) bool { return o.Device == target.Device }); i > 0 && g.Beside {
		below = ours[i-1].Device
	}
	above := false
	for _, o := range ours {
		switch sibling := g.Beside && o.Version == target.Version; {
		case o.Device == target.Device:
			above = true
		case above && o.Version != target.Version:
			return Action{Kind: Detach, Device: o.Device, Why: "so that the host stays with what it runs"}
		case o.Device != kept && o.Device != below && !sibling:
			return Action{Kind: Detach, Device: o.Device, Why: "it is older than the version before"}
		}
	}
	return Action{Kind: Done}
}

// unhealthy is for a host that has the target attached and does not say that
// it runs it.
func (g Goal) unhealthy(h *world.Host, target world.Attachment, r *Reading) Action {
	ours := h.Ours()
	about := r.fresh() && g.is(g.Version, r.Report.Version)
	if about && r.Report.Health == guest.Failed {
		return Action{Kind: Sick, Why: "the host says: " + r.Report.Error}
	}
	if about && !r.silent() {
		return Action{Kind: Wait, Why: "the host is checking the disk"}
	}
	sure := r.after() || untouched(target, ours, r)
	for _, o := range ours {
		if g.Leave == "" || o.Version != fleet.LabelValue(g.Leave) || !about && !(sure && g.is(g.Leave, r.Report.Version)) {
			continue
		}
		detach := Action{Kind: Detach, Device: o.Device, Why: "so that the host goes back to the version before"}
		if g.Beside && g.is(g.Leave, r.Report.Current) {
			return g.beside(h, detach, r)
		}
		return detach
	}
	if g.Reattach && (r.after() || g.Beside && sure) && g.reportsAnother(ours, r) {
		detach := Action{Kind: Detach, Device: target.Device, Once: true, Why: "to attach it again: the host takes what was attached last"}
		if g.Beside {
			return g.beside(h, detach, r)
		}
		return detach
	}
	return Action{Kind: Wait, Why: g.missing(r)}
}

// beside has another disk of the target attached as the last one. Where that
// cannot be, it is otherwise that is done. Of two disks of the target that the
// host has already below another version's, nothing has run from the older one
// since the rollout before the last.
func (g Goal) beside(h *world.Host, otherwise Action, r *Reading) Action {
	ours := h.Ours()
	taken := map[string]bool{}
	for _, a := range h.Attachments {
		taken[a.Device] = true
	}
	var targets []world.Attachment
	for _, o := range ours {
		if o.Version == fleet.LabelValue(g.Version) {
			targets = append(targets, o)
		}
	}
	second, ok := fleet.SecondDeviceName(g.Service, g.Version)
	last := ours[len(ours)-1].Version == fleet.LabelValue(g.Version)
	switch room := len(h.Attachments) < h.DiskLimit(); {
	case g.Tried:
		return Action{Kind: Wait, Why: g.missing(r)}
	case room && !taken[g.Device()]:
		return Action{Kind: Attach, Device: g.Device(), Once: true}
	case room && ok && !taken[second]:
		return Action{Kind: Attach, Device: second, Once: true}
	case len(targets) < 2:
		return otherwise
	case last:
		return Action{Kind: Wait, Why: g.missing(r)}
	}
	return Action{Kind: Detach, Device: targets[0].Device, Idle: true, Why: "to attach it again: the host takes what was attached last"}
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

// old says from before what the report is, and why that may be.
func (g Goal) old(r *Reading) string {
	what, when := "it started", r.Started
	if r.Touched.After(when) {
		what, when = "its disks were changed", r.Touched
	}
	return fmt.Sprintf("the host's last report is of %s, by its own clock, and %s at %s: its agent says nothing new (journalctl -u bigdisk-host@%s), or its clock is over %s slow (timedatectl)",
		r.Report.Time.UTC().Format(time.RFC3339), what, when.UTC().Format(time.RFC3339), g.Service, skew)
}

// missing says what there is instead of a report about the target.
func (g Goal) missing(r *Reading) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case !r.fresh():
		return g.old(r)
	case r.silent():
		return fmt.Sprintf("silent since %s", r.Report.Time.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("the host reports on version %s", r.Report.Version)
}
