package gcetest_test

import (
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

func addImage(c *cloud, name string, gb int64) {
	c.AddImage(project, &computepb.Image{Name: &name, DiskSizeGb: &gb})
}

func TestPublish(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	op, err := c.insertImage(&computepb.Image{Name: proto.String("nixmodules-v1"), Family: proto.String("nixmodules"),
		Labels: map[string]string{"service": "nixmodules"}, StorageLocations: []string{"us"},
		RawDisk: &computepb.RawDisk{Source: proto.String(bucket + "v1.tar.gz")}, DiskSizeGb: proto.Int64(3)})
	if got := op.Proto().GetStatus(); err == nil && got == computepb.Operation_DONE {
		t.Errorf("the operation is %v at once", got)
	}
	c.succeed("", op, err)
	img, err := c.images.GetFromFamily(c.ctx, &computepb.GetFromFamilyImageRequest{Project: project, Family: "nixmodules"})
	if err != nil {
		t.Fatal(err)
	}
	if img.GetStatus() != "READY" || img.GetId() == 0 || img.GetLabels()["service"] != "nixmodules" {
		t.Errorf("image %v", img)
	}
	op, err = c.insertDisk(&computepb.Disk{Name: proto.String("nixmodules-v1"), Type: diskType("pd-ssd"), SourceImage: img.SelfLink,
		Labels: map[string]string{"service": "nixmodules", "version": "v1"}})
	done := c.succeed(zone, op, err)
	d := c.disk("nixmodules-v1")
	if d.GetStatus() != "READY" || d.GetSizeGb() != 3 || d.GetSourceImage() != img.GetSelfLink() || done.GetTargetId() != d.GetId() {
		t.Errorf("disk %v", d)
	}
	if got := c.Mutations(); len(got) != 2 || got[0].Method != "images.insert" || got[1].Method != "disks.insert" {
		t.Errorf("mutations %v", got)
	}
	c.noViolations()
}

func TestDeletedImageLeavesDisks(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addImage(c, "v1", 2)
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d"), SourceImage: proto.String("global/images/v1")})
	c.succeed(zone, op, err)
	op, err = c.images.Delete(c.ctx, &computepb.DeleteImageRequest{Project: project, Image: "v1", RequestId: newID()})
	c.succeed("", op, err)
	if d := c.disk("d"); d.SourceImage != nil || d.GetSourceImageId() == "" {
		t.Errorf("the disk's source is %v, ID %v; want none, and the ID kept", d.GetSourceImage(), d.GetSourceImageId())
	}
	_, err = c.images.Get(c.ctx, &computepb.GetImageRequest{Project: project, Image: "v1"})
	wantError(t, err, 404, "notFound")
}

func TestRequestIDRepeated(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	req := &computepb.InsertDiskRequest{Project: project, Zone: zone, RequestId: newID(),
		DiskResource: &computepb.Disk{Name: proto.String("d"), SizeGb: proto.Int64(10)}}
	first, err := c.disks.Insert(c.ctx, req)
	c.succeed(zone, first, err)
	second, err := c.disks.Insert(c.ctx, req)
	if err != nil || second.Name() != first.Name() || !second.Done() {
		t.Errorf("got %v, %v; want the operation %s", second, err, first.Name())
	}
	if n := len(c.Mutations()); n != 1 {
		t.Errorf("%d mutations", n)
	}
	req.RequestId = newID()
	_, err = c.disks.Insert(c.ctx, req)
	wantError(t, err, 409, "alreadyExists")
	c.noViolations()

	other := proto.Clone(req).(*computepb.InsertDiskRequest)
	other.RequestId, other.DiskResource.SizeGb = first.Proto().ClientOperationId, proto.Int64(20)
	_, err = c.disks.Insert(c.ctx, other)
	wantError(t, err, 400, "invalid")
	if len(c.Violations()) != 1 {
		t.Errorf("violations %v, want one about the ID", c.Violations())
	}
}

func TestImageSourceMustBeOne(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addImage(c, "old", 1)
	raw := &computepb.RawDisk{Source: proto.String(bucket + "v1.tar.gz")}
	for _, tt := range []struct {
		name, reason string
		pb           *computepb.Image
	}{
		{"none", "badRequest", &computepb.Image{}},
		{"two", "badRequest", &computepb.Image{RawDisk: raw, SourceImage: proto.String("global/images/old")}},
		{"gs URL", "invalid", &computepb.Image{RawDisk: &computepb.RawDisk{Source: proto.String("gs://b/o.tar.gz")}}},
		{"not tar.gz", "invalid", &computepb.Image{RawDisk: &computepb.RawDisk{Source: proto.String(bucket + "v1.raw")}}},
		{"two locations", "invalid", &computepb.Image{RawDisk: raw, StorageLocations: []string{"us", "eu"}}},
		{"bad location", "invalid", &computepb.Image{RawDisk: raw, StorageLocations: []string{"us-central1-a"}}},
		{"bad family", "invalid", &computepb.Image{RawDisk: raw, Family: proto.String("Nix")}},
		{"bad label", "invalid", &computepb.Image{RawDisk: raw, Labels: map[string]string{"version": "1.0"}}},
		{"no size", "invalid", &computepb.Image{RawDisk: raw, DiskSizeGb: proto.Int64(0)}},
		{"unknown image", "invalid", &computepb.Image{SourceImage: proto.String("global/images/none")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.pb.Name = proto.String("new")
			_, err := c.insertImage(tt.pb)
			wantError(t, err, 400, tt.reason)
		})
	}
	if n := len(c.Mutations()); n != 0 {
		t.Errorf("%d refused inserts changed something", n)
	}
}

func TestDiskChecks(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addImage(c, "v1", 4)
	for _, tt := range []struct {
		name, reason string
		pb           *computepb.Disk
	}{
		{"name", "invalid", &computepb.Disk{Name: proto.String("Upper")}},
		{"no name", "required", &computepb.Disk{Name: proto.String("")}},
		{"bare type", "invalid", &computepb.Disk{Type: proto.String("pd-ssd")}},
		{"type elsewhere", "invalid", &computepb.Disk{Type: proto.String("zones/us-east1-b/diskTypes/pd-ssd")}},
		{"unknown type", "invalid", &computepb.Disk{Type: diskType("floppy")}},
		{"smaller than image", "invalid", &computepb.Disk{SourceImage: proto.String("global/images/v1"), SizeGb: proto.Int64(3)}},
		{"two sources", "badRequest", &computepb.Disk{SourceImage: proto.String("global/images/v1"), SourceSnapshot: proto.String("global/snapshots/s")}},
		{"image of another kind", "invalid", &computepb.Disk{SourceImage: proto.String("global/snapshots/v1")}},
		{"access mode of a PD", "invalid", &computepb.Disk{Type: diskType("pd-ssd"), AccessMode: proto.String("READ_ONLY_MANY")}},
		{"no such access mode", "invalid", &computepb.Disk{Type: diskType("hyperdisk-ml"), AccessMode: proto.String("READ_MANY")}},
		{"too small", "invalid", &computepb.Disk{Type: diskType("hyperdisk-ml"), SizeGb: proto.Int64(3)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.pb.Name == nil {
				tt.pb.Name = proto.String("d")
			}
			_, err := c.insertDisk(tt.pb)
			wantError(t, err, 400, tt.reason)
		})
	}
}

func TestLargerDiskIsWarnedOf(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addImage(c, "v1", 4)
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d"), SourceImage: proto.String("global/images/v1"), SizeGb: proto.Int64(10)})
	pb := c.succeed(zone, op, err)
	if len(pb.Warnings) != 1 || pb.Warnings[0].GetCode() != "DISK_SIZE_LARGER_THAN_IMAGE_SIZE" {
		t.Errorf("warnings %v", pb.Warnings)
	}
}

func TestSnapshotPath(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	c.AddDisk(project, zone, &computepb.Disk{Name: proto.String("built"), SizeGb: proto.Int64(20)})
	op, err := c.snapshots.Insert(c.ctx, &computepb.InsertSnapshotRequest{Project: project, RequestId: newID(),
		SnapshotResource: &computepb.Snapshot{Name: proto.String("v1"), SourceDisk: c.disk("built").SelfLink}})
	c.succeed("", op, err)
	op, err = c.disks.CreateSnapshot(c.ctx, &computepb.CreateSnapshotDiskRequest{Project: project, Zone: zone, Disk: "built", RequestId: newID(),
		SnapshotResource: &computepb.Snapshot{Name: proto.String("v1b")}})
	c.succeed(zone, op, err)
	op, err = c.insertDisk(&computepb.Disk{Name: proto.String("d"), SourceSnapshot: proto.String("global/snapshots/v1")})
	c.succeed(zone, op, err)
	if got := c.disk("d").GetSizeGb(); got != 20 {
		t.Errorf("%d GB, want 20", got)
	}
	op, err = c.snapshots.Delete(c.ctx, &computepb.DeleteSnapshotRequest{Project: project, Snapshot: "v1", RequestId: newID()})
	c.succeed("", op, err)
	_, err = c.snapshots.Get(c.ctx, &computepb.GetSnapshotRequest{Project: project, Snapshot: "v1"})
	wantError(t, err, 404, "notFound")
}

func TestTooManySnapshotsOfOneDisk(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c := newCloud(t, gcetest.Options{Clock: clock})
	c.AddDisk(project, zone, &computepb.Disk{Name: proto.String("built")})
	snap := func(n int) *computepb.Operation {
		op, err := c.snapshots.Insert(c.ctx, &computepb.InsertSnapshotRequest{Project: project, RequestId: newID(),
			SnapshotResource: &computepb.Snapshot{Name: proto.String(fmt.Sprint("s-", n)), SourceDisk: c.disk("built").SelfLink}})
		clock.Advance(time.Minute)
		return c.await("", op, err)
	}
	for n := range 6 {
		if pb := snap(n); pb.Error != nil {
			t.Errorf("snapshot %d: %v", n, pb.Error)
		}
	}
	wantLate(t, snap(6), "RESOURCE_OPERATION_RATE_EXCEEDED", 403)
	clock.Advance(time.Hour)
	if pb := snap(6); pb.Error != nil {
		t.Errorf("an hour later: %v", pb.Error)
	}
}

func TestLabelsFingerprint(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	c.AddDisk(project, zone, &computepb.Disk{Name: proto.String("d")})
	set := func(print string) error {
		op, err := c.disks.SetLabels(c.ctx, &computepb.SetLabelsDiskRequest{Project: project, Zone: zone, Resource: "d", RequestId: newID(),
			ZoneSetLabelsRequestResource: &computepb.ZoneSetLabelsRequest{Labels: map[string]string{"copy": "0"}, LabelFingerprint: &print}})
		if err == nil {
			c.succeed(zone, op, nil)
		}
		return err
	}
	old := c.disk("d").GetLabelFingerprint()
	if err := set(old); err != nil {
		t.Fatal(err)
	}
	if got := c.disk("d").GetLabels()["copy"]; got != "0" {
		t.Errorf("label %q", got)
	}
	wantError(t, set(old), 412, "conditionNotMet")
}

func TestAccessModeUpdate(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("ml"), Type: diskType("hyperdisk-ml")})
	c.succeed(zone, op, err)
	set := func(mode string) error {
		op, err := c.disks.Update(c.ctx, &computepb.UpdateDiskRequest{Project: project, Zone: zone, Disk: "ml", RequestId: newID(),
			Paths: proto.String("accessMode"), DiskResource: &computepb.Disk{AccessMode: &mode}})
		if err == nil {
			c.succeed(zone, op, nil)
		}
		return err
	}
	if err := set("READ_ONLY_MANY"); err != nil {
		t.Fatal(err)
	}
	wantError(t, set("READ_WRITE_SINGLE"), 400, "invalid")
	if got := c.disk("ml").GetAccessMode(); got != "READ_ONLY_MANY" {
		t.Errorf("access mode %s", got)
	}
}

func TestDeprecatedImages(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	c.AddImage(project, &computepb.Image{Name: proto.String("v1"), Family: proto.String("f")})
	c.AddImage(project, &computepb.Image{Name: proto.String("v2"), Family: proto.String("f")})
	deprecate := func(state string) {
		op, err := c.images.Deprecate(c.ctx, &computepb.DeprecateImageRequest{Project: project, Image: "v2", RequestId: newID(),
			DeprecationStatusResource: &computepb.DeprecationStatus{State: &state}})
		c.succeed("", op, err)
	}
	deprecate("DEPRECATED")
	img, err := c.images.GetFromFamily(c.ctx, &computepb.GetFromFamilyImageRequest{Project: project, Family: "f"})
	if err != nil || img.GetName() != "v1" {
		t.Errorf("the family's image is %v, %v", img.GetName(), err)
	}
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d"), SourceImage: proto.String("global/images/v2")})
	if w := c.succeed(zone, op, err).GetWarnings(); len(w) != 1 || w[0].GetCode() != "DEPRECATED_RESOURCE_USED" {
		t.Errorf("warnings %v", w)
	}
	deprecate("OBSOLETE")
	_, err = c.insertDisk(&computepb.Disk{Name: proto.String("e"), SourceImage: proto.String("global/images/v2")})
	wantError(t, err, 400, "invalid")
}
