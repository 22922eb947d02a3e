package gce

import (
	"context"

	compute "cloud.google.com/go/compute/apiv1"
	"cloud.google.com/go/compute/apiv1/computepb"
)

// importFactor is how many times longer than other operations the making of an
// image is awaited: it reads all of the archive.
const importFactor = 4

func global(project, kind, name string) string {
	return "projects/" + project + "/global/" + kind + "/" + name
}

func zonal(project, zone, kind, name string) string {
	return "projects/" + project + "/zones/" + zone + "/" + kind + "/" + name
}

// InsertImage makes an image and returns when it is made.
func (c *Client) InsertImage(ctx context.Context, project string, image *computepb.Image) error {
	return c.mutate(ctx, mutation{
		what: what{"insert", global(project, "images", image.GetName())}, project: project, timeout: importFactor * c.opTimeout,
		send: func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.images.Insert(ctx, &computepb.InsertImageRequest{
				Project: project, ImageResource: image, RequestId: &id}, single(callTimeout)...)
		},
	})
}

// InsertSnapshot makes a snapshot and returns when it is made.
func (c *Client) InsertSnapshot(ctx context.Context, project string, snapshot *computepb.Snapshot) error {
	return c.mutate(ctx, mutation{
		what: what{"insert", global(project, "snapshots", snapshot.GetName())}, project: project, timeout: importFactor * c.opTimeout,
		send: func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.snapshots.Insert(ctx, &computepb.InsertSnapshotRequest{
				Project: project, SnapshotResource: snapshot, RequestId: &id}, single(callTimeout)...)
		},
	})
}

// InsertDisk makes a disk and returns when it is made.
func (c *Client) InsertDisk(ctx context.Context, project, zone string, disk *computepb.Disk) error {
	return c.mutate(ctx, c.zonalMutation(what{"insert", zonal(project, zone, "disks", disk.GetName())}, project, zone,
		func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.disks.Insert(ctx, &computepb.InsertDiskRequest{
				Project: project, Zone: zone, DiskResource: disk, RequestId: &id}, single(callTimeout)...)
		}))
}

func (c *Client) zonalMutation(w what, project, zone string, send func(context.Context, string) (*compute.Operation, error)) mutation {
	return mutation{what: w, project: project, zone: zone, timeout: c.opTimeout, send: send}
}

// DeleteImage deletes an image; [ErrNotFound] where there is none.
func (c *Client) DeleteImage(ctx context.Context, project, name string) error {
	return c.mutate(ctx, mutation{
		what: what{"delete", global(project, "images", name)}, project: project, timeout: c.opTimeout,
		send: func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.images.Delete(ctx, &computepb.DeleteImageRequest{
				Project: project, Image: name, RequestId: &id}, single(callTimeout)...)
		},
	})
}

// DeleteSnapshot deletes a snapshot; [ErrNotFound] where there is none.
func (c *Client) DeleteSnapshot(ctx context.Context, project, name string) error {
	return c.mutate(ctx, mutation{
		what: what{"delete", global(project, "snapshots", name)}, project: project, timeout: c.opTimeout,
		send: func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.snapshots.Delete(ctx, &computepb.DeleteSnapshotRequest{
				Project: project, Snapshot: name, RequestId: &id}, single(callTimeout)...)
		},
	})
}

// DeleteDisk deletes a disk; [ErrNotFound] where there is none, [ErrInUse]
// where it is attached.
func (c *Client) DeleteDisk(ctx context.Context, project, zone, name string) error {
	return c.mutate(ctx, c.zonalMutation(what{"delete", zonal(project, zone, "disks", name)}, project, zone,
		func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.disks.Delete(ctx, &computepb.DeleteDiskRequest{
				Project: project, Zone: zone, Disk: name, RequestId: &id}, single(callTimeout)...)
		}))
}

// AttachDisk attaches a disk to an instance. The mode has to be given: without
// it the service would take READ_WRITE. A disk that is attached already, also
// to this instance, is [ErrInUse]; after that and after [ErrUnavailable] and
// [ErrTimeout] read the instance to see what is so.
func (c *Client) AttachDisk(ctx context.Context, project, zone, instance string, disk *computepb.AttachedDisk) error {
	w := what{"attach " + Base(disk.GetSource()) + " to", zonal(project, zone, "instances", instance)}
	if disk.GetMode() == "" || disk.GetDeviceName() == "" || disk.GetSource() == "" {
		return &Error{Kind: ErrInvalid, Verb: w.verb, Resource: w.resource, Message: "mode, device name and source have to be given"}
	}
	return c.mutate(ctx, c.zonalMutation(w, project, zone,
		func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.instances.AttachDisk(ctx, &computepb.AttachDiskInstanceRequest{
				Project: project, Zone: zone, Instance: instance, AttachedDiskResource: disk, RequestId: &id}, single(callTimeout)...)
		}))
}

// DetachDisk detaches what is attached to an instance under a device name. It
// succeeds where nothing is. The guest is not asked: it has to have unmounted.
func (c *Client) DetachDisk(ctx context.Context, project, zone, instance, device string) error {
	err := c.mutate(ctx, c.zonalMutation(what{"detach " + device + " from", zonal(project, zone, "instances", instance)}, project, zone,
		func(ctx context.Context, id string) (*compute.Operation, error) {
			return c.instances.DetachDisk(ctx, &computepb.DetachDiskInstanceRequest{
				Project: project, Zone: zone, Instance: instance, DeviceName: device, RequestId: &id}, single(callTimeout)...)
		}))
	if isUnknownDevice(err) {
		return nil
	}
	return err
}
