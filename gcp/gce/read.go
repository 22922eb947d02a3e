package gce

import (
	"context"
	"errors"
	"strings"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// isUnknownDevice recognises what the service says of a device that is not
// attached: there is no reason of its own for it.
func isUnknownDevice(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == ErrInvalid && strings.Contains(e.Message, "No attached disk found with device name")
}

// read makes a call that changes nothing.
func (c *Client) read(ctx context.Context, w what, project string, f func(context.Context) error) error {
	return c.call(ctx, c.reads, project, c.newAttempts(w), f)
}

// Image reads an image.
func (c *Client) Image(ctx context.Context, project, name string) (image *computepb.Image, err error) {
	err = c.read(ctx, what{"get", global(project, "images", name)}, project, func(ctx context.Context) (err error) {
		image, err = c.images.Get(ctx, &computepb.GetImageRequest{Project: project, Image: name}, single(callTimeout)...)
		return err
	})
	return image, err
}

// Snapshot reads a snapshot.
func (c *Client) Snapshot(ctx context.Context, project, name string) (snapshot *computepb.Snapshot, err error) {
	err = c.read(ctx, what{"get", global(project, "snapshots", name)}, project, func(ctx context.Context) (err error) {
		snapshot, err = c.snapshots.Get(ctx, &computepb.GetSnapshotRequest{Project: project, Snapshot: name}, single(callTimeout)...)
		return err
	})
	return snapshot, err
}

// Disk reads a disk.
func (c *Client) Disk(ctx context.Context, project, zone, name string) (disk *computepb.Disk, err error) {
	err = c.read(ctx, what{"get", zonal(project, zone, "disks", name)}, project, func(ctx context.Context) (err error) {
		disk, err = c.disks.Get(ctx, &computepb.GetDiskRequest{Project: project, Zone: zone, Disk: name}, single(callTimeout)...)
		return err
	})
	return disk, err
}

// Instance reads an instance.
func (c *Client) Instance(ctx context.Context, project, zone, name string) (instance *computepb.Instance, err error) {
	err = c.read(ctx, what{"get", zonal(project, zone, "instances", name)}, project, func(ctx context.Context) (err error) {
		instance, err = c.instances.Get(ctx, &computepb.GetInstanceRequest{Project: project, Zone: zone, Instance: name}, single(callTimeout)...)
		return err
	})
	return instance, err
}

// GuestAttributes reads what an instance has written about itself under a
// namespace, by key. [ErrNotFound] means that it has written nothing, or that
// there is no such instance, [ErrDisabled] that its metadata forbids it. Any
// process on the instance can write them.
func (c *Client) GuestAttributes(ctx context.Context, project, zone, instance, namespace string) (map[string]string, error) {
	var reply *computepb.GuestAttributes
	w := what{"get guest attributes " + namespace + "/ of", zonal(project, zone, "instances", instance)}
	err := c.read(ctx, w, project, func(ctx context.Context) (err error) {
		reply, err = c.instances.GetGuestAttributes(ctx, &computepb.GetGuestAttributesInstanceRequest{
			Project: project, Zone: zone, Instance: instance, QueryPath: proto.String(namespace + "/")}, single(callTimeout)...)
		return err
	})
	if err != nil {
		return nil, disabled(err)
	}
	values := make(map[string]string)
	for _, item := range reply.GetQueryValue().GetItems() {
		values[item.GetKey()] = item.GetValue()
	}
	return values, nil
}

// disabled recognises what the service says of guest attributes that are turned
// off, whatever status comes with it.
func disabled(err error) error {
	var e *Error
	if errors.As(err, &e) && strings.Contains(e.Message, "endpoint access is disabled") {
		e.Kind = ErrDisabled
	}
	return err
}
