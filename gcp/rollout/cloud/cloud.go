// Package cloud is Compute Engine and Cloud Storage as a rollout sees them: it
// reads instances and disks into package world, attaches and detaches, makes
// disks as publishing does, and keeps the rollout's document in an object.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/world"
)

// Compute is what is needed of the Compute Engine client.
type Compute interface {
	publish.Compute
	Instances(ctx context.Context, project, filter string) ([]*computepb.Instance, []string, error)
	GuestAttributes(ctx context.Context, project, zone, instance, namespace string) (map[string]string, error)
	Running(ctx context.Context, project, zone string) ([]*computepb.Operation, error)
	Now() time.Time
}

// Cloud reads and changes a fleet. It may be used from many goroutines.
type Cloud struct {
	cfg     *fleet.Config
	compute Compute
	maker   *publish.Maker
	log     *slog.Logger

	mu       sync.Mutex
	versions map[world.ID]string // of the disks that were looked up; "" for others' disks
}

// New makes a Cloud. log may be nil.
func New(cfg *fleet.Config, compute Compute, log *slog.Logger) *Cloud {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Cloud{
		cfg: cfg, compute: compute, log: log, versions: map[world.ID]string{},
		maker: &publish.Maker{Compute: compute, Patience: gce.Retry{Budget: makeBudget}, Making: makeBudget, Logger: log},
	}
}

const (
	// makeBudget is how long the making of one disk is tried at a time.
	makeBudget = 2 * time.Minute
	// parallelZones is how many zones' operations are listed at a time.
	parallelZones = 10
	zoneTimeout   = 20 * time.Second
)

// filter selects the service's own resources.
func (c *Cloud) filter() string { return "labels." + fleet.LabelService + "=" + c.cfg.Service }

// Now is the time by Compute Engine's clock.
func (c *Cloud) Now() time.Time { return c.compute.Now() }

// Look reads all hosts and all of the service's disks. A project that cannot be
// read at all makes its zones unknown; if none can be read, that is an error.
func (c *Cloud) Look(ctx context.Context) (*world.World, error) {
	w := world.New()
	projects := c.cfg.Projects()
	var mu sync.Mutex
	var failed []error
	var group errgroup.Group
	for _, project := range projects {
		group.Go(func() error {
			seen, err := c.lookAt(ctx, project)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				c.lost(w, project, err)
				return nil
			}
			maps.Copy(w.Hosts, seen.Hosts)
			maps.Copy(w.Disks, seen.Disks)
			maps.Copy(w.Unknown, seen.Unknown)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if len(failed) == len(projects) {
		return nil, errors.Join(failed...)
	}
	return w, nil
}

// lost marks all of a project's zones.
func (c *Cloud) lost(w *world.World, project string, err error) {
	for _, t := range c.cfg.Targets {
		for _, z := range t.Zones {
			if t.Project == project {
				w.Unknown[world.ZoneOf(project, z.Name)] = err.Error()
			}
		}
	}
}

// lookAt reads one project. Disks come first, so that the versions of what is
// attached are known.
func (c *Cloud) lookAt(ctx context.Context, project string) (*world.World, error) {
	w := world.New()
	disks, missing, err := c.compute.Disks(ctx, project, c.filter())
	if err != nil {
		return nil, err
	}
	instances, more, err := c.compute.Instances(ctx, project, c.cfg.Hosts.Filter)
	if err != nil {
		return nil, err
	}
	for _, zone := range append(missing, more...) {
		if _, _, ours := c.cfg.Zone(project, zone); ours {
			w.Unknown[world.ZoneOf(project, zone)] = "the zone cannot be reached"
		}
	}
	known := func(id world.ID) bool {
		_, _, ours := c.cfg.Zone(project, id.Zone().Name())
		_, unknown := w.Unknown[id.Zone()]
		return ours && !unknown
	}
	for _, d := range disks {
		if disk := c.disk(project, d); known(disk.ID) {
			w.Disks[disk.ID] = disk
		}
	}
	for _, i := range instances {
		id := world.IDOf(project, gce.Base(i.GetZone()), i.GetName())
		if known(id) {
			w.Hosts[id] = host(id, i, c.remembered)
		}
	}
	return w, nil
}

// disk reads a disk, and remembers its version.
func (c *Cloud) disk(project string, d *computepb.Disk) *world.Disk {
	disk := diskOf(project, d)
	c.remember(disk.ID, disk.Version)
	return disk
}

func (c *Cloud) remember(id world.ID, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions[id] = version
}

// remembered is the version of a disk; "" if it is not known to be ours.
func (c *Cloud) remembered(id world.ID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.versions[id]
}

// Host reads one instance. Attached disks that were not seen before are looked
// up.
func (c *Cloud) Host(ctx context.Context, id world.ID) (*world.Host, error) {
	i, err := c.compute.Instance(ctx, id.Zone().Project(), id.Zone().Name(), id.Name())
	if errors.Is(err, gce.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", world.ErrGone, err)
	}
	if err != nil {
		return nil, err
	}
	for _, a := range i.GetDisks() {
		if err := c.lookUp(ctx, a); err != nil {
			return nil, err
		}
	}
	return host(id, i, c.remembered), nil
}

// lookUp finds out whose an attached disk is, unless that is known.
func (c *Cloud) lookUp(ctx context.Context, a *computepb.AttachedDisk) error {
	id, ok := idOf(a.GetSource())
	if !ok || a.GetBoot() {
		return nil
	}
	c.mu.Lock()
	_, known := c.versions[id]
	c.mu.Unlock()
	if known {
		return nil
	}
	d, err := c.compute.Disk(ctx, id.Zone().Project(), id.Zone().Name(), id.Name())
	if err != nil {
		return fmt.Errorf("a disk that is attached: %w", err)
	}
	if d.GetLabels()[fleet.LabelService] == c.cfg.Service {
		c.remember(id, d.GetLabels()[fleet.LabelVersion])
	} else {
		c.remember(id, "")
	}
	return nil
}

// Report reads what a host says of itself. [guest.ErrNone] may also mean that
// there is no such host.
func (c *Cloud) Report(ctx context.Context, id world.ID) (guest.Report, error) {
	values, err := c.compute.GuestAttributes(ctx, id.Zone().Project(), id.Zone().Name(), id.Name(), c.cfg.Service)
	if errors.Is(err, gce.ErrNotFound) {
		return guest.Report{}, guest.ErrNone
	}
	if err != nil {
		return guest.Report{}, err
	}
	return guest.Parse(values)
}

// Attach attaches a disk READ_ONLY.
func (c *Cloud) Attach(ctx context.Context, id, disk world.ID, device string) error {
	err := c.compute.AttachDisk(ctx, id.Zone().Project(), id.Zone().Name(), id.Name(), &computepb.AttachedDisk{
		Source:     proto.String(gce.Link(disk.Zone().Project(), "zones/"+disk.Zone().Name()+"/disks/"+disk.Name())),
		DeviceName: proto.String(device),
		Mode:       proto.String(computepb.AttachedDisk_READ_ONLY.String()),
		AutoDelete: proto.Bool(false),
	})
	return classify(err)
}

// Detach detaches by device name.
func (c *Cloud) Detach(ctx context.Context, id world.ID, device string) error {
	return classify(c.compute.DetachDisk(ctx, id.Zone().Project(), id.Zone().Name(), id.Name(), device))
}

// classify marks the errors that trying again does not help with.
func classify(err error) error {
	for _, final := range []error{gce.ErrPermission, gce.ErrQuota, gce.ErrLimit, gce.ErrInvalid} {
		if errors.Is(err, final) {
			return fmt.Errorf("%w (%w)", err, world.ErrFinal)
		}
	}
	if errors.As(err, new(*publish.DiffersError)) {
		return fmt.Errorf("%w (%w)", err, world.ErrFinal)
	}
	return err
}

// InFlight lists the instances that disks are being attached to or detached
// from. Zones that do not answer are left out: their hosts are not changed
// either as long as that is so.
func (c *Cloud) InFlight(ctx context.Context) ([]world.ID, error) {
	var mu sync.Mutex
	busy := world.Set{}
	var group errgroup.Group
	group.SetLimit(parallelZones)
	for _, t := range c.cfg.Targets {
		for _, z := range t.Zones {
			group.Go(func() error {
				zoneCtx, cancel := context.WithTimeout(ctx, zoneTimeout)
				defer cancel()
				operations, err := c.compute.Running(zoneCtx, t.Project, z.Name)
				if err != nil {
					c.log.Warn("operations cannot be listed", "project", t.Project, "zone", z.Name, "err", err)
					return ctx.Err()
				}
				mu.Lock()
				defer mu.Unlock()
				for _, op := range operations {
					if id, ok := changing(op); ok {
						busy.Add(id)
					}
				}
				return nil
			})
		}
	}
	err := group.Wait()
	return slices.Collect(maps.Keys(busy)), err
}

// changing is the instance that an operation attaches a disk to or detaches one
// from.
func changing(op *computepb.Operation) (world.ID, bool) {
	switch kind := op.GetOperationType(); {
	case strings.EqualFold(kind, "attachDisk"), strings.EqualFold(kind, "detachDisk"):
		return idOf(op.GetTargetLink())
	}
	return "", false
}

// CreateDisk makes a copy of a version's disk from the version's image, or from
// the snapshot that other disks of it were made from.
func (c *Cloud) CreateDisk(ctx context.Context, cp plan.Copy, version string) error {
	spec, err := c.spec(ctx, cp, version)
	if err != nil {
		return err
	}
	_, err = c.maker.EnsureDisk(ctx, spec, false)
	return classify(err)
}
