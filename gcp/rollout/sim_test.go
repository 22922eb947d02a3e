package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/world"
)

// sim is a fleet in memory: hosts with agents, disks with readers, operations
// that take time whoever waits for them. It watches over the rules at every
// call. It goes by the time package, and so by a test's bubble.
type sim struct {
	t   testing.TB
	cfg *fleet.Config

	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[world.ID]*simHost
	disks   map[world.ID]*world.Disk
	pending map[world.ID]int    // operations under way by host
	unknown map[world.Zone]bool // lists leave them out
	lost    world.Zone          // calls about what is in it fail, too
	lastID  uint64
	calls   map[string]int

	fault      float64 // how often calls fail
	opTime     time.Duration
	noDisks    bool // no disk can be made
	allowAll   bool // limits are not checked
	rolledBack bool // hosts may be changed again
	badOn      func(host world.ID, version string) bool
}

// simHost is an instance and the agent on it.
type simHost struct {
	world.Host
	report   guest.Report
	reported bool
	delay    time.Duration // before the agent reports
	current  string
	changing string         // the version it was given and has not reported on
	attached map[string]int // attachments of each version in this life
	asked    []time.Time
	silent   bool // its agent hangs
}

// beatEvery is how often an agent says the same again.
const beatEvery = 5 * time.Minute

// beat renews the report's time, as agents do.
func (h *simHost) beat() {
	if h.reported && !h.silent {
		h.report.Time = h.report.Time.Add(time.Since(h.report.Time) / beatEvery * beatEvery)
	}
}

func newSim(t testing.TB, cfg *fleet.Config, seed uint64) *sim {
	t.Cleanup(func() { time.Sleep(time.Minute) }) // hosts look at what is left
	return &sim{
		t: t, cfg: cfg, rng: rand.New(rand.NewPCG(seed, 1)), hosts: map[world.ID]*simHost{}, disks: map[world.ID]*world.Disk{},
		pending: map[world.ID]int{}, unknown: map[world.Zone]bool{}, lastID: 1000, calls: map[string]int{}, opTime: 2 * time.Second,
		badOn: func(world.ID, string) bool { return false },
	}
}

// published makes a fleet of hosts that run v1, with v2 published.
func published(t testing.TB, cfg *fleet.Config, seed uint64, hosts int) (*sim, *object) {
	s, o := newSim(t, cfg, seed), newObject("v1")
	s.publish("v1")
	s.addHosts(hosts, "v1")
	s.publish("v2")
	return s, o
}

// addHosts puts n hosts into the configuration's zones, in turn.
func (s *sim) addHosts(n int, version string) {
	var zones []world.Zone
	for _, t := range s.cfg.Targets {
		for _, z := range t.Zones {
			zones = append(zones, world.ZoneOf(t.Project, z.Name))
		}
	}
	for i := range n {
		zone := zones[i%len(zones)]
		s.addHost(world.IDOf(zone.Project(), zone.Name(), fmt.Sprintf("host-%d", i)), version)
	}
}

// addHost makes a host that runs a version, or nothing.
func (s *sim) addHost(id world.ID, version string) {
	s.lastID++
	h := &simHost{Host: world.Host{ID: id, Incarnation: s.lastID, Started: time.Now()}, attached: map[string]int{}, delay: 3 * time.Second}
	h.Attachments = []world.Attachment{{Device: "boot", Disk: id + "-boot", Boot: true}}
	s.hosts[id] = h
	if version == "" {
		return
	}
	disk := s.seatFor(id.Zone(), version)
	h.Attachments = append(h.Attachments, world.Attachment{
		Device: fleet.DeviceName(s.cfg.Service, version), Disk: disk, Version: version, ReadOnly: true,
	})
	h.current, h.reported = version, true
	h.report = guest.Report{Version: version, Health: guest.OK, Current: version, BootID: "b", Time: time.Now()}
}

func (s *sim) seatFor(zone world.Zone, version string) world.ID {
	_, z, _ := s.cfg.Zone(zone.Project(), zone.Name())
	for n := 1; ; n++ {
		id := world.IDOf(zone.Project(), zone.Name(), fleet.DiskName(s.cfg.Service, version, zone.Name(), n))
		if s.disks[id] == nil {
			s.disks[id] = &world.Disk{ID: id, Version: version, Copy: n, Ready: true}
		}
		if s.readers(id) < z.HostsPerDisk {
			return id
		}
	}
}

func (s *sim) readers(disk world.ID) int {
	n := 0
	for _, h := range s.hosts {
		for _, a := range h.Attachments {
			if a.Disk == disk {
				n++
			}
		}
	}
	return n
}

// publish makes the first copy of a version in every zone.
func (s *sim) publish(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.cfg.Targets {
		for _, z := range t.Zones {
			id := world.IDOf(t.Project, z.Name, fleet.DiskName(s.cfg.Service, version, z.Name, 1))
			s.disks[id] = &world.Disk{ID: id, Version: version, Copy: 1, Ready: true}
		}
	}
}

// recreate gives a host a new life without disks, as its group does.
func (s *sim) recreate(id world.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addHost(id, "")
}

func (s *sim) vanish(id world.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hosts, id)
}

func (s *sim) chance() bool { return s.fault > 0 && s.rng.Float64() < s.fault }

// conn is one controller's connection: it dies with it.
type conn struct {
	*sim
	dead *atomic.Bool
}

var errDead = errors.New("the process is dead")

// call begins a call. What the process has sent goes on when it dies.
func (c conn) call(ctx context.Context, name string) error {
	if c.dead.Load() || ctx.Err() != nil {
		return errDead
	}
	c.mu.Lock()
	c.calls[name]++
	fails := c.chance()
	c.mu.Unlock()
	if fails {
		return errors.New("503 backendError")
	}
	return nil
}

// away is the error of calls about a zone that cannot be reached; c.mu is held.
func (c conn) away(id world.ID) error {
	if id.Zone() == c.lost {
		return errors.New("503 the zone cannot be reached")
	}
	return nil
}

func (conn) Now() time.Time { return time.Now() }

func (c conn) Look(ctx context.Context) (*world.World, error) {
	if err := c.call(ctx, "look"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := world.New()
	for zone := range c.unknown {
		w.Unknown[zone] = "UNREACHABLE"
	}
	users := map[world.ID][]world.ID{}
	for id, h := range c.hosts {
		for _, a := range h.copy().Attachments {
			users[a.Disk] = append(users[a.Disk], id)
		}
		if !c.unknown[id.Zone()] {
			w.Hosts[id] = h.copy()
		}
	}
	for id, d := range c.disks {
		if !c.unknown[id.Zone()] {
			seen := *d
			seen.Users = users[id]
			w.Disks[id] = &seen
		}
	}
	return w, nil
}

func (h *simHost) copy() *world.Host {
	seen := h.Host
	seen.Attachments = nil
	for _, a := range h.Attachments {
		if !strings.HasPrefix(a.Device, pendingDevice) {
			seen.Attachments = append(seen.Attachments, a)
		}
	}
	return &seen
}

func (c conn) Host(ctx context.Context, id world.ID) (*world.Host, error) {
	if err := c.call(ctx, "host"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.away(id); err != nil {
		return nil, err
	}
	h := c.hosts[id]
	if h == nil {
		return nil, world.ErrGone
	}
	return h.copy(), nil
}

func (c conn) Report(ctx context.Context, id world.ID) (guest.Report, error) {
	if err := c.call(ctx, "report"); err != nil {
		return guest.Report{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.away(id); err != nil {
		return guest.Report{}, err
	}
	h := c.hosts[id]
	if h == nil {
		return guest.Report{}, world.ErrGone
	}
	h.asked = append(h.asked, time.Now())
	if n := len(h.asked); n > 10 && time.Since(h.asked[n-11]) < time.Minute {
		c.t.Errorf("%s was asked eleven times in %s", id, time.Since(h.asked[n-11]))
	}
	h.beat()
	if !h.reported {
		return guest.Report{}, guest.ErrNone
	}
	return h.report, nil
}

// operation runs an operation: it goes on even if nobody waits for it. The
// answer may be an error though the change was made.
func (c conn) operation(ctx context.Context, name string, id world.ID, begin func() error, apply func()) error {
	if err := c.call(ctx, name); err != nil {
		return err
	}
	c.mu.Lock()
	err := c.away(id)
	if err == nil {
		err = begin()
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.pending[id]++
	lost := c.chance()
	took := c.opTime/2 + time.Duration(c.rng.Int64N(int64(c.opTime)))
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		time.Sleep(took)
		c.mu.Lock()
		defer c.mu.Unlock()
		apply()
		if c.pending[id]--; c.pending[id] == 0 {
			delete(c.pending, id)
		}
		close(done)
	}()
	if lost {
		return errors.New("connection reset by peer")
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c conn) InFlight(ctx context.Context) ([]world.ID, error) {
	if err := c.call(ctx, "inflight"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []world.ID
	for id := range maps.Keys(c.pending) {
		ids = append(ids, id)
	}
	return ids, nil
}

func (c conn) CreateDisk(ctx context.Context, cp plan.Copy, version string) error {
	id := world.IDOf(cp.Zone.Project(), cp.Zone.Name(), cp.Name)
	begin := func() error {
		if c.noDisks {
			return fmt.Errorf("QUOTA_EXCEEDED: %w", world.ErrFinal)
		}
		return nil
	}
	return c.operation(ctx, "create", id, begin, func() {
		if c.disks[id] == nil {
			c.disks[id] = &world.Disk{ID: id, Version: version, Copy: cp.Copy, Ready: true}
		}
	})
}

func (c conn) Attach(ctx context.Context, id, disk world.ID, device string) error {
	var h *simHost
	begin := func() error {
		if h = c.hosts[id]; h == nil {
			return errors.New("404 notFound")
		}
		d := c.disks[disk]
		if d == nil || disk.Zone() != id.Zone() {
			c.t.Errorf("attach of %s to %s: no such disk there", disk, id)
			return world.ErrFinal
		}
		for _, a := range h.Attachments {
			if strings.TrimPrefix(a.Device, pendingDevice) == device || a.Disk == disk {
				return errors.New("400 RESOURCE_IN_USE_BY_ANOTHER_RESOURCE")
			}
		}
		c.attaching(h, d)
		h.Attachments = append(h.Attachments, world.Attachment{Device: pendingDevice + device, Disk: disk, Version: d.Version, ReadOnly: true})
		return nil
	}
	return c.operation(ctx, "attach", id, begin, func() {
		for i, a := range h.Attachments {
			if a.Device == pendingDevice+device {
				h.Attachments[i].Device = device
				c.notice(h)
			}
		}
	})
}

// pendingDevice marks an attachment under way. It takes its place at once, but
// the instance does not show it.
const pendingDevice = "pending:"

func (c conn) Detach(ctx context.Context, id world.ID, device string) error {
	var h *simHost
	begin := func() error {
		if h = c.hosts[id]; h == nil {
			return errors.New("404 notFound")
		}
		c.detaching(h, device)
		return nil
	}
	return c.operation(ctx, "detach", id, begin, func() {
		for i, a := range h.Attachments {
			if a.Device == device {
				h.Attachments = append(h.Attachments[:i:i], h.Attachments[i+1:]...)
				if a.Version == h.changing {
					h.changing = ""
				}
				c.notice(h)
				return
			}
		}
	})
}

// simStore is the document's object.
type simStore struct {
	s    *sim
	dead *atomic.Bool
	o    *object
}

type object struct {
	mu         sync.Mutex
	data       []byte
	generation int64
	writes     []time.Time
}

func (s simStore) Read(ctx context.Context) ([]byte, int64, error) {
	c := conn{s.s, s.dead}
	if err := c.call(ctx, "read"); err != nil {
		return nil, 0, err
	}
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	return s.o.data, s.o.generation, nil
}

func (s simStore) Write(ctx context.Context, data []byte, generation int64) (int64, error) {
	c := conn{s.s, s.dead}
	if err := c.call(ctx, "write"); err != nil {
		return 0, err
	}
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	if generation != s.o.generation {
		return 0, lease.ErrConflict
	}
	s.o.data, s.o.generation = data, s.o.generation+1
	s.o.writes = append(s.o.writes, time.Now())
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.chance() {
		return 0, errors.New("connection reset by peer")
	}
	return s.o.generation, nil
}
