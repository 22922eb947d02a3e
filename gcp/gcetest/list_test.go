package gcetest_test

import (
	"fmt"
	"slices"
	"testing"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

func TestPages(t *testing.T) {
	c := newCloud(t, gcetest.Options{Zones: []string{"us-east1-b", "us-east1-c", "us-east1-d"}})
	for n := range 25 {
		for _, z := range []string{"us-east1-b", "us-east1-d"} {
			c.AddDisk(project, z, &computepb.Disk{Name: proto.String(fmt.Sprintf("d-%02d", n)), Labels: map[string]string{"odd": fmt.Sprint(n % 2)}})
		}
	}
	var names []string
	for d, err := range c.disks.List(c.ctx, &computepb.ListDisksRequest{Project: project, Zone: "us-east1-b", MaxResults: proto.Uint32(4),
		Filter: proto.String("labels.odd=1")}).All() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, d.GetName())
		if len(names) == 6 { // goes away between two pages; nothing is left out or given twice
			c.RemoveInstance(project, "us-east1-b", "none")
		}
	}
	if len(names) != 12 || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != 12 {
		t.Errorf("listed %v", names)
	}
	if got := len(c.Calls("disks.list")); got != 3 {
		t.Errorf("%d pages, want 3", got)
	}
	total, scopes := 0, map[string]bool{}
	for pair, err := range c.disks.AggregatedList(c.ctx, &computepb.AggregatedListDisksRequest{Project: project, MaxResults: proto.Uint32(7)}).All() {
		if err != nil {
			t.Fatal(err)
		}
		total += len(pair.Value.GetDisks())
		scopes[pair.Key] = true
	}
	if total != 50 || len(scopes) != 3 {
		t.Errorf("%d disks in %v", total, scopes)
	}
}

func TestListParameters(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	addDisk(c, "a", "pd-ssd")
	addDisk(c, "b", "pd-ssd")
	for _, tt := range []struct {
		name string
		req  *computepb.ListDisksRequest
	}{
		{"page size", &computepb.ListDisksRequest{MaxResults: proto.Uint32(501)}},
		{"order", &computepb.ListDisksRequest{OrderBy: proto.String("sizeGb")}},
		{"filter", &computepb.ListDisksRequest{Filter: proto.String("labels.a==b")}},
		{"field", &computepb.ListDisksRequest{Filter: proto.String("nosuch=b")}},
		{"token", &computepb.ListDisksRequest{PageToken: proto.String("xyz")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Project, tt.req.Zone = project, zone
			_, err := c.disks.List(c.ctx, tt.req).Next()
			wantError(t, err, 400, "invalid")
		})
	}
	it := c.disks.List(c.ctx, &computepb.ListDisksRequest{Project: project, Zone: zone, MaxResults: proto.Uint32(1), OrderBy: proto.String("creationTimestamp desc")})
	if _, err := it.Next(); err != nil {
		t.Fatal(err)
	}
	token := it.PageInfo().Token
	_, err := c.disks.List(c.ctx, &computepb.ListDisksRequest{Project: project, Zone: zone, PageToken: &token}).Next()
	wantError(t, err, 400, "invalid") // a token of another order
}

func TestUnreachableZone(t *testing.T) {
	zones := []string{"us-east1-b", "us-east1-c", "us-east1-d"}
	c := newCloud(t, gcetest.Options{Zones: zones})
	for _, z := range zones[:2] {
		if err := c.AddInstance(project, z, &computepb.Instance{Name: proto.String("vm")}); err != nil {
			t.Fatal(err)
		}
	}
	c.SetUnreachable(true, "us-east1-c")
	it := c.instances.AggregatedList(c.ctx, &computepb.AggregatedListInstancesRequest{Project: project})
	got := map[string]string{}
	for pair, err := range it.All() {
		if err != nil {
			t.Fatal(err)
		}
		got[pair.Key] = fmt.Sprintf("%d %s", len(pair.Value.GetInstances()), pair.Value.GetWarning().GetCode())
	}
	for scope, want := range map[string]string{"zones/us-east1-b": "1 ", "zones/us-east1-c": "0 UNREACHABLE", "zones/us-east1-d": "0 NO_RESULTS_ON_PAGE"} {
		if got[scope] != want {
			t.Errorf("%s: %q, want %q", scope, got[scope], want)
		}
	}
	if u := it.Response.(*computepb.InstanceAggregatedList).GetUnreachables(); !slices.Equal(u, []string{"zones/us-east1-c"}) {
		t.Errorf("unreachables %v", u)
	}
	_, err := c.instances.AttachDisk(c.ctx, &computepb.AttachDiskInstanceRequest{Project: project, Zone: "us-east1-c", Instance: "vm", RequestId: newID(),
		AttachedDiskResource: &computepb.AttachedDisk{Source: proto.String("zones/us-east1-c/disks/d")}})
	wantError(t, err, 503, "backendError")
	c.SetUnreachable(false, "us-east1-c")
	if _, err := c.instances.Get(c.ctx, &computepb.GetInstanceRequest{Project: project, Zone: "us-east1-c", Instance: "vm"}); err != nil {
		t.Error(err)
	}
}

func TestZonesAndTemplates(t *testing.T) {
	c := newCloud(t, gcetest.Options{Zones: []string{"us-east1-c", "us-east1-b"}})
	var zones []string
	for z, err := range c.zones.List(c.ctx, &computepb.ListZonesRequest{Project: project}).All() {
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, z.GetName())
	}
	if !slices.Equal(zones, []string{"us-east1-b", "us-east1-c"}) {
		t.Errorf("zones %v", zones)
	}
	c.AddTemplate(project, &computepb.InstanceTemplate{Name: proto.String("t"), Properties: &computepb.InstanceProperties{
		Disks: []*computepb.AttachedDisk{{Source: proto.String("nixmodules-v1")}}}})
	pair, err := c.templates.AggregatedList(c.ctx, &computepb.AggregatedListInstanceTemplatesRequest{Project: project}).Next()
	if err != nil || pair.Key != "global" || len(pair.Value.GetInstanceTemplates()) != 1 {
		t.Fatalf("templates %v, %v", pair, err)
	}
	tpl, err := c.templates.List(c.ctx, &computepb.ListInstanceTemplatesRequest{Project: project}).Next()
	if err != nil || tpl.GetProperties().GetDisks()[0].GetSource() != "nixmodules-v1" {
		t.Errorf("template %v, %v", tpl, err)
	}
	c.RemoveTemplate(project, "t")
	_, err = c.templates.Get(c.ctx, &computepb.GetInstanceTemplateRequest{Project: project, InstanceTemplate: "t"})
	wantError(t, err, 404, "notFound")
}
