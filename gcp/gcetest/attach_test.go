package gcetest_test

import (
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

func addVM(c *cloud, name string) {
	c.t.Helper()
	if err := c.AddInstance(project, zone, &computepb.Instance{Name: &name}); err != nil {
		c.t.Fatal(err)
	}
}

func addDisk(c *cloud, name, typeName string) {
	c.AddDisk(project, zone, &computepb.Disk{Name: &name, Type: &typeName})
}

func TestAttachAndDetach(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addVM(c, "vm")
	addDisk(c, "d", "pd-ssd")
	op, err := c.attach("vm", "d", "nix-v1", "READ_ONLY")
	c.succeed(zone, op, err)
	vm, err := c.instances.Get(c.ctx, &computepb.GetInstanceRequest{Project: project, Zone: zone, Instance: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	d := c.disk("d")
	if len(vm.Disks) != 1 || vm.Disks[0].GetDeviceName() != "nix-v1" || vm.Disks[0].GetMode() != "READ_ONLY" || vm.Disks[0].GetSource() != d.GetSelfLink() {
		t.Errorf("the instance's disks: %v", vm.Disks)
	}
	if len(d.Users) != 1 || d.Users[0] != vm.GetSelfLink() || d.GetLastAttachTimestamp() == "" {
		t.Errorf("the disk's users: %v, since %q", d.Users, d.GetLastAttachTimestamp())
	}
	_, err = c.disks.Delete(c.ctx, &computepb.DeleteDiskRequest{Project: project, Zone: zone, Disk: "d", RequestId: newID()})
	wantError(t, err, 400, "resourceInUseByAnotherResource")
	op, err = c.detach("vm", "nix-v1")
	c.succeed(zone, op, err)
	if d = c.disk("d"); len(d.Users) != 0 || d.GetLastDetachTimestamp() == "" {
		t.Errorf("after detaching: users %v, since %q", d.Users, d.GetLastDetachTimestamp())
	}
	_, err = c.detach("vm", "nix-v1")
	wantError(t, err, 400, "invalid")
	op, err = c.disks.Delete(c.ctx, &computepb.DeleteDiskRequest{Project: project, Zone: zone, Disk: "d", RequestId: newID()})
	c.succeed(zone, op, err)
}

func TestAttachRefusals(t *testing.T) {
	c := newCloud(t, gcetest.Options{Latency: gcetest.Fixed(time.Millisecond)})
	addVM(c, "vm")
	addDisk(c, "ssd", "pd-ssd")
	addDisk(c, "balanced", "hyperdisk-balanced")
	op, err := c.attach("vm", "ssd", "taken", "READ_ONLY")
	c.succeed(zone, op, err)
	c.AddDisk(project, "us-east1-b", &computepb.Disk{Name: proto.String("far")})
	if err := c.AddInstance(project, zone, &computepb.Instance{Name: proto.String("n4"), MachineType: proto.String("n4-standard-4")}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, vm, source, device, mode string
		code                           int
		reason                         string
	}{
		{"no source", "vm", "", "x", "READ_ONLY", 400, "required"},
		{"bare source", "vm", "ssd", "x", "READ_ONLY", 400, "invalid"},
		{"other zone", "vm", "zones/us-east1-b/disks/far", "x", "READ_ONLY", 400, "invalid"},
		{"no disk", "vm", "zones/" + zone + "/disks/none", "x", "READ_ONLY", 404, "notFound"},
		{"no instance", "none", "zones/" + zone + "/disks/ssd", "x", "READ_ONLY", 404, "notFound"},
		{"mode", "vm", "zones/" + zone + "/disks/ssd", "x", "RO", 400, "invalid"},
		{"device name", "vm", "zones/" + zone + "/disks/balanced", "taken", "READ_WRITE", 400, "invalid"},
		{"not for readers", "vm", "zones/" + zone + "/disks/balanced", "x", "READ_ONLY", 400, "badRequest"},
		{"not for that machine", "n4", "zones/" + zone + "/disks/ssd", "x", "READ_ONLY", 400, "badRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.instances.AttachDisk(c.ctx, &computepb.AttachDiskInstanceRequest{Project: project, Zone: zone, Instance: tt.vm, RequestId: newID(),
				AttachedDiskResource: &computepb.AttachedDisk{Source: &tt.source, DeviceName: &tt.device, Mode: &tt.mode}})
			wantError(t, err, tt.code, tt.reason)
		})
	}
}

func TestAttachConflicts(t *testing.T) {
	c := newCloud(t, gcetest.Options{DiskLimit: func(string) int { return 4 }, ReaderLimits: map[string]int{"pd-standard": 2}})
	for _, vm := range []string{"a", "b", "c"} {
		addVM(c, vm)
	}
	addDisk(c, "shared", "pd-standard")
	addDisk(c, "own", "pd-ssd")
	addDisk(c, "ml", "hyperdisk-ml")
	ok := func(vm, disk, device, mode string) {
		t.Helper()
		op, err := c.attach(vm, disk, device, mode)
		c.succeed(zone, op, err)
	}
	fails := func(vm, disk, device, mode, code string) {
		t.Helper()
		op, err := c.attach(vm, disk, device, mode)
		wantLate(t, c.await(zone, op, err), code, 400)
	}
	ok("a", "shared", "one", "READ_ONLY")
	fails("a", "shared", "two", "READ_ONLY", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE")
	fails("b", "shared", "one", "READ_WRITE", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE")
	ok("b", "shared", "one", "READ_ONLY")
	fails("c", "shared", "one", "READ_ONLY", "LIMIT_EXCEEDED")
	ok("a", "own", "own", "READ_WRITE")
	fails("b", "own", "own", "READ_ONLY", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE")
	ok("a", "ml", "ml", "READ_ONLY")
	fails("b", "ml", "ml", "READ_ONLY", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE") // its access mode is still READ_WRITE_SINGLE
	for n := range 3 {
		name := fmt.Sprintf("more-%d", n)
		addDisk(c, name, "pd-ssd")
		if n < 1 {
			ok("a", name, name, "READ_ONLY")
			continue
		}
		fails("a", name, name, "READ_ONLY", "LIMIT_EXCEEDED")
	}
	if got := c.disk("shared").GetUsers(); len(got) != 2 {
		t.Errorf("users of the shared disk: %v", got)
	}
}

func TestAttachBeforeReady(t *testing.T) {
	clock := gcetest.NewManualClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	c := newCloud(t, gcetest.Options{Clock: clock, Latency: gcetest.Fixed(time.Minute)})
	addVM(c, "vm")
	if _, err := c.insertDisk(&computepb.Disk{Name: proto.String("d"), SizeGb: proto.Int64(10)}); err != nil {
		t.Fatal(err)
	}
	if got := c.disk("d").GetStatus(); got != "CREATING" {
		t.Errorf("status %s", got)
	}
	_, err := c.attach("vm", "d", "d", "READ_ONLY")
	wantError(t, err, 400, "resourceNotReady")
	clock.Advance(time.Minute)
	if got := c.disk("d").GetStatus(); got != "READY" {
		t.Errorf("status %s after a minute", got)
	}
	if _, err = c.attach("vm", "d", "d", "READ_ONLY"); err != nil {
		t.Error(err)
	}
	_, err = c.disks.Delete(c.ctx, &computepb.DeleteDiskRequest{Project: project, Zone: zone, Disk: "d", RequestId: newID()})
	wantError(t, err, 400, "resourceInUseByAnotherResource") // on its way to the instance
}

func TestInstanceNeedsItsDisks(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addDisk(c, "d", "pd-ssd")
	err := c.AddInstance(project, zone, &computepb.Instance{Name: proto.String("vm"), Disks: []*computepb.AttachedDisk{
		{Source: c.disk("d").SelfLink}, {Source: proto.String("zones/" + zone + "/disks/none")}}})
	if err == nil || len(c.disk("d").GetUsers()) != 0 {
		t.Errorf("got %v, and the disk has the users %v", err, c.disk("d").GetUsers())
	}
}

func TestRecreatedInstanceLosesDisks(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addVM(c, "vm")
	addDisk(c, "d", "pd-ssd")
	op, err := c.attach("vm", "d", "d", "READ_ONLY")
	c.succeed(zone, op, err)
	addVM(c, "vm")
	if got := c.disk("d").GetUsers(); len(got) != 0 {
		t.Errorf("users %v", got)
	}
	c.RemoveInstance(project, zone, "vm")
	_, err = c.instances.Get(c.ctx, &computepb.GetInstanceRequest{Project: project, Zone: zone, Instance: "vm"})
	wantError(t, err, 404, "notFound")
}
