package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// TestTwice: everything is made once; a second run finds it and changes
// nothing.
func TestTwice(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	r, err := w.publish(t.Context())
	w.wantComplete(r, err, Created)
	if len(r.Items) != 2+3+6 || r.Items[2].Kind != KindImage {
		t.Errorf("the report has %d items: %+v", len(r.Items), r.Items)
	}
	before := len(w.Mutations())
	r, err = w.publish(t.Context())
	w.wantComplete(r, err, Found)
	w.wantNothingNew(before)
	if n := len(w.Calls("disks.get")); n != 0 {
		t.Errorf("%d disks were read one by one, and a list a project has them all", n)
	}
	if w.storage.puts != 2 {
		t.Errorf("%d objects were made", w.storage.puts)
	}
}

// TestDryRun: the plan is what a run makes, and making it changes nothing.
func TestDryRun(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	dry := func(o *Options) { o.DryRun = true }
	r, err := w.publish(t.Context(), dry)
	if err != nil || r.Count(Planned) != len(r.Items) || !r.DryRun {
		t.Errorf("%v: %+v", err, r.Items)
	}
	w.wantNothingNew(0)
	if _, err := w.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err = w.publish(t.Context(), dry)
	w.wantComplete(r, err, Found)
}

// TestRaw: the raw format is two objects and nothing in Compute Engine.
func TestRaw(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	r, err := w.publish(t.Context(), func(o *Options) { o.Format, o.Release.Suffix = FormatRaw, ".sqsh" })
	if err != nil || len(r.Items) != 2 || w.storage.objects["svc/v1/disk.sqsh"] != "raw" || w.storage.objects["svc/v1/manifest.json"] != "manifest" {
		t.Errorf("%v: %v %+v", err, w.storage.objects, r)
	}
	if n := len(w.Calls()); n != 0 {
		t.Errorf("%d calls to Compute Engine", n)
	}
}

// TestUploadFails: without the object nothing else is tried.
func TestUploadFails(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.storage.fail = errors.New("the bucket is on fire")
	r, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 1 || e.Left != len(r.Items)-1 || !strings.Contains(e.Error(), "on fire") {
		t.Errorf("got %v", err)
	}
	if n := len(w.Calls()); n != 0 {
		t.Errorf("%d calls to Compute Engine", n)
	}
}

// TestOthersGoOn: a zone without quota and one without permission fail, each
// once and with its reason, and all others are made.
func TestOthersGoOn(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, strings.Replace(twoProjects, "zones: [europe-west1-b]", "zones: [{name: europe-west1-b, copies: 3}]", 1))
	w.config.Publish.Parallel = 1
	w.AddFault(gcetest.Fault{Kind: gcetest.QuotaExceeded, Method: "disks.insert", Zone: "europe-west1-b"})
	w.AddFault(gcetest.Fault{Kind: gcetest.PermissionDenied, Method: "disks.insert", Zone: "us-central1-b"})
	r, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 4 || e.Left != 0 {
		t.Errorf("got %v", err)
	}
	if it := errorOf(t, r, "europe-west1-b"); it.State != Failed || !strings.Contains(it.Error, "quota exceeded (quotaExceeded): Quota 'SSD_TOTAL_GB' exceeded") {
		t.Errorf("got %+v", it)
	}
	if it := errorOf(t, r, "us-central1-b"); it.State != Failed || !strings.Contains(it.Error, "permission denied") {
		t.Errorf("got %+v", it)
	}
	if n := r.Count(Created); n != len(r.Items)-4 {
		t.Errorf("%d of %d were created", n, len(r.Items))
	}
	tries := 0
	for _, c := range w.Calls("disks.insert") {
		if c.Zone == "europe-west1-b" || c.Zone == "us-central1-b" {
			tries++
		}
	}
	if tries != 2 {
		t.Errorf("the two zones were tried %d times", tries)
	}
	w.ClearFaults()
	r, err = w.publish(t.Context())
	w.wantComplete(r, err, Created, Found)
}

// TestImageFails: disks of an image that cannot be made are left, and told so.
func TestImageFails(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.AddFault(gcetest.Fault{Kind: gcetest.PermissionDenied, Method: "images.insert", Project: "prod-2"})
	r, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 1 || e.Left != 2 {
		t.Errorf("got %v", err)
	}
	if it := errorOf(t, r, "us-central1-b"); it.State != Left || it.Error != "image svc-v1-us of prod-2 was not made" {
		t.Errorf("got %+v", it)
	}
}

// TestStockout: a zone that has nothing for some minutes gets its disk in the
// end, and nobody waits for it meanwhile.
func TestStockout(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.config.Publish.Parallel = 1
	w.AddFault(gcetest.Fault{Kind: gcetest.OpStockoutLong, Method: "disks.insert", Zone: "us-west1-b", Count: 4})
	w.AddFault(gcetest.Fault{Kind: gcetest.OpRateExceeded, Method: "disks.insert", Zone: "europe-west1-b", Count: 2})
	r, err := w.publish(t.Context())
	w.wantComplete(r, err, Created)
	slow, fast := errorOf(t, r, "us-west1-b"), errorOf(t, r, "us-central1-a")
	if slow.Seconds < 20 || fast.Seconds > 20 {
		t.Errorf("the zone that was out of resources took %v s, another one %v s", slow.Seconds, fast.Seconds)
	}
}

// TestStockoutStays: patience ends.
func TestStockoutStays(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.AddFault(gcetest.Fault{Kind: gcetest.OpStockout, Method: "disks.insert", Zone: "us-west1-b"})
	r, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 2 || e.Left != 0 {
		t.Errorf("got %v", err)
	}
	if it := errorOf(t, r, "us-west1-b"); !strings.Contains(it.Error, "zone is out of resources (ZONE_RESOURCE_POOL_EXHAUSTED)") || it.Seconds < 300 {
		t.Errorf("got %+v", it)
	}
}

// TestStuckOperation: an operation that never ends does not keep a disk from
// counting that is there, and is named where it is not.
func TestStuckOperation(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.AddFault(gcetest.Fault{Kind: gcetest.OpStuck, Method: "disks.insert", Zone: "europe-west1-b"})
	impatient := func(o *Options) {
		o.Compute, o.Making = w.client(gce.Options{OperationTimeout: time.Minute}), time.Minute
	}
	r, err := w.publish(t.Context(), impatient)
	if e := incomplete(t, err); e.Failed != 1 || e.Left != 0 {
		t.Errorf("got %v", err)
	}
	if it := errorOf(t, r, "europe-west1-b"); !strings.Contains(it.Error, "still being made after 1m0s; run again") {
		t.Errorf("got %+v", it)
	}
	before := len(w.Mutations())
	time.AfterFunc(50*time.Millisecond, func() { w.Release() })
	r, err = w.publish(t.Context())
	w.wantComplete(r, err, Found)
	w.wantNothingNew(before)
}

// TestDiffers: what is ours by name but not by contents is told, and left.
func TestDiffers(t *testing.T) {
	ours := map[string]string{"service": "svc", "version": "v1", "sha": sha[:32], "copy": "1"}
	with := func(name, value string) map[string]string {
		l := map[string]string{name: value}
		for k, v := range ours {
			if _, set := l[k]; !set {
				l[k] = v
			}
		}
		return l
	}
	name := fleet.DiskName("svc", "v1", "europe-west1-b", 1)
	kind := proto.String("projects/prod-1/zones/europe-west1-b/diskTypes/pd-balanced")
	for what, test := range map[string]struct {
		disk *computepb.Disk
		want string
	}{
		"labels":  {&computepb.Disk{Type: kind, SizeGb: proto.Int64(1)}, `it has no label service, and "svc" is wanted`},
		"version": {&computepb.Disk{Type: kind, SizeGb: proto.Int64(1), Labels: with("version", "v2")}, `its label version is "v2", and "v1" is wanted`},
		"image":   {&computepb.Disk{Type: kind, SizeGb: proto.Int64(1), Labels: with("sha", "beef")}, `its label sha is "beef"`},
		"size":    {&computepb.Disk{Type: kind, SizeGb: proto.Int64(7), Labels: ours}, "its size is 7 GB, and 1 GB are wanted"},
		"type":    {&computepb.Disk{Type: proto.String("projects/prod-1/zones/europe-west1-b/diskTypes/pd-ssd"), SizeGb: proto.Int64(1), Labels: ours}, "its type is pd-ssd, and pd-balanced is wanted"},
		"source":  {&computepb.Disk{Type: kind, SizeGb: proto.Int64(1), Labels: ours, SourceImage: proto.String(gce.Link("prod-1", "global/images/other"))}, "it was made from projects/prod-1/global/images/other, and projects/prod-1/global/images/svc-v1-europe-west1 is wanted"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, gcetest.Options{}, twoProjects)
			test.disk.Name = &name
			w.AddDisk("prod-1", "europe-west1-b", test.disk)
			r, err := w.publish(t.Context())
			if e := incomplete(t, err); e.Failed != 1 || e.Left != 0 {
				t.Errorf("got %v", err)
			}
			if it := errorOf(t, r, "europe-west1-b"); !strings.Contains(it.Error, "exists and is another one: "+test.want) {
				t.Errorf("got %s", it.Error)
			}
		})
	}
}

// TestImageDiffers: an image of other contents stops its disks.
func TestImageDiffers(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	w.AddImage("prod-2", &computepb.Image{Name: proto.String("svc-v1-us"), DiskSizeGb: proto.Int64(3),
		Labels: map[string]string{"service": "svc", "version": "v1", "sha": "beef"}, StorageLocations: []string{"eu"}})
	r, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 1 || e.Left != 2 {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{`label sha is "beef"`, "its size is 3 GB, and 1 GB are wanted", "stored in [eu], and us is wanted"} {
		if it := r.Items[4]; !strings.Contains(it.Error, want) {
			t.Errorf("got %+v, want %s in it", it, want)
		}
	}
}

// TestFailedImage: an image whose import failed is no reason to give up for
// ever: it is ours, nobody can use it, and it is made again.
func TestFailedImage(t *testing.T) {
	var fail atomic.Bool
	fail.Store(true)
	w := newWorld(t, gcetest.Options{KeepFailedImages: true, ImageSource: func(context.Context, string) (gcetest.ImageInfo, error) {
		if fail.Load() {
			return gcetest.ImageInfo{}, errors.New("the tar archive is not a valid image")
		}
		return gcetest.ImageInfo{DiskSizeGB: 1}, nil
	}}, twoProjects)
	_, err := w.publish(t.Context())
	if e := incomplete(t, err); e.Failed != 3 || !strings.Contains(e.Error(), "not a valid image") {
		t.Errorf("got %v", err)
	}
	fail.Store(false)
	r, err := w.publish(t.Context())
	w.wantComplete(r, err, Created, Found)
}

// TestUnreachableZone: a zone that lists say nothing of is asked by itself.
func TestUnreachableZone(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	if _, err := w.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(w.Mutations())
	var once sync.Once
	w.SetUnreachable(true, "us-central1-a")
	w.watch(func(r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/zones/us-central1-a/disks/") {
			once.Do(func() { w.SetUnreachable(false, "us-central1-a") })
		}
	})
	r, err := w.publish(t.Context())
	w.wantComplete(r, err, Found)
	w.wantNothingNew(before)
}

// TestInterrupted: what was left is in the report, and a later run makes it.
func TestInterrupted(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	ctx, cancel := context.WithCancel(t.Context())
	w.watch(func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/disks") {
			cancel()
		}
	})
	r, err := w.publish(ctx)
	if e := incomplete(t, err); !e.Interrupted || !r.Interrupted || e.Left == 0 || e.Failed != 0 || errors.Is(err, context.Canceled) {
		t.Errorf("got %v: %+v", err, r.Items)
	}
	r, err = w.publish(t.Context())
	w.wantComplete(r, err, Created, Found)
}

// TestRelease: a version or an image that will not do is refused at once.
func TestRelease(t *testing.T) {
	w := newWorld(t, gcetest.Options{}, twoProjects)
	for name, change := range map[string]func(*Options){
		"version": func(o *Options) { o.Release.Version = "a b" },
		"sha":     func(o *Options) { o.Release.SHA256 = "abc" },
		"size":    func(o *Options) { o.Release.Size = 0 },
		"format":  func(o *Options) { o.Format = "iso" },
		"raw":     func(o *Options) { o.Format, o.FromDisk = FormatRaw, &FromDisk{} },
	} {
		if r, err := w.publish(t.Context(), change); err == nil || r != nil {
			t.Errorf("%s: %v %v", name, r, err)
		}
	}
}

// TestReport: the table has a line an item and names what failed; JSON has the
// same.
func TestReport(t *testing.T) {
	r := &Report{Service: "svc", Version: "v1", SHA256: sha, Seconds: 61, Items: []Item{
		{Kind: KindObject, Place: "bucket", Name: "svc/v1/disk.raw.tar.gz", State: Created, Bytes: 1536, Seconds: 0.5},
		{Kind: KindDisk, Project: "prod-1", Place: "us-central1-a", Name: "d", State: Failed, Bytes: 3 << 30, Seconds: 2, Error: "quota"},
		{Kind: KindDisk, Project: "prod-1", Place: "us-central1-b", Name: "e", State: Left, Error: "why"},
	}}
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	want := `WHAT    PROJECT  WHERE          NAME                    STATE    SIZE     TIME
object  -        bucket         svc/v1/disk.raw.tar.gz  created  1.5 KiB  500ms
disk    prod-1   us-central1-a  d                       failed   3 GiB    2s
disk    prod-1   us-central1-b  e                       left     -        -
disk d in us-central1-a: quota
svc v1: 1 created, 1 failed, 1 left in 1m1s
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if err := r.Err(); err == nil || err.Error() != "version v1 is not complete: 1 failed and 1 were left because of them: quota" {
		t.Errorf("got %v", err)
	}
	text, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(text), `"kind":"disk","project":"prod-1","place":"us-central1-a","name":"d","state":"failed","bytes":3221225472,"seconds":2,"error":"quota"`) {
		t.Errorf("%v: %s", err, text)
	}
}
