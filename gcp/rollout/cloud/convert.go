package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/world"
)

// idOf reads the URL of a zone's instance or disk.
func idOf(url string) (world.ID, bool) {
	parts := strings.Split(gce.Path(url), "/")
	if len(parts) != 6 || parts[0] != "projects" || parts[2] != "zones" {
		return "", false
	}
	id := world.IDOf(parts[1], parts[3], parts[5])
	return id, id.Valid()
}

// sharedCore are the machine types that take fewer disks.
var sharedCore = []string{"f1-micro", "g1-small", "e2-micro", "e2-small", "e2-medium"}

// host reads an instance. Local SSDs take no place of a persistent disk's.
func host(id world.ID, i *computepb.Instance, versionOf func(world.ID) string) *world.Host {
	h := &world.Host{ID: id, Incarnation: i.GetId(), Shared: slices.Contains(sharedCore, gce.Base(i.GetMachineType()))}
	if t, err := time.Parse(time.RFC3339, i.GetLastStartTimestamp()); err == nil {
		h.Started = t
	}
	for _, d := range i.GetDisks() {
		disk, ok := idOf(d.GetSource())
		if !ok && d.GetType() == computepb.AttachedDisk_SCRATCH.String() {
			continue
		}
		a := world.Attachment{
			Device: d.GetDeviceName(), Disk: disk, ReadOnly: d.GetMode() == computepb.AttachedDisk_READ_ONLY.String(), Boot: d.GetBoot(),
		}
		if !a.Boot {
			a.Version = versionOf(disk)
		}
		h.Attachments = append(h.Attachments, a)
	}
	return h
}

// diskOf reads a disk.
func diskOf(project string, d *computepb.Disk) *world.Disk {
	disk := &world.Disk{
		ID:      world.IDOf(project, gce.Base(d.GetZone()), d.GetName()),
		Version: d.GetLabels()[fleet.LabelVersion], Ready: d.GetStatus() == "READY",
		Failed:      d.GetStatus() == "FAILED" || d.GetStatus() == "DELETING",
		SourceImage: d.GetSourceImage(), SourceSnapshot: d.GetSourceSnapshot(), Type: gce.Base(d.GetType()), SizeGB: d.GetSizeGb(),
	}
	disk.Copy, _ = strconv.Atoi(d.GetLabels()[fleet.LabelCopy])
	for _, user := range d.GetUsers() {
		if id, ok := idOf(user); ok {
			disk.Users = append(disk.Users, id)
		}
	}
	return disk
}

// spec is the disk that a copy is to be.
func (c *Cloud) spec(ctx context.Context, cp plan.Copy, version string) (publish.DiskSpec, error) {
	project := cp.Zone.Project()
	target, zone, ok := c.cfg.Zone(project, cp.Zone.Name())
	if !ok {
		return publish.DiskSpec{}, fmt.Errorf("%s is not in the configuration (%w)", cp.Zone, world.ErrFinal)
	}
	spec := publish.DiskSpec{Config: c.cfg, Project: project, Zone: zone, Version: version, Copy: cp.Copy}
	name := fleet.ImageName(c.cfg.Service, version, target.StorageLocation)
	image, err := c.compute.Image(ctx, project, name)
	if errors.Is(err, gce.ErrNotFound) {
		return c.fromSnapshot(ctx, spec, name)
	}
	if err != nil {
		return spec, err
	}
	spec.Image, spec.SourceID = gce.Link(project, "global/images/"+name), image.GetId()
	spec.SHA, spec.SizeGB = image.GetLabels()[fleet.LabelSHA], image.GetDiskSizeGb()
	return spec, nil
}

// fromSnapshot is for versions that were published without an image.
func (c *Cloud) fromSnapshot(ctx context.Context, spec publish.DiskSpec, image string) (publish.DiskSpec, error) {
	name := fleet.SnapshotName(c.cfg.Service, spec.Version)
	snapshot, err := c.compute.Snapshot(ctx, spec.Project, name)
	if errors.Is(err, gce.ErrNotFound) {
		return spec, fmt.Errorf("version %s has neither image %s nor snapshot %s in project %s: publish it first (%w)",
			spec.Version, image, name, spec.Project, world.ErrFinal)
	}
	if err != nil {
		return spec, err
	}
	spec.Snapshot, spec.SourceID = gce.Link(spec.Project, "global/snapshots/"+name), snapshot.GetId()
	spec.SHA, spec.SizeGB = snapshot.GetLabels()[fleet.LabelSHA], snapshot.GetDiskSizeGb()
	return spec, nil
}
