package plan

import (
	"fmt"
	"maps"
	"slices"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// Plan is what a rollout would do, and what is in its way.
type Plan struct {
	Service  string `json:"service"`
	Version  string `json:"version"`
	Previous string `json:"previous,omitempty"`
	Hosts    int    `json:"hosts"`
	// Right is how many hosts have the version attached already.
	Right int        `json:"right"`
	Waves []PlanWave `json:"waves"`
	Zones []PlanZone `json:"zones"`
	// Disks are the copies to be made before the wave that needs them.
	Disks []Copy `json:"disks"`
	// Attachments is how many have to be made.
	Attachments int `json:"attachments"`
	// Blockers are why it could not be done now.
	Blockers []string `json:"blockers"`
}

// PlanWave is a wave to come.
type PlanWave struct {
	Name  string `json:"name"`
	Hosts int    `json:"hosts"`
	Bake  string `json:"bake"`
	// First has the hosts of all waves but the last.
	First []world.ID `json:"first,omitempty"`
}

// PlanZone is a zone's part.
type PlanZone struct {
	Zone        world.Zone `json:"zone"`
	Hosts       int        `json:"hosts"`
	Disks       int        `json:"disks"`
	NewDisks    int        `json:"newDisks"`
	Attachments int        `json:"attachments"`
	AtOnce      int        `json:"atOnce"`
	Unknown     string     `json:"unknown,omitempty"`
}

// Make works out the plan of a rollout that would begin now.
func Make(cfg *fleet.Config, d *state.Document, w *world.World, version string) (*Plan, error) {
	speed := state.SpeedOf(cfg.Rollout)
	p := &Plan{Service: cfg.Service, Version: version, Previous: d.Deployed, Hosts: len(w.Hosts), Disks: []Copy{}, Blockers: []string{}}
	trial, err := d.Clone()
	if err != nil {
		return nil, err
	}
	if err := trial.Begin(version, speed, "", w.Taken); err != nil {
		if d.Rollout.Active() && d.Rollout.Version == version {
			trial, err = d.Clone()
		}
		if err != nil {
			p.Blockers = append(p.Blockers, err.Error())
			return p, nil
		}
	}
	p.waves(trial.Rollout, Turn(trial.Rollout, w))
	p.zones(cfg, &speed, w)
	p.hosts(cfg, w)
	return p, nil
}

func (p *Plan) waves(r *state.Rollout, hosts []world.ID) {
	sizes := Sizes(r.Speed.Waves, len(hosts))
	for i, c := range r.Speed.Waves {
		wave := PlanWave{Name: c.Name, Hosts: sizes[i], Bake: durationText(c.Bake)}
		if r.Waves[i].Members == nil {
			r.Waves[i].Members = Members(r, i, hosts)
		}
		wave.First = r.Waves[i].Members.Sorted()
		p.Waves = append(p.Waves, wave)
	}
}

func (p *Plan) zones(cfg *fleet.Config, speed *state.Speed, w *world.World) {
	seats := NewSeats(cfg, p.Version, w, nil, speed.KeepPrevious)
	byZone := map[world.Zone][]world.ID{}
	for id := range w.Hosts {
		byZone[id.Zone()] = append(byZone[id.Zone()], id)
	}
	for _, t := range cfg.Targets {
		for _, z := range t.Zones {
			zone := world.ZoneOf(t.Project, z.Name)
			hosts := byZone[zone]
			missing := seats.Missing(zone, p.Version, hosts)
			pz := PlanZone{
				Zone: zone, Hosts: len(hosts), Disks: len(w.DisksOf(zone, fleet.LabelValue(p.Version))), NewDisks: len(missing),
				AtOnce: min(PerZone(speed, len(hosts)), len(hosts)), Unknown: w.Unknown[zone],
			}
			for _, id := range hosts {
				if _, seated := seats.Seat(id); seated {
					p.Right++
				} else {
					pz.Attachments++
				}
			}
			if pz.Unknown != "" {
				p.Blockers = append(p.Blockers, fmt.Sprintf("%s cannot be read: %s", zone, pz.Unknown))
			}
			p.Disks = append(p.Disks, missing...)
			p.Attachments += pz.Attachments
			p.Zones = append(p.Zones, pz)
		}
	}
}

// hosts looks for hosts that could not be changed, and disks that never will be
// ready.
func (p *Plan) hosts(cfg *fleet.Config, w *world.World) {
	if p.Hosts == 0 {
		p.Blockers = append(p.Blockers, fmt.Sprintf("no host matches the filter %q", cfg.Hosts.Filter))
	}
	label := fleet.LabelValue(p.Version)
	for _, id := range slices.Sorted(maps.Keys(w.Hosts)) {
		h := w.Hosts[id]
		if !h.Has(label) && len(h.Attachments) >= h.DiskLimit() {
			p.Blockers = append(p.Blockers, fmt.Sprintf("%s: all %d places for disks are taken", id, h.DiskLimit()))
		}
		for _, a := range h.Attachments {
			if a.Version == label && !a.ReadOnly {
				p.Blockers = append(p.Blockers, fmt.Sprintf("%s: disk %s is attached READ_WRITE", id, a.Disk))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.Disks)) {
		if d := w.Disks[id]; d.Version == label && d.Failed {
			p.Blockers = append(p.Blockers, fmt.Sprintf("disk %s failed: delete it", id))
		}
	}
}
