package gcetest_test

import (
	"fmt"
	"testing"
	"time"

	compute "cloud.google.com/go/compute/apiv1"
	"cloud.google.com/go/compute/apiv1/computepb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

func manyZones(n int) []string {
	zones := make([]string, n)
	for i := range zones {
		zones[i] = fmt.Sprintf("sim-zone%d-%c", i/5, 'a'+i%5)
	}
	return zones
}

// big is a server with 2,000 hosts in 20 zones of 500.
func big(t testing.TB, clock gcetest.Clock) (*gcetest.Server, *gcetest.Hosts) {
	t.Helper()
	zones := manyZones(500)
	s, err := gcetest.Start(gcetest.Options{Zones: zones, Clock: clock, Latency: gcetest.Fixed(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, z := range zones[:20] {
		for _, v := range []string{"v1", "v2"} {
			s.AddDisk(project, z, &computepb.Disk{Name: proto.String(service + "-" + v), Labels: map[string]string{"service": service, "version": v}})
		}
	}
	hosts, err := s.AddHosts(gcetest.HostSpec{Project: project, Zones: zones[:20], Count: 2000, Service: service,
		Labels: map[string]string{"role": "repl-host"}, Disk: func(string, int) (string, string) { return service + "-v1", service + "-v1" }})
	if err != nil {
		t.Fatal(err)
	}
	return s, hosts
}

func TestManyHosts(t *testing.T) {
	start := time.Now()
	s, hosts := big(t, gcetest.ScaledClock(1000))
	c := &cloud{Server: s, t: t, ctx: t.Context()}
	c.instances = client(t, compute.NewInstancesRESTClient, s)
	listed := 0
	var group errgroup.Group
	group.SetLimit(8)
	for pair, err := range c.instances.AggregatedList(c.ctx, &computepb.AggregatedListInstancesRequest{Project: project,
		Filter: proto.String("labels.role=repl-host AND status=RUNNING")}).All() {
		if err != nil {
			t.Fatal(err)
		}
		z := pair.Key[len("zones/"):]
		for _, vm := range pair.Value.GetInstances() {
			listed++
			group.Go(func() error {
				_, err := c.instances.AttachDisk(c.ctx, &computepb.AttachDiskInstanceRequest{Project: project, Zone: z, Instance: vm.GetName(),
					RequestId: newID(), AttachedDiskResource: &computepb.AttachedDisk{Mode: proto.String("READ_ONLY"),
						DeviceName: proto.String(service + "-v2"), Source: proto.String("zones/" + z + "/disks/" + service + "-v2")}})
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if listed != 2000 {
		t.Errorf("listed %d hosts", listed)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		done := 0
		for _, v := range hosts.Current() {
			if v == "v2" {
				done++
			}
		}
		if done == 2000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d hosts run the new version", done)
		}
	}
	c.noViolations()
	if got := len(s.Attachments()); got != 3*2000 {
		t.Errorf("%d attachments, want a boot disk and two versions on each host", got)
	}
	t.Logf("2,000 hosts took %v", time.Since(start))
}

func BenchmarkAggregatedList(b *testing.B) {
	s, _ := big(b, gcetest.RealClock())
	instances, err := compute.NewInstancesRESTClient(b.Context(), option.WithEndpoint(s.URL()), option.WithoutAuthentication())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = instances.Close() })
	for b.Loop() {
		n := 0
		for pair, err := range instances.AggregatedList(b.Context(), &computepb.AggregatedListInstancesRequest{Project: project,
			Filter: proto.String("labels.role=repl-host AND status=RUNNING")}).All() {
			if err != nil {
				b.Fatal(err)
			}
			n += len(pair.Value.GetInstances())
		}
		if n != 2000 {
			b.Fatalf("%d instances", n)
		}
	}
}

func BenchmarkInsertDisk(b *testing.B) {
	s, err := gcetest.Start(gcetest.Options{Zones: manyZones(500), Latency: gcetest.Fixed(time.Millisecond)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	disks, err := compute.NewDisksRESTClient(b.Context(), option.WithEndpoint(s.URL()), option.WithoutAuthentication())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = disks.Close() })
	zones, n := manyZones(500), 0
	for b.Loop() {
		n++
		_, err := disks.Insert(b.Context(), &computepb.InsertDiskRequest{Project: project, Zone: zones[n%500], RequestId: newID(),
			DiskResource: &computepb.Disk{Name: proto.String(fmt.Sprint("d-", n))}})
		if err != nil {
			b.Fatal(err)
		}
	}
}
