package gce_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// newPair is a server, and a client on the same fast clock.
func newPair(t *testing.T, opt gcetest.Options) (*gcetest.Server, *gce.Client) {
	t.Helper()
	opt.Clock = gcetest.ScaledClock(1000)
	opt.Latency = gcetest.Uniform(time.Second, 5*time.Second)
	s, err := gcetest.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := gce.New(t.Context(), gce.Options{Endpoint: s.URL(), Clock: opt.Clock, Retry: gce.Retry{Budget: 10 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

// TestFaultsPass: whatever passes by itself is waited out, and each intended
// change comes with one request ID for as long as no operation has failed.
func TestFaultsPass(t *testing.T) {
	for _, kind := range []gcetest.FaultKind{gcetest.ErrorBefore, gcetest.ErrorAfter, gcetest.ResetBefore, gcetest.ResetAfter,
		gcetest.RateLimited403, gcetest.RateLimited429, gcetest.Slow, gcetest.OpInternal} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s, c := newPair(t, gcetest.Options{})
			s.AddFault(gcetest.Fault{Kind: kind, Probability: 0.3})
			for i := range 5 {
				err := c.InsertDisk(t.Context(), "prod-1", "us-central1-a", &computepb.Disk{Name: proto.String(fmt.Sprintf("d%d", i)), SizeGb: proto.Int64(10)})
				if err != nil && !(kind == gcetest.OpInternal && errors.Is(err, gce.ErrExists)) {
					t.Error(err)
				}
			}
			s.ClearFaults()
			disks, _, err := c.Disks(t.Context(), "prod-1", "")
			if err != nil || len(disks) != 5 {
				t.Errorf("%d disks, %v", len(disks), err)
			}
			ids := make(map[string]string)
			for _, call := range s.Calls("disks.insert") {
				if first, seen := ids[call.Resource]; seen && first != call.RequestID && kind != gcetest.OpInternal {
					t.Errorf("%s was asked for as %s and as %s", call.Resource, first, call.RequestID)
				}
				ids[call.Resource] = call.RequestID
			}
			if v := s.Violations(); len(v) > 0 {
				t.Errorf("violations: %q", v)
			}
		})
	}
}

// TestEverything makes, reads, attaches, detaches and deletes one of each.
func TestEverything(t *testing.T) {
	s, c := newPair(t, gcetest.Options{})
	ctx := t.Context()
	const project, zone = "prod-1", "us-central1-a"
	enabled := &computepb.Metadata{Items: []*computepb.Items{{Key: proto.String("enable-guest-attributes"), Value: proto.String("TRUE")}}}
	if err := s.AddInstance(project, zone, &computepb.Instance{Name: proto.String("vm"), Metadata: enabled}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddInstance(project, "us-central1-b", &computepb.Instance{Name: proto.String("mute")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GuestAttributes(ctx, project, "us-central1-b", "mute", "svc"); !errors.Is(err, gce.ErrDisabled) {
		t.Errorf("guest attributes that are not enabled: %v", err)
	}
	s.RemoveInstance(project, "us-central1-b", "mute")
	s.AddTemplate(project, &computepb.InstanceTemplate{Name: proto.String("tpl")})
	s.SetGuestAttributes(project, zone, "vm", "svc", map[string]string{"version": "v1"})
	steps := []struct {
		name string
		do   func() error
	}{
		{"image", func() error {
			return c.InsertImage(ctx, project, &computepb.Image{Name: proto.String("i"),
				RawDisk: &computepb.RawDisk{Source: proto.String("https://storage.googleapis.com/bucket/o.tar.gz")}})
		}},
		{"disk", func() error {
			return c.InsertDisk(ctx, project, zone, &computepb.Disk{Name: proto.String("d"), SourceImage: proto.String("global/images/i")})
		}},
		{"snapshot", func() error {
			return c.InsertSnapshot(ctx, project, &computepb.Snapshot{Name: proto.String("s"), SourceDisk: proto.String(gce.Link(project, "zones/"+zone+"/disks/d"))})
		}},
		{"attach", func() error {
			return c.AttachDisk(ctx, project, zone, "vm", &computepb.AttachedDisk{
				Source: proto.String(gce.Link(project, "zones/"+zone+"/disks/d")), DeviceName: proto.String("dev"), Mode: proto.String("READ_ONLY")})
		}},
		{"detach", func() error { return c.DetachDisk(ctx, project, zone, "vm", "dev") }},
		{"detach again", func() error { return c.DetachDisk(ctx, project, zone, "vm", "dev") }},
		{"reads", func() error { return readAll(ctx, c, project, zone) }},
		{"delete disk", func() error { return c.DeleteDisk(ctx, project, zone, "d") }},
		{"delete snapshot", func() error { return c.DeleteSnapshot(ctx, project, "s") }},
		{"delete image", func() error { return c.DeleteImage(ctx, project, "i") }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
	for name, gone := range map[string]error{"disk": c.DeleteDisk(ctx, project, zone, "d"), "snapshot": c.DeleteSnapshot(ctx, project, "s"), "image": c.DeleteImage(ctx, project, "i")} {
		if !errors.Is(gone, gce.ErrNotFound) {
			t.Errorf("deleting the %s again: %v", name, gone)
		}
	}
	if v := s.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// readAll reads one of each, by name and in lists.
func readAll(ctx context.Context, c *gce.Client, project, zone string) error {
	var errs [10]error
	_, errs[0] = c.Image(ctx, project, "i")
	_, errs[1] = c.Disk(ctx, project, zone, "d")
	_, errs[2] = c.Snapshot(ctx, project, "s")
	_, errs[3] = c.Instance(ctx, project, zone, "vm")
	values, err := c.GuestAttributes(ctx, project, zone, "vm", "svc")
	if errs[4] = err; err == nil && values["version"] != "v1" {
		errs[4] = fmt.Errorf("guest attributes are %v", values)
	}
	counts := make([]int, 5)
	images, err := c.Images(ctx, project, "")
	counts[0], errs[5] = len(images), err
	disks, _, err := c.Disks(ctx, project, "")
	counts[1], errs[6] = len(disks), err
	snapshots, err := c.Snapshots(ctx, project, "")
	counts[2], errs[7] = len(snapshots), err
	instances, _, err := c.Instances(ctx, project, "")
	counts[3], errs[8] = len(instances), err
	templates, _, err := c.Templates(ctx, project, "")
	counts[4], errs[9] = len(templates), err
	for _, n := range counts {
		if n != 1 {
			return fmt.Errorf("the lists have %v", counts)
		}
	}
	return errors.Join(errs[:]...)
}

// TestLimitHolds: many workers on two projects stay within Google's way of
// counting, which is by the minute, and lose no time.
func TestLimitHolds(t *testing.T) {
	s, c := newPair(t, gcetest.Options{RateLimits: map[gcetest.Group]gcetest.RateLimit{gcetest.Mutations: {Calls: 660, Per: time.Minute}}})
	began := s.Clock().Now()
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			name := fmt.Sprintf("d%d", i)
			if err := c.InsertDisk(t.Context(), fmt.Sprintf("prod-%d", i%2), "us-central1-a", &computepb.Disk{Name: &name, SizeGb: proto.Int64(10)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, call := range s.Calls("disks.insert") {
		if call.Status != 200 {
			t.Errorf("a call was answered with %d", call.Status)
		}
	}
	if took := s.Clock().Now().Sub(began); took < 10*time.Second {
		t.Errorf("100 mutations a project took %v", took)
	}
}
