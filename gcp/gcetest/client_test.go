package gcetest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	compute "cloud.google.com/go/compute/apiv1"
	"cloud.google.com/go/compute/apiv1/computepb"
	"github.com/google/uuid"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

const (
	project = "prod-1"
	zone    = "us-central1-a"
	bucket  = "https://storage.googleapis.com/nixmodules-images/"
)

// cloud is a server with the real clients of it.
type cloud struct {
	*gcetest.Server
	t         *testing.T
	ctx       context.Context
	images    *compute.ImagesClient
	disks     *compute.DisksClient
	snapshots *compute.SnapshotsClient
	instances *compute.InstancesClient
	templates *compute.InstanceTemplatesClient
	zones     *compute.ZonesClient
	zoneOps   *compute.ZoneOperationsClient
	globalOps *compute.GlobalOperationsClient
}

func newCloud(t *testing.T, opt gcetest.Options) *cloud {
	t.Helper()
	if opt.Latency == nil {
		opt.Latency = gcetest.Fixed(time.Millisecond)
	}
	s, err := gcetest.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{Server: s, t: t, ctx: t.Context()}
	c.images = client(t, compute.NewImagesRESTClient, s)
	c.disks = client(t, compute.NewDisksRESTClient, s)
	c.snapshots = client(t, compute.NewSnapshotsRESTClient, s)
	c.instances = client(t, compute.NewInstancesRESTClient, s)
	c.templates = client(t, compute.NewInstanceTemplatesRESTClient, s)
	c.zones = client(t, compute.NewZonesRESTClient, s)
	c.zoneOps = client(t, compute.NewZoneOperationsRESTClient, s)
	c.globalOps = client(t, compute.NewGlobalOperationsRESTClient, s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func client[C interface{ Close() error }](t *testing.T, make func(context.Context, ...option.ClientOption) (C, error), s *gcetest.Server) C {
	t.Helper()
	c, err := make(t.Context(), option.WithEndpoint(s.URL()), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newID() *string { return proto.String(uuid.NewString()) }

// await waits for an operation in the zone, or for a global one if that is empty.
func (c *cloud) await(zone string, op *compute.Operation, err error) *computepb.Operation {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	pb := op.Proto()
	for pb.GetStatus() != computepb.Operation_DONE {
		if zone == "" {
			pb, err = c.globalOps.Wait(c.ctx, &computepb.WaitGlobalOperationRequest{Project: project, Operation: pb.GetName()})
		} else {
			pb, err = c.zoneOps.Wait(c.ctx, &computepb.WaitZoneOperationRequest{Project: project, Zone: zone, Operation: pb.GetName()})
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return pb
}

// succeed is await for an operation that must not fail.
func (c *cloud) succeed(zone string, op *compute.Operation, err error) *computepb.Operation {
	c.t.Helper()
	pb := c.await(zone, op, err)
	if pb.Error != nil {
		c.t.Fatalf("operation %s: %v", pb.GetOperationType(), pb.Error)
	}
	return pb
}

func (c *cloud) insertImage(pb *computepb.Image) (*compute.Operation, error) {
	return c.images.Insert(c.ctx, &computepb.InsertImageRequest{Project: project, RequestId: newID(), ImageResource: pb})
}

func (c *cloud) insertDisk(pb *computepb.Disk) (*compute.Operation, error) {
	return c.disks.Insert(c.ctx, &computepb.InsertDiskRequest{Project: project, Zone: zone, RequestId: newID(), DiskResource: pb})
}

func (c *cloud) attach(instance, disk, device, mode string) (*compute.Operation, error) {
	return c.instances.AttachDisk(c.ctx, &computepb.AttachDiskInstanceRequest{Project: project, Zone: zone, Instance: instance, RequestId: newID(),
		AttachedDiskResource: &computepb.AttachedDisk{Source: proto.String("zones/" + zone + "/disks/" + disk), DeviceName: &device, Mode: &mode}})
}

func (c *cloud) detach(instance, device string) (*compute.Operation, error) {
	return c.instances.DetachDisk(c.ctx, &computepb.DetachDiskInstanceRequest{Project: project, Zone: zone, Instance: instance,
		DeviceName: device, RequestId: newID()})
}

func (c *cloud) disk(name string) *computepb.Disk {
	c.t.Helper()
	d, err := c.disks.Get(c.ctx, &computepb.GetDiskRequest{Project: project, Zone: zone, Disk: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func (c *cloud) noViolations() {
	c.t.Helper()
	for _, v := range c.Violations() {
		c.t.Errorf("violation: %s", v)
	}
}

// wantError checks status and reason of a refusal.
func wantError(t *testing.T, err error, code int, reason string) {
	t.Helper()
	var ge *googleapi.Error
	if !errors.As(err, &ge) {
		t.Fatalf("got %v, want a refusal %d %s", err, code, reason)
	}
	if ge.Code != code || len(ge.Errors) != 1 || ge.Errors[0].Reason != reason {
		t.Errorf("got %d %v, want %d %s", ge.Code, ge.Errors, code, reason)
	}
}

// wantLate checks the code of a failure inside an operation.
func wantLate(t *testing.T, op *computepb.Operation, code string, status int32) {
	t.Helper()
	if op.GetStatus() != computepb.Operation_DONE || len(op.GetError().GetErrors()) != 1 {
		t.Fatalf("got %v, want an operation that failed with %s", op, code)
	}
	if got := op.GetError().GetErrors()[0].GetCode(); got != code || op.GetHttpErrorStatusCode() != status {
		t.Errorf("got %s %d, want %s %d", got, op.GetHttpErrorStatusCode(), code, status)
	}
}

func diskType(name string) *string {
	return proto.String("projects/" + project + "/zones/" + zone + "/diskTypes/" + name)
}
