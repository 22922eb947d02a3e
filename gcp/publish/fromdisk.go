package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
)

// FromDisk is the way for images too large to import: an instance writes the
// image to a disk, and zones' disks are made from that disk's snapshot.
type FromDisk struct {
	// Builder is the instance; project, zone and instance are given.
	Builder fleet.Builder
	// Base is a version whose snapshot the disk begins as, so that only what
	// has changed needs to be written; empty for a blank disk.
	Base string
	// Write makes the device, which is attached to this machine under the
	// name, equal to the image.
	Write func(ctx context.Context, device string) error
}

// labelBuild is the version that a build disk is written for. It has no label
// version, so that nobody takes it for a disk to attach.
const labelBuild = "build"

// build is the disk that is written, and its snapshot.
type build struct {
	*publisher
	project, zone string
	item          *Item  // the snapshot's
	id            uint64 // of the snapshot
	sizeGB        int64  // of the snapshot, once it is known
	written       bool   // by this run, and detached
}

func (p *publisher) planBuild() {
	at := p.FromDisk.Builder
	p.build = &build{publisher: p, project: at.Project, zone: at.Zone}
	p.build.item = p.add(Item{
		Kind: KindSnapshot, Project: at.Project, Place: p.Config.Targets[0].StorageLocation,
		Name: fleet.SnapshotName(p.Config.Service, p.Release.Version),
	})
}

// link refers to the snapshot in requests.
func (b *build) link() string { return gce.Link(b.project, "global/snapshots/"+b.item.Name) }

func (b *build) diskName() string {
	return fleet.BuildDiskName(b.Config.Service, b.Release.Version)
}

func (b *build) diskLink() string {
	return gce.Link(b.project, "zones/"+b.zone+"/disks/"+b.diskName())
}

func (b *build) device() string {
	return fleet.DeviceName(b.Config.Service, b.Release.Version)
}

// runBuild sees to the snapshot.
func (p *publisher) runBuild(ctx context.Context) error {
	b := p.build
	err := p.timed(ctx, b.item, func() (State, error) {
		if p.DryRun {
			return planned(func() (string, []string, error) {
				have, err := p.Compute.Snapshot(ctx, b.project, b.item.Name)
				b.note(have)
				return have.GetStatus(), b.differs(have), err
			})
		}
		state, err := p.maker.patiently(ctx, make(slots, 1), func() (State, error) { return b.ensureSnapshot(ctx) })
		if err == nil {
			b.clean(ctx)
		}
		return state, err
	})
	if err != nil {
		return fmt.Errorf("snapshot %s was not made", b.item.Name)
	}
	return nil
}

func (b *build) ensureSnapshot(ctx context.Context) (State, error) {
	name := "snapshot " + b.item.Name + " in " + b.project
	look := func(ctx context.Context) (status, error) {
		have, err := b.Compute.Snapshot(ctx, b.project, b.item.Name)
		b.note(have)
		return judge(name, have.GetStatus(), err, func() []string { return b.differs(have) })
	}
	state, err := b.maker.ensure(ctx, resource{
		name: name, look: look,
		insert: func(ctx context.Context) error { return b.make(ctx) },
		remove: func(ctx context.Context) error { return b.Compute.DeleteSnapshot(ctx, b.project, b.item.Name) },
	}, false)
	if err == nil && state == Created {
		_, err = look(ctx)
	}
	return state, err
}

// clean deletes the disk that was written, which may be one of an earlier run.
// The snapshot does not need it.
func (b *build) clean(ctx context.Context) {
	_, err := b.maker.patiently(ctx, make(slots, 1), func() (State, error) { return "", b.remove(ctx) })
	if err != nil {
		b.Logger.Warn("the disk that the snapshot was made from is left", "disk", gce.Path(b.diskLink()), "because", err)
	}
}

// note keeps what disks made from the snapshot have to be like.
func (b *build) note(have *computepb.Snapshot) {
	b.id, b.sizeGB = have.GetId(), have.GetDiskSizeGb()
	b.item.Bytes = b.sizeGB * gib
}

func (b *build) differs(have *computepb.Snapshot) []string {
	d := compareLabels(have.GetLabels(), labels(b.Config, b.Release.Version, b.Release.SHA256))
	if least := sizeGB(b.Release.Size); have.GetDiskSizeGb() < least {
		d = append(d, fmt.Sprintf("its size is %d GB, and %d GB are wanted", have.GetDiskSizeGb(), least))
	}
	return d
}

// make writes the image to a disk and makes the snapshot of it.
func (b *build) make(ctx context.Context) error {
	if !b.written {
		if err := b.write(ctx); err != nil {
			return err
		}
		b.written = true
	}
	return b.Compute.InsertSnapshot(ctx, b.project, &computepb.Snapshot{
		Name:             proto.String(b.item.Name),
		Description:      describe(b.Release.Version, b.Release.SHA256),
		Labels:           labels(b.Config, b.Release.Version, b.Release.SHA256),
		SourceDisk:       proto.String(b.diskLink()),
		StorageLocations: []string{b.item.Place},
	})
}

// write makes a disk that equals the image, attached to nothing.
func (b *build) write(ctx context.Context) error {
	if err := b.ensureDisk(ctx); err != nil {
		return err
	}
	device, err := b.attach(ctx)
	if err != nil {
		return err
	}
	if err := b.FromDisk.Write(ctx, device); err != nil {
		return fmt.Errorf("disk %s stays attached to %s, run again to go on: %w", b.diskName(), b.FromDisk.Builder.Instance, err)
	}
	return b.Compute.DetachDisk(ctx, b.project, b.zone, b.FromDisk.Builder.Instance, device)
}

// diskLabels are those of the disk that is written.
func (b *build) diskLabels() map[string]string {
	l := maps.Clone(labels(b.Config, b.Release.Version, b.Release.SHA256))
	l[labelBuild] = l[fleet.LabelVersion]
	delete(l, fleet.LabelVersion)
	return l
}

// ensureDisk makes the disk that is written, blank or as the base's snapshot.
func (b *build) ensureDisk(ctx context.Context) error {
	want, err := b.wantedDisk(ctx)
	if err != nil {
		return err
	}
	name := "disk " + b.diskName() + " in " + b.project + ", " + b.zone
	_, err = b.maker.ensure(ctx, resource{
		name: name,
		look: func(ctx context.Context) (status, error) {
			have, err := b.Compute.Disk(ctx, b.project, b.zone, b.diskName())
			return judge(name, have.GetStatus(), err, func() []string { return b.diskDiffers(have, want) })
		},
		insert: func(ctx context.Context) error { return b.Compute.InsertDisk(ctx, b.project, b.zone, want) },
		remove: func(ctx context.Context) error { return b.Compute.DeleteDisk(ctx, b.project, b.zone, b.diskName()) },
	}, false)
	return err
}

func (b *build) wantedDisk(ctx context.Context) (*computepb.Disk, error) {
	d := &computepb.Disk{
		Name:        proto.String(b.diskName()),
		Description: describe(b.Release.Version, b.Release.SHA256),
		Labels:      b.diskLabels(),
		Type:        proto.String(fleet.DiskTypeURL(b.project, b.zone, b.FromDisk.Builder.DiskType)),
		SizeGb:      proto.Int64(sizeGB(b.Release.Size)),
	}
	if b.FromDisk.Base == "" {
		return d, nil
	}
	name := fleet.SnapshotName(b.Config.Service, b.FromDisk.Base)
	base, err := b.Compute.Snapshot(ctx, b.project, name)
	if err != nil {
		return nil, fmt.Errorf("the base version %s: %w", b.FromDisk.Base, err)
	}
	d.SourceSnapshot = proto.String(gce.Link(b.project, "global/snapshots/"+name))
	d.SizeGb = proto.Int64(max(d.GetSizeGb(), base.GetDiskSizeGb()))
	return d, nil
}

// diskDiffers compares a disk of an earlier run. It may have begun as something
// else: what is not right on it is written.
func (b *build) diskDiffers(have, want *computepb.Disk) []string {
	var d []string
	for _, name := range []string{fleet.LabelService, labelBuild, fleet.LabelSHA} {
		if have.GetLabels()[name] != want.GetLabels()[name] {
			d = append(d, fmt.Sprintf("its label %s is %q, and %q is wanted", name, have.GetLabels()[name], want.GetLabels()[name]))
		}
	}
	if least := sizeGB(b.Release.Size); have.GetSizeGb() < least {
		d = append(d, fmt.Sprintf("its size is %d GB, and %d GB are wanted", have.GetSizeGb(), least))
	}
	return d
}

// attached finds the device name under which the builder has the disk, for
// writing; empty where it has not.
func (b *build) attached(ctx context.Context) (string, error) {
	vm, err := b.Compute.Instance(ctx, b.project, b.zone, b.FromDisk.Builder.Instance)
	if err != nil {
		return "", err
	}
	for _, d := range vm.GetDisks() {
		if gce.Path(d.GetSource()) != gce.Path(b.diskLink()) {
			continue
		}
		if d.GetMode() != computepb.AttachedDisk_READ_WRITE.String() {
			return "", fmt.Errorf("disk %s is attached to %s for reading only: detach it", b.diskName(), vm.GetName())
		}
		return d.GetDeviceName(), nil
	}
	return "", nil
}

// attachPatience is how long a refused attachment may turn out to be under way
// already: an instance lists what is attached, not what is being attached.
const attachPatience = 2 * time.Minute

// attach attaches the disk to the builder unless it is. After any failure the
// instance says whether it is attached now.
func (b *build) attach(ctx context.Context) (string, error) {
	for deadline := b.Clock.Now().Add(attachPatience); ; {
		device, err := b.attached(ctx)
		if err != nil || device != "" {
			return device, err
		}
		failed := b.Compute.AttachDisk(ctx, b.project, b.zone, b.FromDisk.Builder.Instance, &computepb.AttachedDisk{
			Source:     proto.String(b.diskLink()),
			DeviceName: proto.String(b.device()),
			Mode:       proto.String(computepb.AttachedDisk_READ_WRITE.String()),
			AutoDelete: proto.Bool(false),
		})
		if failed == nil {
			return b.device(), nil
		}
		if passes(failed) || errors.Is(failed, gce.ErrPermission) || errors.Is(failed, gce.ErrQuota) || b.Clock.Now().After(deadline) {
			return "", failed
		}
		if err := gce.Sleep(ctx, b.Clock, 3*time.Second); err != nil {
			return "", errors.Join(failed, err)
		}
	}
}

// remove detaches and deletes the disk that was written, if it is there and
// ours.
func (b *build) remove(ctx context.Context) error {
	have, err := b.Compute.Disk(ctx, b.project, b.zone, b.diskName())
	if errors.Is(err, gce.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if have.GetLabels()[labelBuild] != fleet.LabelValue(b.Release.Version) || have.GetLabels()[fleet.LabelService] != b.Config.Service {
		return nil // somebody else's
	}
	device, err := b.attached(ctx)
	if err == nil && device != "" {
		err = b.Compute.DetachDisk(ctx, b.project, b.zone, b.FromDisk.Builder.Instance, device)
	}
	if err != nil && !errors.Is(err, gce.ErrNotFound) {
		return err
	}
	err = b.Compute.DeleteDisk(ctx, b.project, b.zone, b.diskName())
	if errors.Is(err, gce.ErrNotFound) {
		return nil
	}
	return err
}
