package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
)

// group is a project's storage location: an image, and the zones whose disks
// are made from it. When publishing from a disk there is no image, and every
// disk is made from the snapshot.
type group struct {
	project, location string
	image             *Item
	zones             []*zone
}

// zone is a zone's disks.
type zone struct {
	fleet.Zone
	disks []*Item // copy 1 first

	mu      sync.Mutex
	stopped error // quota or permission: nothing more is tried here
}

// planGroups lists images and disks: all images first.
func (p *publisher) planGroups() {
	byPlace := make(map[[2]string]*group)
	for _, t := range p.Config.Targets {
		at := [2]string{t.Project, t.StorageLocation}
		g := byPlace[at]
		if g == nil {
			g = &group{project: t.Project, location: t.StorageLocation}
			byPlace[at] = g
			p.groups = append(p.groups, g)
			if p.FromDisk == nil {
				g.image = p.add(Item{Kind: KindImage, Project: t.Project, Place: t.StorageLocation, Name: p.imageSpec(g).Name()})
			}
		}
		for _, z := range t.Zones {
			g.zones = append(g.zones, &zone{Zone: z})
		}
	}
	for _, g := range p.groups {
		for _, z := range g.zones {
			for copy := 1; copy <= z.Copies; copy++ {
				name := fleet.DiskName(p.Config.Service, p.Release.Version, z.Name, copy)
				z.disks = append(z.disks, p.add(Item{Kind: KindDisk, Project: g.project, Place: z.Name, Name: name, Type: z.DiskType}))
			}
		}
	}
}

func (g *group) disks() []*Item {
	var items []*Item
	for _, z := range g.zones {
		items = append(items, z.disks...)
	}
	return items
}

func (p *publisher) imageSpec(g *group) ImageSpec {
	return ImageSpec{
		Config: p.Config, Project: g.project, Location: g.location, Version: p.Release.Version, SHA: p.Release.SHA256,
		Object: fleet.ObjectName(p.Config.Service, p.Release.Version), SizeGB: sizeGB(p.Release.Size),
	}
}

// existing lists, once a project, the disks that are there. Without a list
// every disk is looked at by itself.
func (p *publisher) existing(ctx context.Context) map[string]*diskList {
	filter := fmt.Sprintf("(labels.%s = %s) AND (labels.%s = %s)", fleet.LabelService, p.Config.Service,
		fleet.LabelVersion, fleet.LabelValue(p.Release.Version))
	lists := make(map[string]*diskList)
	var all sync.WaitGroup
	for _, project := range p.Config.Projects() {
		l := new(diskList)
		lists[project] = l
		all.Go(func() { l.read(ctx, p.Compute, project, filter) })
	}
	all.Wait()
	return lists
}

// diskList is what is known of a project's disks.
type diskList struct {
	complete bool
	unknown  map[string]bool // zones
	disks    map[[2]string]*computepb.Disk
}

func (l *diskList) read(ctx context.Context, c Compute, project, filter string) {
	disks, unreachable, err := c.Disks(ctx, project, filter)
	if err != nil {
		return
	}
	l.complete, l.unknown, l.disks = true, make(map[string]bool), make(map[[2]string]*computepb.Disk)
	for _, z := range unreachable {
		l.unknown[z] = true
	}
	for _, d := range disks {
		l.disks[[2]string{gce.Base(d.GetZone()), d.GetName()}] = d
	}
}

// find returns a disk, and whether it is known not to be there.
func (l *diskList) find(zone, name string) (disk *computepb.Disk, absent bool) {
	d := l.disks[[2]string{zone, name}]
	return d, d == nil && l.complete && !l.unknown[zone]
}

// runGroup makes the image, then all disks from it.
func (p *publisher) runGroup(ctx context.Context, g *group, found *diskList, pace slots) {
	source, err := p.source(ctx, g, pace)
	if err != nil {
		p.leave(g.disks(), err)
		return
	}
	var all sync.WaitGroup
	for _, z := range g.zones {
		for i, it := range z.disks {
			s := source
			s.Zone, s.Copy = z.Zone, i+1
			all.Go(func() { p.runDisk(ctx, z, it, s, found, pace) })
		}
	}
	all.Wait()
}

// source makes what a group's disks are made from.
func (p *publisher) source(ctx context.Context, g *group, pace slots) (DiskSpec, error) {
	s := DiskSpec{Config: p.Config, Project: g.project, Version: p.Release.Version, SHA: p.Release.SHA256, SizeGB: sizeGB(p.Release.Size)}
	if p.build != nil {
		s.Snapshot, s.SourceID, s.SizeGB = p.build.link(), p.build.id, max(s.SizeGB, p.build.sizeGB)
		return s, nil
	}
	spec := p.imageSpec(g)
	s.Image = spec.Link()
	g.image.Bytes = spec.SizeGB * gib
	err := p.timed(ctx, g.image, func() (State, error) {
		if p.DryRun {
			return planned(func() (string, []string, error) {
				have, err := p.Compute.Image(ctx, g.project, spec.Name())
				s.SourceID = have.GetId()
				return have.GetStatus(), spec.differs(have), err
			})
		}
		return p.maker.patiently(ctx, pace, func() (State, error) {
			have, state, err := p.maker.EnsureImage(ctx, spec)
			s.SourceID = have.GetId()
			return state, err
		})
	})
	if err != nil {
		return s, fmt.Errorf("image %s of %s was not made", spec.Name(), g.project)
	}
	return s, nil
}

// planned says of a resource what a run would do.
func planned(read func() (string, []string, error)) (State, error) {
	status, differs, err := read()
	switch {
	case errors.Is(err, gce.ErrNotFound):
		return Planned, nil
	case err != nil:
		return "", err
	case len(differs) > 0:
		return "", &DiffersError{Resource: "it", What: differs}
	}
	return stateOf(statusOf(status) == ready, Found, Planned), nil
}

// runDisk makes one disk.
func (p *publisher) runDisk(ctx context.Context, z *zone, it *Item, s DiskSpec, found *diskList, pace slots) {
	it.Bytes = s.size() * gib
	_ = p.timed(ctx, it, func() (State, error) { // the item has the error
		have, gone := found.find(z.Name, it.Name)
		if have != nil && statusOf(have.GetStatus()) == ready {
			if d := s.differs(have); len(d) > 0 {
				return "", &DiffersError{Resource: "disk " + it.Name + " in " + s.Project + ", " + z.Name, What: d}
			}
			return Found, nil
		}
		if p.DryRun {
			return p.lookDisk(ctx, s, gone)
		}
		return p.maker.patiently(ctx, pace, func() (State, error) {
			if err := z.isStopped(); err != nil {
				return "", err
			}
			state, err := p.maker.EnsureDisk(ctx, s, gone)
			gone = false
			z.stop(err)
			return state, err
		})
	})
}

func (p *publisher) lookDisk(ctx context.Context, s DiskSpec, gone bool) (State, error) {
	if gone {
		return Planned, nil
	}
	return planned(func() (string, []string, error) {
		have, err := p.Compute.Disk(ctx, s.Project, s.Zone.Name, s.Name())
		return have.GetStatus(), s.differs(have), err
	})
}

// stop keeps the zone's other copies from being tried in vain.
func (z *zone) stop(err error) {
	if !errors.Is(err, gce.ErrQuota) && !errors.Is(err, gce.ErrPermission) {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.stopped == nil {
		z.stopped = err
	}
}

func (z *zone) isStopped() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.stopped == nil {
		return nil
	}
	return fmt.Errorf("not tried any more in %s: %w", z.Name, z.stopped)
}
