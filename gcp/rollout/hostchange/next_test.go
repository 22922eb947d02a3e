package hostchange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/world"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func hostWith(versions ...string) *world.Host {
	h := &world.Host{ID: "p/z/h", Started: noon.Add(-time.Hour), Attachments: []world.Attachment{{Device: "boot", Disk: "p/z/boot", Boot: true}}}
	for _, v := range versions {
		h.Attachments = append(h.Attachments, world.Attachment{Device: "svc-" + v, Disk: world.ID("p/z/svc-" + v), Version: v, ReadOnly: true})
	}
	return h
}

// says is a report from after the change.
func says(version string, health guest.Health, current string) *Reading {
	return &Reading{Report: guest.Report{Version: version, Health: health, Current: current, Time: noon.Add(time.Hour), Error: "bad block"}, Started: noon.Add(-time.Hour), Touched: noon}
}

func full(versions ...string) *world.Host {
	h := hostWith(versions...)
	for i := len(h.Attachments); i < h.DiskLimit(); i++ {
		h.Attachments = append(h.Attachments, world.Attachment{Device: fmt.Sprint("data-", i), Disk: world.ID(fmt.Sprint("p/z/data-", i))})
	}
	return h
}

func TestNext(t *testing.T) {
	second, _ := fleet.SecondDeviceName("svc", "v1")
	// twice gives the last of several disks of a version the second name.
	twice := func(versions ...string) *world.Host {
		h, seen := hostWith(versions...), map[string]int{}
		for i := range h.Attachments {
			a := &h.Attachments[i]
			if seen[a.Device]++; seen[a.Device] > 1 {
				a.Device, a.Disk = second, a.Disk+"-2"
			}
		}
		return h
	}
	keep := Goal{Service: "svc", Version: "v1", Keep: "v2", Leave: "v2", Beside: true}
	forward3 := Goal{Service: "svc", Version: "v3", Keep: "v1", Beside: true}
	tried := keep
	tried.Tried = true
	forward := Goal{Service: "svc", Version: "v2", Keep: "v1"}
	back := Goal{Service: "svc", Version: "v1", Leave: "v2"}
	again := Goal{Service: "svc", Version: "v1", Reattach: true}
	stale := says("v2", guest.OK, "v2")
	stale.Report.Time = noon.Add(-2 * time.Minute)
	beforeBoot := says("v2", guest.OK, "v2")
	beforeBoot.Touched, beforeBoot.Started, beforeBoot.Report.Time = time.Time{}, noon, noon.Add(-2*time.Minute)
	// What a controller reads that has just begun with a host.
	inherited := says("v2", guest.OK, "v2")
	inherited.Touched, inherited.Seen = time.Time{}, inherited.Report.Time.Add(time.Minute)
	newer := *inherited
	newer.Report.Time = newer.Seen.Add(2 * time.Minute)
	silent := *inherited
	silent.Oldest = silent.Report.Time.Add(time.Minute)
	silentOld := silent
	silentOld.Report.Version, silentOld.Report.Current = "v1", "v1"
	settled := *inherited
	settled.Settled = true
	writable := hostWith("v1", "v2")
	writable.Attachments[2].ReadOnly = false
	misnamed := hostWith("v2")
	misnamed.Attachments[1].Device = "persistent-disk-1"
	taken := hostWith("v1")
	taken.Attachments = append(taken.Attachments, world.Attachment{Device: "svc-v2", Disk: "p/z/theirs"})
	for _, c := range []struct {
		name    string
		goal    Goal
		host    *world.Host
		reading *Reading
		kind    Kind
		device  string
	}{
		{"new version", forward, hostWith("v1"), nil, Attach, "svc-v2"},
		{"nothing attached", forward, hostWith(), nil, Attach, "svc-v2"},
		{"just attached", forward, hostWith("v1", "v2"), nil, Ask, ""},
		{"no report yet", forward, hostWith("v1", "v2"), &Reading{Err: guest.ErrNone}, Wait, ""},
		{"half a report", forward, hostWith("v1", "v2"), &Reading{Err: guest.ErrTorn}, Wait, ""},
		{"report of the old one", forward, hostWith("v1", "v2"), says("v1", guest.OK, "v1"), Wait, ""},
		{"being checked", forward, hostWith("v1", "v2"), says("v2", guest.Pending, "v1"), Wait, ""},
		{"an old report of the new one", forward, hostWith("v1", "v2"), stale, Wait, ""},
		{"a report from before the boot", forward, hostWith("v1", "v2"), beforeBoot, Wait, ""},
		{"refused by the host", forward, hostWith("v1", "v2"), says("v2", guest.Failed, "v1"), Sick, ""},
		{"healthy", forward, hostWith("v1", "v2"), says("v2", guest.OK, "v2"), Done, ""},
		{"healthy, older ones left", forward, hostWith("v0", "v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v0"},
		{"sick, older ones left", forward, hostWith("v0", "v1", "v2"), says("v2", guest.Failed, "v1"), Sick, ""},
		{"keep nothing", Goal{Service: "svc", Version: "v2"}, hostWith("v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v1"},
		{"attached read-write", forward, writable, says("v2", guest.OK, "v2"), Blocked, ""},
		{"under another device name", forward, misnamed, nil, Blocked, ""},
		{"device name taken", forward, taken, nil, Blocked, ""},
		{"no place left", forward, full("v1"), says("v1", guest.OK, "v1"), Blocked, ""},
		{"no place left, not asked yet", forward, full("v0", "v1"), nil, Ask, ""},
		{"no place left but an older one's", forward, full("v0", "v1"), says("v1", guest.OK, "v1"), Detach, "svc-v0"},
		{"no place left, nobody knows what is used", forward, full("v0", "v1"), &Reading{Err: guest.ErrNone}, Blocked, ""},
		{"back from a healthy one", back, hostWith("v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v2"},
		{"back from one that got worse", back, hostWith("v1", "v2"), says("v2", guest.Failed, "v2"), Detach, "svc-v2"},
		{"back, switched", back, hostWith("v2", "v1"), says("v1", guest.OK, "v1"), Detach, "svc-v2"},
		{"back from a refused one", back, hostWith("v1", "v2"), says("v2", guest.Failed, "v1"), Detach, "svc-v2"},
		{"back, gone already", back, hostWith("v1"), says("v1", guest.OK, "v1"), Done, ""},
		{"back, nothing known", back, hostWith("v1", "v2"), &Reading{Err: guest.ErrNone}, Wait, ""},
		{"back, the old one is not there", back, hostWith("v2"), nil, Attach, "svc-v1"},
		{"forward to one attached before", again, hostWith("v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v1"},
		{"forward to one just attached", again, hostWith("v1", "v2"), stale, Wait, ""},
		{"forward to one, by a new controller", again, hostWith("v2", "v1"), inherited, Wait, ""},
		{"forward to one, by a new controller, listed below", again, hostWith("v1", "v2"), inherited, Wait, ""},
		{"forward to one, and a newer report came", again, hostWith("v1", "v2"), &newer, Detach, "svc-v1"},
		{"forward to one, and nothing came for long", again, hostWith("v1", "v2"), &settled, Detach, "svc-v1"},
		{"back, by a new controller", back, hostWith("v1", "v2"), inherited, Detach, "svc-v2"},
		{"back, just attached by an earlier controller", back, hostWith("v2", "v1"), inherited, Wait, ""},
		{"back, attached by an earlier controller, newer report", back, hostWith("v2", "v1"), &newer, Detach, "svc-v2"},
		{"healthy, but silent since", forward, hostWith("v1", "v2"), &silent, Wait, ""},
		{"back, silent since it ran the old one", back, hostWith("v1"), &silentOld, Wait, ""},
		{"back, silent, the new one attached", back, hostWith("v1", "v2"), &silentOld, Detach, "svc-v2"},
		{"back, keeping what is used", keep, hostWith("v1", "v2"), says("v2", guest.OK, "v2"), Attach, second},
		{"back, keeping what got worse and is used", keep, hostWith("v1", "v2"), says("v2", guest.Failed, "v2"), Attach, second},
		{"back, keeping nothing that was refused", keep, hostWith("v1", "v2"), says("v2", guest.Failed, "v1"), Detach, "svc-v2"},
		{"back, before it has taken the new one", keep, hostWith("v1", "v2"), says("v1", guest.OK, "v1"), Detach, "svc-v2"},
		{"back, tried already", tried, twice("v1", "v2", "v1"), says("v2", guest.OK, "v2"), Wait, ""},
		{"back, by a new controller, attached already", keep, twice("v1", "v2", "v1"), says("v2", guest.OK, "v2"), Wait, ""},
		{"back, both names taken below", keep, twice("v1", "v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v1"},
		{"back, no place left", keep, full("v1", "v2"), says("v2", guest.OK, "v2"), Detach, "svc-v2"},
		{"back on the second disk", keep, twice("v1", "v2", "v1"), says(second[4:], guest.OK, second[4:]), Done, ""},
		{"forward from the second disk", forward3, twice("v1", "v2", "v1", "v3"), says("v3", guest.OK, "v3"), Detach, "svc-v1"},
		{"forward from the second disk, the rest", forward3, twice("v2", "v0", "v1", "v1", "v3"), says("v3", guest.OK, "v3"), Detach, "svc-v2"},
		{"forward after an abort, from the one that was aborted", forward3, hostWith("v1", "v2", "v3"), says("v3", guest.OK, "v3"), Done, ""},
		{"forward after an abort, older ones left", forward3, hostWith("v0", "v1", "v2", "v3"), says("v3", guest.OK, "v3"), Detach, "svc-v0"},
		{"brought back, from one that nobody knows of", Goal{Service: "svc", Version: "v1", Reattach: true, Beside: true}, twice("v1", "v2", "v1"), says(second[4:], guest.OK, second[4:]), Done, ""},
		{"start of the old one, keeping what is used", Goal{Service: "svc", Version: "v1", Keep: "v2", Reattach: true, Beside: true}, hostWith("v1", "v2"), inherited, Attach, second},
		{"a version with a shortened name", Goal{Service: "svc", Version: "V 1/2"}, func() *world.Host {
			h := hostWith()
			h.Attachments = append(h.Attachments, world.Attachment{Device: fleet.DeviceName("svc", "V 1/2"), Disk: "p/z/d", Version: fleet.LabelValue("V 1/2"), ReadOnly: true})
			return h
		}(), says(fleet.DeviceName("svc", "V 1/2")[len("svc-"):], guest.OK, ""), Done, ""},
	} {
		got := Next(c.goal, c.host, c.reading)
		if got.Kind != c.kind || got.Device != c.device {
			t.Errorf("%s: got %+v", c.name, got)
		}
		if (got.Kind == Wait || got.Kind == Sick || got.Kind == Blocked) && got.Why == "" {
			t.Errorf("%s: no reason", c.name)
		}
	}
}

// TestOldReportNamesTheClock: of a host whose report is from before the change,
// people are told which times do not fit and that its clock may be why.
func TestOldReportNamesTheClock(t *testing.T) {
	forward := Goal{Service: "svc", Version: "v2", Keep: "v1"}
	slow := says("v2", guest.OK, "v2")
	slow.Report.Time = noon.Add(-31 * time.Second)
	booted := *slow
	booted.Touched, booted.Started = time.Time{}, noon
	for what, r := range map[string]*Reading{"its disks were changed at 2026-01-02T12:00:00Z": slow, "it started at 2026-01-02T12:00:00Z": &booted} {
		why := Next(forward, hostWith("v1", "v2"), r).Why
		for _, part := range []string{"2026-01-02T11:59:29Z, by its own clock", what, "clock is over 30s slow (timedatectl)", "journalctl -u bigdisk-host@svc"} {
			if !strings.Contains(why, part) {
				t.Errorf("%q lacks %q", why, part)
			}
		}
	}
}

// TestNeverWithoutAGoodDisk lets chance decide what is attached and reported,
// and holds every detachment against the rule.
func TestNeverWithoutAGoodDisk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	versions := []string{"v0", "v1", "v2", "v3"}
	detached := 0
	for range 30_000 {
		var attached []string
		for _, v := range versions {
			if rng.IntN(2) == 0 {
				attached = append(attached, v)
			}
		}
		h := hostWith(attached...)
		if rng.IntN(3) == 0 {
			h = full(attached...)
		}
		goal := Goal{Service: "svc", Version: versions[rng.IntN(4)], Reattach: rng.IntN(2) == 0}
		switch other := versions[rng.IntN(4)]; {
		case other == goal.Version:
		case rng.IntN(2) == 0:
			goal.Keep = other
		default:
			goal.Leave = other
		}
		r := says(versions[rng.IntN(4)], []guest.Health{guest.OK, guest.Pending, guest.Failed}[rng.IntN(3)], versions[rng.IntN(4)])
		if r.Report.Health == guest.OK {
			r.Report.Current = r.Report.Version
		}
		r.Report.Time = noon.Add(time.Duration(rng.IntN(240)-120) * time.Minute)
		if rng.IntN(10) == 0 {
			r.Err = errors.New("no")
		}
		action := Next(goal, h, r)
		if action.Kind != Detach {
			continue
		}
		detached++
		gone := action.Device[len("svc-"):]
		if !slices.Contains(attached, gone) {
			t.Fatalf("%s is detached and is not there", gone)
		}
		inUse := r.Report.Current
		away := goal.Leave == gone && slices.Contains(attached, goal.Version)
		if r.Err != nil || gone == inUse && !away {
			t.Fatalf("%s is detached from %v for %+v, and the host reports %+v, %v", gone, attached, goal, r.Report, r.Err)
		}
		if len(attached) == 1 {
			t.Fatalf("the only disk %s is detached for %+v", gone, goal)
		}
	}
	if detached < 1000 {
		t.Errorf("only %d detachments: nothing was tried", detached)
	}
}

func ExampleNext() {
	goal := Goal{Service: "nixmodules", Version: "v12", Keep: "v11"}
	host := &world.Host{ID: "prod-1/us-central1-a/repl-7"}
	fmt.Println(Next(goal, host, nil).Kind == Attach)
	host.Attachments = []world.Attachment{{Device: goal.Device(), Disk: "prod-1/us-central1-a/d", Version: "v12", ReadOnly: true}}
	fmt.Println(Next(goal, host, &Reading{Err: guest.ErrNone}).Why)
	healthy := &Reading{Report: guest.Report{Version: "v12", Health: guest.OK}}
	fmt.Println(Next(goal, host, healthy).Kind == Done)
	// Output:
	// true
	// no report
	// true
}
