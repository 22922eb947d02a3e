package gc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/rollout/state"
)

// history is a random past of a service and its neighbour: versions published,
// rolled out, attached, named in templates; and what goes on between two looks
// and while things are deleted. It answers for Compute Engine and Cloud Storage,
// and knows of each deletion whether it was allowed.
type history struct {
	rng         *rand.Rand
	cfg         *fleet.Config
	now         time.Time
	doc         *state.Document
	disks       map[string]*computepb.Disk
	images      map[string]*computepb.Image
	instances   map[string]*computepb.Instance
	templates   []*computepb.InstanceTemplate
	objects     []bucket.Attrs
	unreachable map[string]bool
	id          uint64
	between     map[string]bool // disks attached between the looks
	busy        bool            // things happen while Run works
	wrong       []string
	deleted     int
}

var zones = []string{"us-central1-a", "us-central1-b", "us-east1-c"}

func newHistory(seed uint64) *history {
	h := &history{
		rng: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), doc: state.New("svc"),
		disks: map[string]*computepb.Disk{}, images: map[string]*computepb.Image{}, instances: map[string]*computepb.Instance{},
		unreachable: map[string]bool{}, between: map[string]bool{},
		cfg: &fleet.Config{Service: "svc", Bucket: "b", Retention: fleet.Retention{KeepVersions: 1, MinAge: 7 * 24 * time.Hour, Protect: []string{"*-pinned"}},
			Targets: []fleet.Target{{Project: "prod-1", StorageLocation: "us", Zones: []fleet.Zone{{Name: zones[0]}, {Name: zones[1]}, {Name: zones[2]}}}}},
	}
	for i := range 3 + h.rng.IntN(6) {
		h.publish(i)
		h.past()
	}
	h.now = h.now.Add(time.Duration(h.rng.IntN(20*24)) * time.Hour)
	if h.rng.IntN(5) == 0 {
		h.unreachable[zones[h.rng.IntN(3)]] = true
	}
	return h
}

func (h *history) Now() time.Time { return h.now }

func (h *history) newID() uint64 { h.id++; return h.id }

func stamp(t time.Time) *string { return proto.String(t.Format(time.RFC3339Nano)) }

// publish makes a version of ours, or of the neighbour, whose names may look
// like ours.
func (h *history) publish(i int) {
	service := "svc"
	if h.rng.IntN(4) == 0 {
		service = "other"
	}
	version := fmt.Sprintf("v%d", i)
	if h.rng.IntN(8) == 0 {
		version += "-pinned"
	}
	labels := map[string]string{"service": service, "version": version, "sha": fmt.Sprintf("%032d", i)}
	if h.rng.IntN(10) == 0 {
		labels = map[string]string{"team": "x"} // nobody's, under a name like ours
	}
	for _, zone := range zones {
		for n := 1; n <= 1+h.rng.IntN(2); n++ {
			name := fleet.DiskName("svc", version, zone, n)
			h.disks[zone+"/"+name] = &computepb.Disk{Name: &name, Zone: proto.String(gce.Link("prod-1", "zones/"+zone)), Id: proto.Uint64(h.newID()),
				Labels: labels, CreationTimestamp: stamp(h.now), Status: proto.String("READY")}
		}
	}
	image := fleet.ImageName("svc", version, "us")
	h.images[image] = &computepb.Image{Name: &image, Id: proto.Uint64(h.newID()), Labels: labels, CreationTimestamp: stamp(h.now)}
	meta := map[string]string{shaKey: fmt.Sprintf("%064d", i)}
	if labels["service"] != "svc" {
		meta = nil
	}
	h.objects = append(h.objects, bucket.Attrs{Bucket: "b", Name: fleet.ObjectName("svc", version), Generation: int64(h.newID()), Created: h.now, Metadata: meta})
	if service == "svc" && labels["service"] == "svc" && h.rng.IntN(2) == 0 {
		h.rollOut(version)
	}
}

// rollOut has a rollout end, or be in the middle, or be given up.
func (h *history) rollOut(version string) {
	if version == h.doc.Deployed || h.doc.Rollout.Active() {
		return
	}
	speed := state.RollbackSpeed(state.Speed{MaxConcurrent: 1, HealthTimeout: state.Duration(time.Minute), MaxFailures: fleet.Count(1), OnFailure: "pause"})
	if err := h.doc.Begin(version, speed, "t", h.now); err != nil {
		h.wrong = append(h.wrong, err.Error())
		return
	}
	switch h.rng.IntN(5) {
	case 0:
		h.doc.Rollout.Stop("paused", h.now)
	case 1:
		h.doc.End(state.Aborted, "enough", h.now)
	case 2:
	default:
		h.doc.End(state.Done, "", h.now)
	}
}

// past lets time go by, in which disks are attached and detached.
func (h *history) past() {
	h.now = h.now.Add(time.Duration(h.rng.IntN(6*24)) * time.Hour)
	for range h.rng.IntN(4) {
		h.attach()
	}
	for name, i := range h.instances {
		if h.rng.IntN(2) == 0 {
			h.detach(i)
			delete(h.instances, name)
		}
	}
	if h.rng.IntN(4) == 0 {
		h.template()
	}
	if h.rng.IntN(6) == 0 {
		h.bootFrom()
	}
}

func pick[V any](rng *rand.Rand, m map[string]V) (string, bool) {
	if len(m) == 0 {
		return "", false
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[rng.IntN(len(keys))], true
}

// attach makes an instance with a disk. Sometimes the disk's list of users is
// late.
func (h *history) attach() string {
	k, ok := pick(h.rng, h.disks)
	if !ok {
		return ""
	}
	d := h.disks[k]
	zone, _, _ := strings.Cut(k, "/")
	name := fmt.Sprintf("host-%d", h.newID())
	link := gce.Link("prod-1", "zones/"+zone+"/instances/"+name)
	d.LastAttachTimestamp = stamp(h.now)
	if h.rng.IntN(4) > 0 || h.busy {
		d.Users = append(d.Users, link)
	}
	h.instances[name] = &computepb.Instance{Name: &name, Zone: proto.String(gce.Link("prod-1", "zones/"+zone)),
		Disks: []*computepb.AttachedDisk{{Source: proto.String(gce.Link("prod-1", "zones/"+k[:len(zone)]+"/disks/"+d.GetName()))}}}
	return k
}

func (h *history) detach(i *computepb.Instance) {
	for _, a := range i.GetDisks() {
		k := gce.Base(i.GetZone()) + "/" + gce.Base(a.GetSource())
		if d := h.disks[k]; d != nil {
			d.LastDetachTimestamp = stamp(h.now)
			d.Users = slices.DeleteFunc(d.Users, func(u string) bool { return gce.Base(u) == i.GetName() })
		}
	}
}

func (h *history) template() {
	t := &computepb.InstanceTemplate{Name: proto.String(fmt.Sprintf("template-%d", h.newID())), Properties: &computepb.InstanceProperties{}}
	if k, ok := pick(h.rng, h.disks); ok && h.rng.IntN(2) == 0 {
		t.Properties.Disks = []*computepb.AttachedDisk{{Source: proto.String(h.disks[k].GetName())}}
	} else if k, ok := pick(h.rng, h.images); ok {
		t.Properties.Disks = []*computepb.AttachedDisk{{InitializeParams: &computepb.AttachedDiskInitializeParams{SourceImage: proto.String("global/images/" + k)}}}
	}
	h.templates = append(h.templates, t)
}

// bootFrom makes somebody's boot disk from an image.
func (h *history) bootFrom() {
	if k, ok := pick(h.rng, h.images); ok {
		name := fmt.Sprintf("boot-%d", h.newID())
		h.disks[zones[0]+"/"+name] = &computepb.Disk{Name: &name, Zone: proto.String(gce.Link("prod-1", "zones/"+zones[0])), Id: proto.Uint64(h.newID()),
			CreationTimestamp: stamp(h.now), SourceImage: proto.String(gce.Link("prod-1", "global/images/"+k))}
	}
}

// meanwhile is what happens between the looks, and now and then while Run works.
func (h *history) meanwhile() {
	for range h.rng.IntN(3) {
		if k := h.attach(); k != "" {
			h.between[k] = true
			if h.rng.IntN(2) == 0 { // and detached again
				name := fmt.Sprintf("host-%d", h.id)
				h.detach(h.instances[name])
				delete(h.instances, name)
			}
		}
	}
	if h.rng.IntN(3) == 0 && !h.doc.Rollout.Active() {
		if k, ok := pick(h.rng, h.disks); ok && h.disks[k].GetLabels()["service"] == "svc" {
			h.rollOut(h.disks[k].GetLabels()["version"])
		}
	}
}

func (h *history) sleep(_ context.Context, d time.Duration) error {
	h.meanwhile()
	h.now = h.now.Add(d)
	return nil
}

// The reads.

func (h *history) Disks(context.Context, string, string) (all []*computepb.Disk, missing []string, err error) {
	for _, d := range h.disks {
		if !h.unreachable[gce.Base(d.GetZone())] {
			all = append(all, proto.Clone(d).(*computepb.Disk))
		}
	}
	for zone := range h.unreachable {
		missing = append(missing, zone)
	}
	return all, missing, nil
}

func (h *history) Instances(context.Context, string, string) (all []*computepb.Instance, missing []string, err error) {
	for _, i := range h.instances {
		if !h.unreachable[gce.Base(i.GetZone())] {
			all = append(all, i)
		}
	}
	return all, nil, nil
}

func (h *history) Templates(context.Context, string, string) ([]*computepb.InstanceTemplate, []string, error) {
	return h.templates, nil, nil
}

func (h *history) Images(context.Context, string, string) (all []*computepb.Image, err error) {
	for _, i := range h.images {
		all = append(all, i)
	}
	return all, nil
}

func (h *history) Snapshots(context.Context, string, string) ([]*computepb.Snapshot, error) {
	return nil, nil
}

func (h *history) Disk(_ context.Context, _, zone, name string) (*computepb.Disk, error) {
	if h.busy && h.rng.IntN(4) == 0 {
		h.meanwhile()
	}
	if d := h.disks[zone+"/"+name]; d != nil {
		return proto.Clone(d).(*computepb.Disk), nil
	}
	return nil, &gce.Error{Kind: gce.ErrNotFound}
}

func (h *history) Image(_ context.Context, _, name string) (*computepb.Image, error) {
	if i := h.images[name]; i != nil {
		return i, nil
	}
	return nil, &gce.Error{Kind: gce.ErrNotFound}
}

func (h *history) Snapshot(context.Context, string, string) (*computepb.Snapshot, error) {
	return nil, &gce.Error{Kind: gce.ErrNotFound}
}

func (h *history) List(context.Context, string, string) ([]bucket.Attrs, error) {
	return slices.Clone(h.objects), nil
}

// Store.

func (h *history) Read(context.Context) ([]byte, int64, error) {
	data, err := h.doc.Encode()
	return data, 1, err
}

func (h *history) Write(context.Context, []byte, int64) (int64, error) {
	return 0, errors.New("garbage collection writes no state")
}

// The deletions, held against the rules.

func (h *history) allowed(what string, labels map[string]string, version string) {
	h.deleted++
	bad := func(format string, args ...any) {
		h.wrong = append(h.wrong, what+": "+fmt.Sprintf(format, args...))
	}
	if labels != nil && labels["service"] != "svc" {
		bad("it is not ours: %v", labels)
	}
	if slices.Contains(h.doc.Versions(), version) {
		bad("a rollout refers to %s", version)
	}
	if strings.HasSuffix(version, "-pinned") {
		bad("it is protected")
	}
}

func (h *history) DeleteDisk(_ context.Context, _, zone, name string) error {
	k := zone + "/" + name
	d := h.disks[k]
	h.allowed("disk "+k, d.GetLabels(), d.GetLabels()["version"])
	if h.unreachable[zone] {
		h.wrong = append(h.wrong, k+" is in a zone that cannot be reached")
	}
	if h.between[k] {
		h.wrong = append(h.wrong, k+" was attached between the looks")
	}
	for _, i := range h.instances {
		if gce.Base(i.GetZone()) == zone && gce.Base(i.GetDisks()[0].GetSource()) == name {
			h.wrong = append(h.wrong, k+" is attached to "+i.GetName())
		}
	}
	delete(h.disks, k)
	return nil
}

func (h *history) DeleteImage(_ context.Context, _, name string) error {
	i := h.images[name]
	h.allowed("image "+name, i.GetLabels(), i.GetLabels()["version"])
	for _, d := range h.disks {
		if d.GetLabels() == nil && gce.Base(d.GetSourceImage()) == name {
			h.wrong = append(h.wrong, "image "+name+" is what somebody boots from")
		}
	}
	delete(h.images, name)
	return nil
}

func (h *history) DeleteSnapshot(context.Context, string, string) error { return nil }

func (h *history) Delete(_ context.Context, _, name string, _ int64) error {
	version := strings.Split(name, "/")[1]
	h.allowed("object "+name, nil, version)
	h.objects = slices.DeleteFunc(h.objects, func(o bucket.Attrs) bool {
		if o.Name == name && o.Metadata == nil {
			h.wrong = append(h.wrong, "object "+name+" is not ours")
		}
		return o.Name == name
	})
	return nil
}

func (h *history) run(t *testing.T) *Report {
	t.Helper()
	report, err := Run(t.Context(), Options{
		Config: h.cfg, Compute: h, Objects: h, State: h, Delete: true, Wait: 5 * time.Minute, Sleep: h.sleep,
	})
	if wanted := errors.Is(err, ErrUnread); wanted != (len(h.unreachable) > 0) || err != nil && !wanted {
		t.Fatalf("%v, where %d zones cannot be read", err, len(h.unreachable))
	}
	return report
}

func TestThousandHistories(t *testing.T) {
	deleted := 0
	for seed := range uint64(1000) {
		h := newHistory(seed)
		h.busy = seed%2 == 1
		report := h.run(t)
		if len(h.wrong) > 0 {
			t.Fatalf("history %d: %s", seed, strings.Join(h.wrong, "\n"))
		}
		if len(report.Deleted) != h.deleted {
			t.Fatalf("history %d: %d deleted and %d reported", seed, h.deleted, len(report.Deleted))
		}
		deleted += h.deleted
	}
	if deleted < 1000 {
		t.Errorf("only %d things were deleted in all: the histories test nothing", deleted)
	}
	t.Logf("%d things were deleted in 1,000 histories", deleted)
}

// TestLeftovers runs a history again and again with time between: in the end
// nothing is left that should not be.
func TestLeftovers(t *testing.T) {
	for seed := range uint64(100) {
		h := newHistory(seed)
		clear(h.unreachable)
		clear(h.instances)
		for _, d := range h.disks {
			d.Users = nil
		}
		h.templates, h.now = nil, h.now.Add(60*24*time.Hour)
		report, err := Run(t.Context(), Options{Config: h.cfg, Compute: h, Objects: h, State: h, Delete: true,
			Sleep: func(context.Context, time.Duration) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range report.Versions {
			if v.Keep != "" && !strings.Contains(v.Keep, "a rollout") && !strings.Contains(v.Keep, "protects") &&
				!strings.Contains(v.Keep, "newest 1") && !strings.Contains(v.Keep, "was made from it") {
				t.Errorf("history %d: %s stays: %s", seed, v.Version, v.Keep)
			}
		}
	}
}
