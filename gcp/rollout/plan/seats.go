package plan

import (
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/world"
)

// Seats counts the readers of a version's disks: instances that have one
// attached, and hosts that were promised one. It is not safe for use by several
// goroutines.
type Seats struct {
	cfg     *fleet.Config
	version string // the label's value
	readers map[world.ID]world.Set
	seat    map[world.ID]world.ID // host to disk
	below   map[world.ID]world.ID // host to a disk that it has below another version's
	disks   map[world.Zone][]*world.Disk
}

// NewSeats counts who reads the disks of a version in w. promised are hosts in
// change, with their disks. With beside, hosts that have the version attached
// below another one get a second disk of it, and have no seat before that.
func NewSeats(cfg *fleet.Config, version string, w *world.World, promised map[world.ID]world.ID, beside bool) *Seats {
	s := &Seats{
		cfg: cfg, version: fleet.LabelValue(version), readers: map[world.ID]world.Set{}, seat: map[world.ID]world.ID{},
		below: map[world.ID]world.ID{}, disks: map[world.Zone][]*world.Disk{},
	}
	for id, d := range w.Disks {
		if d.Version != s.version {
			continue
		}
		s.readers[id] = world.SetOf(d.Users...)
		if s.disks[id.Zone()] == nil {
			s.disks[id.Zone()] = w.DisksOf(id.Zone(), s.version)
		}
	}
	for id, h := range w.Hosts {
		for _, a := range h.Attachments {
			if s.readers[a.Disk] != nil {
				s.sit(id, a.Disk)
			}
		}
	}
	for id, h := range w.Hosts {
		if disk, ok := h.Below(s.version); ok && beside {
			s.below[id] = disk
			delete(s.seat, id)
		}
	}
	for host, disk := range promised {
		if s.readers[disk] != nil {
			s.sit(host, disk)
		}
	}
	return s
}

func (s *Seats) sit(host, disk world.ID) {
	s.readers[disk].Add(host)
	s.seat[host] = disk
}

// limit is how many readers a disk in a zone may have.
func (s *Seats) limit(zone world.Zone) int {
	_, z, _ := s.cfg.Zone(zone.Project(), zone.Name())
	return z.HostsPerDisk
}

// Take promises a host a disk of its zone: the one it has already, or else the
// one with the fewest readers. ok is false if none has room.
func (s *Seats) Take(host world.ID) (disk world.ID, ok bool) {
	if disk, ok := s.seat[host]; ok {
		return disk, true
	}
	fewest := s.limit(host.Zone())
	for _, d := range s.disks[host.Zone()] {
		if n := len(s.readers[d.ID]); d.Ready && !d.Failed && n < fewest && d.ID != s.below[host] {
			disk, fewest = d.ID, n
		}
	}
	if disk == "" {
		return "", false
	}
	s.sit(host, disk)
	return disk, true
}

// Leave gives a host's seat back.
func (s *Seats) Leave(host world.ID) {
	if disk, ok := s.seat[host]; ok {
		delete(s.readers[disk], host)
		delete(s.seat, host)
	}
}

// Stay promises a host the disk that it has below another version's.
func (s *Seats) Stay(host world.ID) (disk world.ID, ok bool) {
	if disk, ok = s.below[host]; ok {
		s.sit(host, disk)
	}
	return disk, ok
}

// Seat is the disk that a host has or was promised.
func (s *Seats) Seat(host world.ID) (world.ID, bool) {
	disk, ok := s.seat[host]
	return disk, ok
}

// Readers is how many readers a disk has.
func (s *Seats) Readers(disk world.ID) int { return len(s.readers[disk]) }

// Copy is a disk to be made.
type Copy struct {
	Zone world.Zone `json:"zone"`
	Copy int        `json:"copy"`
	Name string     `json:"name"`
}

// Missing lists the copies that have to be made in a zone before hosts can all
// have a seat, taking the lowest free numbers. Disks on the way count, failed ones
// do not.
func (s *Seats) Missing(zone world.Zone, version string, hosts []world.ID) []Copy {
	limit := s.limit(zone)
	if limit <= 0 {
		return nil
	}
	without, below := 0, map[world.ID]int{}
	for _, id := range hosts {
		if _, ok := s.seat[id]; !ok {
			without++
			below[s.below[id]]++
		}
	}
	room, wanted, taken := 0, without, map[int]bool{}
	for _, d := range s.disks[zone] {
		taken[d.Copy] = true
		if !d.Failed {
			free := max(0, limit-len(s.readers[d.ID]))
			room += free
			// The hosts that have this disk below another version's sit elsewhere.
			wanted = max(wanted, below[d.ID]+free)
		}
	}
	if without == 0 {
		return nil
	}
	var missing []Copy
	for n := 1; room < wanted && n <= fleet.MaxCopies; n++ {
		if taken[n] {
			continue
		}
		missing = append(missing, Copy{zone, n, fleet.DiskName(s.cfg.Service, version, zone.Name(), n)})
		room += limit
	}
	return missing
}
