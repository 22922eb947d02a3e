package gcetest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestOperationStates(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c := newCloud(t, gcetest.Options{Clock: clock, Latency: gcetest.Fixed(10 * time.Second)})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  computepb.Operation_Status
	}{{0, computepb.Operation_PENDING}, {time.Second, computepb.Operation_RUNNING}, {8 * time.Second, computepb.Operation_RUNNING}, {time.Second, computepb.Operation_DONE}} {
		clock.Advance(step.after)
		if err := op.Poll(c.ctx); err != nil {
			t.Fatal(err)
		}
		if got := op.Proto().GetStatus(); got != step.want {
			t.Errorf("at %v: %v, want %v", clock.Now().Sub(newYear), got, step.want)
		}
	}
	pb := op.Proto()
	if pb.GetInsertTime() == "" || pb.GetStartTime() == "" || pb.GetEndTime() <= pb.GetStartTime() || pb.GetProgress() != 100 {
		t.Errorf("times and progress of %v", pb)
	}
	found := 0
	for op, err := range c.zoneOps.List(c.ctx, &computepb.ListZoneOperationsRequest{Project: project, Zone: zone,
		Filter: proto.String(`(status = DONE) (clientOperationId = "` + pb.GetClientOperationId() + `")`)}).All() {
		if err != nil || op.GetName() != pb.GetName() {
			t.Errorf("listed %v, %v", op.GetName(), err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("%d operations of the request ID", found)
	}
}

func TestWaitEndsAtItsLimit(t *testing.T) {
	c := newCloud(t, gcetest.Options{Clock: gcetest.ScaledClock(1000), Latency: gcetest.Fixed(150 * time.Second)})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	if err != nil {
		t.Fatal(err)
	}
	wait := func() *computepb.Operation {
		pb, err := c.zoneOps.Wait(c.ctx, &computepb.WaitZoneOperationRequest{Project: project, Zone: zone, Operation: op.Name()})
		if err != nil {
			t.Fatal(err)
		}
		return pb
	}
	if got := wait().GetStatus(); got != computepb.Operation_RUNNING {
		t.Errorf("after two minutes: %v", got)
	}
	if got := wait().GetStatus(); got != computepb.Operation_DONE {
		t.Errorf("after the second wait: %v", got)
	}
}

func TestOperationsAreForgotten(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c := newCloud(t, gcetest.Options{Clock: clock, Latency: gcetest.Fixed(time.Second), OperationRetention: time.Hour})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Second)
	if err := op.Poll(c.ctx); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Hour)
	wantError(t, errors.Unwrap(op.Poll(c.ctx)), 404, "notFound")
}

func TestImportFailsInsideTheOperation(t *testing.T) {
	for _, keep := range []bool{false, true} {
		c := newCloud(t, gcetest.Options{KeepFailedImages: keep, ImageSource: func(_ context.Context, url string) (gcetest.ImageInfo, error) {
			if strings.HasSuffix(url, "bad.tar.gz") {
				return gcetest.ImageInfo{}, errors.New("no disk.raw")
			}
			return gcetest.ImageInfo{DiskSizeGB: 7, ArchiveBytes: 12345}, nil
		}})
		raw := func(object string) *computepb.RawDisk {
			return &computepb.RawDisk{Source: proto.String(bucket + object)}
		}
		op, err := c.insertImage(&computepb.Image{Name: proto.String("bad"), RawDisk: raw("bad.tar.gz")})
		wantLate(t, c.await("", op, err), "INVALID_IMAGE_TAR", 400)
		img, err := c.images.Get(c.ctx, &computepb.GetImageRequest{Project: project, Image: "bad"})
		if keep && img.GetStatus() != "FAILED" {
			t.Errorf("the failed image is %v, %v", img.GetStatus(), err)
		} else if !keep {
			wantError(t, err, 404, "notFound")
		}
		op, err = c.insertImage(&computepb.Image{Name: proto.String("good"), RawDisk: raw("good.tar.gz")})
		c.succeed("", op, err)
		img, err = c.images.Get(c.ctx, &computepb.GetImageRequest{Project: project, Image: "good"})
		if err != nil || img.GetDiskSizeGb() != 7 || img.GetArchiveSizeBytes() != 12345 {
			t.Errorf("imported %v, %v", img, err)
		}
	}
}

func TestLatencies(t *testing.T) {
	c := newCloud(t, gcetest.Options{Clock: gcetest.ScaledClock(100), Latency: gcetest.LogNormal(time.Second, 5*time.Second),
		MethodLatency: map[string]gcetest.Distribution{"disks.delete": gcetest.Fixed(time.Minute)}, ReplyLatency: gcetest.Fixed(time.Second)})
	start := c.Clock().Now()
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	if took := c.Clock().Now().Sub(start); took < time.Second {
		t.Errorf("the reply took %v", took)
	}
	c.succeed(zone, op, err)
	start = c.Clock().Now()
	op, err = c.disks.Delete(c.ctx, &computepb.DeleteDiskRequest{Project: project, Zone: zone, Disk: "d", RequestId: newID()})
	c.succeed(zone, op, err)
	if took := c.Clock().Now().Sub(start); took < time.Minute {
		t.Errorf("the deletion took %v", took)
	}
}
