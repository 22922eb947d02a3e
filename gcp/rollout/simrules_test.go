package rollout

import (
	"slices"
	"strings"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// attaching checks an attachment that begins; s.mu is held.
func (s *sim) attaching(h *simHost, d *world.Disk) {
	h.attached[d.Version]++
	if n := h.attached[d.Version]; n > 1 && !s.rolledBack {
		s.t.Errorf("%s is given %s for the %dth time", h.ID, d.Version, n)
	}
	_, z, _ := s.cfg.Zone(d.ID.Zone().Project(), d.ID.Zone().Name())
	if n := s.readers(d.ID); n >= z.HostsPerDisk {
		s.t.Errorf("%s would have %d readers of %d", d.ID, n+1, z.HostsPerDisk)
	}
	h.changing = d.Version
	all, zone, zoneHosts := 0, 0, 0
	for id, o := range s.hosts {
		if id.Zone() == h.ID.Zone() {
			zoneHosts++
		}
		if o.changing == "" {
			continue
		}
		all++
		if id.Zone() == h.ID.Zone() {
			zone++
		}
	}
	speed := state.SpeedOf(s.cfg.Rollout)
	if s.allowAll {
		return
	}
	if all > speed.MaxConcurrent {
		s.t.Errorf("%d hosts in change, and %d may be", all, speed.MaxConcurrent)
	}
	if most := plan.PerZone(&speed, zoneHosts); zone > most {
		s.t.Errorf("%d hosts of %s in change, and %d may be", zone, h.ID.Zone(), most)
	}
}

// detaching checks a detachment that begins; s.mu is held.
func (s *sim) detaching(h *simHost, device string) {
	i := slices.IndexFunc(h.Attachments, func(a world.Attachment) bool { return a.Device == device })
	if i < 0 {
		return
	}
	a := h.Attachments[i]
	if a.Boot || a.Version == "" {
		s.t.Errorf("%s: %s is not ours and is detached", h.ID, device)
	}
	for _, o := range h.Attachments {
		if o.Device != device && o.Version != "" && !strings.HasPrefix(o.Device, pendingDevice) && !s.badOn(h.ID, o.Version) {
			return
		}
	}
	s.t.Errorf("%s loses %s, its only good disk", h.ID, a.Version)
}

// notice makes a host's agent look at its disks and report on the last one;
// s.mu is held.
func (s *sim) notice(h *simHost) {
	incarnation := h.Incarnation
	go func() {
		time.Sleep(h.delay)
		s.mu.Lock()
		defer s.mu.Unlock()
		if now := s.hosts[h.ID]; now == nil || now.Incarnation != incarnation {
			return
		}
		s.agent(h)
	}()
}

func (s *sim) agent(h *simHost) {
	var last world.Attachment
	for _, a := range h.Attachments {
		if a.Version != "" && !strings.HasPrefix(a.Device, pendingDevice) {
			last = a
		}
	}
	says := strings.TrimPrefix(last.Device, s.cfg.Service+"-")
	if last.Version == "" || h.reported && h.report.Version == says && h.report.Health == guest.OK {
		return
	}
	if last.Version == h.changing {
		h.changing = ""
	}
	h.reported = true
	h.report = guest.Report{Version: says, Health: guest.OK, BootID: "b", Time: time.Now()}
	if s.badOn(h.ID, last.Version) {
		h.report.Health, h.report.Error = guest.Failed, "store path /nix/store/abc-x has the wrong hash"
	} else {
		h.current = says
	}
	h.report.Current = h.current
}

// versions counts the hosts by the version in use.
func (s *sim) versions() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]int{}
	for _, h := range s.hosts {
		counts[fleet.PlainVersion(s.cfg.Service, h.current)]++
	}
	return counts
}

// checkWrites complains about writes of the document that come too fast.
func (s *sim) checkWrites(o *object) {
	s.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, at := range o.writes {
		if i >= 10 && at.Sub(o.writes[i-10]) < 8*time.Second {
			s.t.Errorf("ten writes of the document in %s", at.Sub(o.writes[i-10]))
			return
		}
	}
}

// testConfig is a fleet with zones of one project.
func testConfig(zones, hostsPerDisk int) *fleet.Config {
	cfg := &fleet.Config{Service: "nixmodules", Rollout: fleet.Rollout{
		Waves: []fleet.Wave{
			{Name: "canary", Hosts: fleet.Percent(1), Min: 1, Bake: 30 * time.Minute},
			{Name: "wave-2", Hosts: fleet.Percent(10), Min: 1, Bake: 15 * time.Minute},
			{Name: "wave-3", Hosts: fleet.Percent(100), Min: 1},
		},
		MaxConcurrent: 50, MaxPerZone: fleet.Percent(20), HealthTimeout: 5 * time.Minute,
		MaxFailures: fleet.Percent(2), OnFailure: fleet.OnFailurePause, KeepPrevious: true,
	}}
	target := fleet.Target{Project: "prod-1", StorageLocation: "us", DiskType: "pd-ssd", HostsPerDisk: hostsPerDisk}
	for i := range zones {
		target.Zones = append(target.Zones, fleet.Zone{
			Name: "us-east" + string(rune('1'+i/26)) + "-" + string(rune('a'+i%26)), DiskType: "pd-ssd", HostsPerDisk: hostsPerDisk, Copies: 1,
		})
	}
	cfg.Targets = []fleet.Target{target}
	return cfg
}
