package gc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func config() *fleet.Config {
	return &fleet.Config{Service: "svc", Bucket: "b", Retention: fleet.Retention{KeepVersions: 1, MinAge: 24 * time.Hour, Protect: []string{"*-pinned", "svc-v7-*"}}}
}

// old is a month old.
func old(kind, version string) Resource {
	r := Resource{Kind: kind, Project: "p", Name: "svc-" + version, Version: version, ID: 1, Created: noon.Add(-30 * 24 * time.Hour)}
	switch kind {
	case Disk:
		r.Zone = "us-central1-a"
		r.Name += "-us-central1-a-1"
	case Object:
		r.Project, r.Name = "", "gs://b/svc/"+version+"/disk.raw.tar.gz"
	}
	return r
}

// newer is a day newer than old.
func newer(kind, version string) Resource {
	r := old(kind, version)
	r.Created = r.Created.Add(24 * time.Hour)
	return r
}

// TestObjectsAloneAreRankedApart has developers publish bundles that no disk is
// made of: they take no place of a version that hosts may go back to.
func TestObjectsAloneAreRankedApart(t *testing.T) {
	cfg := config()
	cfg.Retention.KeepVersions = 2
	inv := newInventory()
	inv.Resources = []Resource{old(Image, "v1"), old(Object, "v1"), newer(Disk, "v2"), newer(Object, "v2")}
	for i := range 3 {
		r := newer(Object, fmt.Sprintf("dev-%d", i))
		r.Created = r.Created.Add(time.Duration(i) * time.Hour)
		inv.Resources = append(inv.Resources, r)
	}
	if d := Decide(cfg, inv, noon); len(d.Delete) != 1 || d.Delete[0].Version != "dev-0" {
		t.Errorf("%v may go, not the oldest of the bundles alone", d.Delete)
	}
}

func TestDecide(t *testing.T) {
	attached, touched, young := old(Disk, "v1"), old(Disk, "v1"), old(Disk, "v1")
	attached.Users = []string{"projects/p/zones/us-central1-a/instances/h"}
	touched.Touched = noon.Add(-59 * time.Minute)
	young.Created = noon.Add(-23 * time.Hour)
	ageless := old(Disk, "v1")
	ageless.Created = time.Time{}
	all := []Resource{old(Disk, "v1"), old(Image, "v1"), old(Object, "v1")}
	path := func(r Resource) string { return r.Path() }
	for _, c := range []struct {
		name    string
		things  []Resource
		with    func(*Inventory)
		deletes int
		why     string // among the reasons for what stays
	}{
		{"nothing uses it", all, nil, 3, ""},
		{"attached, and no list of instances says so", []Resource{attached}, nil, 0, "is attached to"},
		{"an instance has it, and the disk does not say so", all, func(i *Inventory) { i.Uses[path(all[0])] = "instance h has it" }, 0, "instance h has it"},
		{"detached just now", []Resource{touched}, nil, 0, "59m0s ago"},
		{"young", []Resource{young}, nil, 0, "24h0m0s is the least"},
		{"nobody knows how old it is", []Resource{ageless}, nil, 0, "nobody knows how old"},
		{"partly young", append([]Resource{young}, all[1:]...), nil, 0, "24h0m0s is the least"},
		{"a template names the disk", all, func(i *Inventory) { i.Uses["projects/p/*/disks/svc-v1-us-central1-a-1"] = "template t" }, 0, "template t"},
		{"a template names the disk in its zone", all, func(i *Inventory) { i.Uses["zones/us-central1-a/disks/svc-v1-us-central1-a-1"] = "template t" }, 0, "template t"},
		{"a template names the image", all, func(i *Inventory) { i.Uses["global/images/svc-v1"] = "template t" }, 0, "template t"},
		{"a rollout refers to it", all, func(i *Inventory) { i.Refs = []string{"v1"} }, 0, "a rollout"},
		{"its zone is unknown", all, func(i *Inventory) { i.UnknownZones["p/us-central1-a"] = "UNREACHABLE" }, 0, "UNREACHABLE"},
		{"another zone is unknown", all, func(i *Inventory) { i.UnknownZones["p/us-east1-b"] = "UNREACHABLE" }, 1, "may be used there"},
		{"its project is unknown", all, func(i *Inventory) { i.UnknownProjects["p"] = "no" }, 0, "project p"},
		{"protected by version", []Resource{old(Disk, "v3-pinned")}, nil, 0, "protects"},
		{"protected by name", []Resource{old(Disk, "v7")}, nil, 0, "protects"},
		{"an object alone, and a newer one", []Resource{old(Object, "v4"), newer(Object, "v5")}, nil, 1, "one of the newest 1"},
	} {
		inv := newInventory()
		newest := old(Disk, "v9")
		newest.Created = noon.Add(-time.Hour)
		inv.Resources = append([]Resource{newest}, c.things...)
		if c.with != nil {
			c.with(inv)
		}
		d := Decide(config(), inv, noon)
		reasons := fmt.Sprint(d.Spared)
		for _, v := range d.Versions {
			reasons += v.Keep
		}
		if len(d.Delete) != c.deletes || !strings.Contains(reasons, c.why) {
			t.Errorf("%s: %d may go, %s", c.name, len(d.Delete), reasons)
		}
		for _, r := range d.Delete {
			if r.Version == "v9" {
				t.Errorf("%s: the newest goes", c.name)
			}
		}
	}
}

// TestBothLooks has a version come of age between the looks: one look alone is
// not enough.
func TestBothLooks(t *testing.T) {
	one := old(Object, "v0")
	first := []Resource{one}
	again := one
	again.ID = 2
	touched := one
	touched.Touched = noon
	for name, second := range map[string][]Resource{"another one of that name": {again}, "touched since": {touched}, "gone": nil} {
		if got := both(first, second); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := both(nil, first); len(got) != 0 {
		t.Errorf("only the second look: %v", got)
	}
	if got := both(first, first); len(got) != 1 {
		t.Error("what both looks say does not go")
	}
	h := onlyAnObject()
	ripe := h.objects[0]
	ripe.Name, ripe.Created = fleet.ObjectName("svc", "v0"), h.now.Add(-time.Hour)
	h.objects = append(h.objects, ripe)
	h.now = h.now.Add(h.cfg.Retention.MinAge - time.Minute)
	for _, want := range []int{1, 1} { // v0, and only the next time v1
		report, err := Run(t.Context(), Options{Config: h.cfg, Compute: h, Objects: h, State: h, Delete: true, Wait: 5 * time.Minute,
			Sleep: func(_ context.Context, d time.Duration) error { h.now = h.now.Add(d); return nil }})
		if err != nil || len(report.Deleted) != want {
			t.Errorf("%v: %v is deleted", err, report.Deleted)
		}
		h.now = h.now.Add(5 * time.Minute)
	}
}

// onlyAnObject is a history of which nothing is left but the object of v1, made now,
// that nothing but its age keeps.
func onlyAnObject() *history {
	h := newHistory(1)
	clear(h.disks)
	clear(h.images)
	clear(h.instances)
	clear(h.unreachable)
	h.templates, h.cfg.Retention.KeepVersions, h.doc = nil, 0, state.New("svc")
	h.objects = []bucket.Attrs{{Bucket: "b", Name: fleet.ObjectName("svc", "v1"), Generation: 5, Created: h.now, Metadata: map[string]string{shaKey: strings.Repeat("a", 64)}}}
	return h
}

// TestAgesAreByTheCloudsClock has gc run on a machine whose clock is months ahead of
// the one that dated everything: what is a day old stays.
func TestAgesAreByTheCloudsClock(t *testing.T) {
	h := onlyAnObject()
	h.now = h.now.Add(24 * time.Hour)
	if ahead := time.Since(h.now); ahead < h.cfg.Retention.MinAge {
		t.Fatalf("this machine's clock is only %s ahead", ahead)
	}
	report, err := Run(t.Context(), Options{Config: h.cfg, Compute: h, Objects: h, State: h, Delete: true})
	if err != nil || len(report.Deleted) > 0 || !strings.Contains(report.Versions[0].Keep, "is 24h0m0s old") {
		t.Errorf("%v: %v is deleted; %+v", err, report.Deleted, report.Versions)
	}
}

// nowhere is a state's bucket that is not there.
type nowhere struct{ *history }

func (nowhere) Read(context.Context) ([]byte, int64, error) { return nil, 0, nil }

func (n nowhere) List(ctx context.Context, in, prefix string) ([]bucket.Attrs, error) {
	if in != n.cfg.Bucket {
		return nil, bucket.ErrNotFound
	}
	return n.history.List(ctx, in, prefix)
}

// TestNoBucketIsNoState has the configuration name a bucket for the rollouts'
// state that is not there: that is not the same as no rollout.
func TestNoBucketIsNoState(t *testing.T) {
	h := newHistory(1)
	clear(h.unreachable)
	h.now = h.now.Add(60 * 24 * time.Hour)
	for state, want := range map[string]error{"gs://b/rollouts": nil, "gs://typo/rollouts": bucket.ErrNotFound} {
		h.cfg.State = state
		_, err := Run(t.Context(), Options{Config: h.cfg, Compute: h, Objects: nowhere{h}, State: nowhere{h}})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// TestAnotherFleetsStateProtectsNothing: with the state of another fleet nobody knows
// what ours refers to.
func TestAnotherFleetsStateProtectsNothing(t *testing.T) {
	h := newHistory(1)
	clear(h.unreachable)
	h.now = h.now.Add(60 * 24 * time.Hour)
	for zone, want := range map[world.Zone]error{"prod-1/us-east1-c": nil, "staging-1/us-east1-c": state.ErrForeign} {
		h.doc.Zones = map[world.Zone]state.Zone{zone: {Hosts: 3}}
		if _, err := Run(t.Context(), Options{Config: h.cfg, Compute: h, Objects: h, State: h}); !errors.Is(err, want) {
			t.Errorf("%s: %v", zone, err)
		}
	}
}

func ExampleDecide() {
	inv := newInventory()
	inv.Refs = []string{"v2"}
	inv.Resources = []Resource{
		{Kind: Disk, Project: "p", Zone: "us-central1-a", Name: "svc-v2", Version: "v2", Created: noon.Add(-60 * 24 * time.Hour)},
		{Kind: Disk, Project: "p", Zone: "us-central1-a", Name: "svc-v1", Version: "v1", Created: noon.Add(-90 * 24 * time.Hour)},
	}
	for _, r := range Decide(config(), inv, noon).Delete {
		fmt.Println(r.Path())
	}
	// Output: projects/p/zones/us-central1-a/disks/svc-v1
}
