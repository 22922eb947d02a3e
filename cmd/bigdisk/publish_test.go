package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/publish"
	"bigdisk/image/imagetest"
)

// cloud is a bucket and a Compute Engine for processes of bigdisk. Every call of
// either goes through a gate.
type cloud struct {
	t       *testing.T
	storage *buckettest.Server
	compute *gcetest.Server
	program string
	dir     string // holds fleet.yaml
	gated   string // the URL of Cloud Storage behind the gate

	mu    sync.Mutex
	calls int
	gate  func(call int, r *http.Request, serve func()) // nil lets everything through
}

// fleetText is a fleet of two projects that needs the address of Compute Engine.
const fleetText = `
service: svc
bucket: images
computeEndpoint: %s
publish: {mutationsPerSecond: 100}
targets:
  - {project: prod-1, storageLocation: us, diskType: pd-ssd, zones: [us-central1-a, {name: us-west1-b, diskType: hyperdisk-ml, copies: 2}]}
  - {project: prod-2, storageLocation: europe-west1, diskType: pd-balanced, zones: [europe-west1-b]}
`

// newCloud starts the servers. Images are imported as [gcetest.EmulatorSource]
// does or, to be fast, by looking whether the object is there.
func newCloud(t *testing.T, program string, fast bool, opt gcetest.Options) *cloud {
	t.Helper()
	c := &cloud{t: t, storage: buckettest.Start(t, "images"), program: program, dir: t.TempDir()}
	opt.ImageSource = gcetest.EmulatorSource(c.storage.URL)
	if fast {
		opt.ImageSource = c.exists
	}
	c.compute = gcetest.New(opt)
	t.Cleanup(func() {
		if err := c.compute.Close(); err != nil {
			t.Error(err)
		}
	})
	target, err := url.Parse(c.storage.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // clients that were killed
	c.gated = c.listen(proxy)
	text := fmt.Sprintf(fleetText, c.listen(c.compute))
	if err := os.WriteFile(filepath.Join(c.dir, "fleet.yaml"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return c
}

// exists takes every archive in the bucket for one of 1 GiB.
func (c *cloud) exists(_ context.Context, source string) (gcetest.ImageInfo, error) {
	_, object, _ := strings.Cut(source, "/images/")
	if !slices.Contains(c.storage.Objects(c.t, "images"), object) {
		return gcetest.ImageInfo{}, fmt.Errorf("there is no %s", source)
	}
	return gcetest.ImageInfo{DiskSizeGB: 1}, nil
}

// listen serves h behind the gate.
func (c *cloud) listen(h http.Handler) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.calls++
		call, gate := c.calls, c.gate
		c.mu.Unlock()
		if gate == nil {
			h.ServeHTTP(w, r)
			return
		}
		gate(call, r, func() { h.ServeHTTP(w, r) })
	}))
	c.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// command is bigdisk publish as a process.
func (c *cloud) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.program, append([]string{"publish", "--config", filepath.Join(c.dir, "fleet.yaml"), "--progress", "none"}, args...)...)
	cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST="+c.gated)
	return cmd
}

// publish runs bigdisk publish --json to its end.
func (c *cloud) publish(args ...string) (r publish.Report, stderr string, err error) {
	c.t.Helper()
	cmd := c.command(append([]string{"--json"}, args...)...)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err = cmd.Run()
	if bad := json.Unmarshal(out.Bytes(), &r); bad != nil {
		c.t.Fatalf("%v: %s%s: %v", err, &out, &messages, bad)
	}
	return r, messages.String(), err
}

// wantOnce checks what is there: each thing once, and nothing else.
func (c *cloud) wantOnce(version string, objects ...string) {
	c.t.Helper()
	var want []string
	for _, o := range objects {
		want = append(want, "svc/"+version+"/"+o)
	}
	slices.Sort(want)
	if got := c.storage.Objects(c.t, "images"); !slices.Equal(got, want) {
		c.t.Errorf("the bucket holds %q, want %q", got, want)
	}
	got := make(map[string]int)
	for _, call := range c.compute.Mutations() {
		got[call.Method]++
	}
	if v := c.compute.Violations(); len(v) > 0 {
		c.t.Errorf("violations: %q", v)
	}
	if want := map[string]int{"images.insert": 2, "disks.insert": 4}; fmt.Sprint(got) != fmt.Sprint(want) {
		c.t.Errorf("the mutations were %v, want %v", got, want)
	}
}

// TestPublishExample takes the example's image all the way, twice, and gets it
// back out of the bucket as GNU tar sees it.
func TestPublishExample(t *testing.T) {
	imagetest.NeedTools(t, "tar", "gzip")
	c := newCloud(t, binary(t), false, gcetest.Options{})
	image := buildExample(t)
	r, stderr, err := c.publish(image)
	if err != nil || r.Count(publish.Created) != 2+2+4 || len(r.Items) != 8 {
		t.Fatalf("%v: %s%+v", err, stderr, r)
	}
	objects := []string{"disk.raw.tar.gz", "manifest.json"}
	c.wantOnce(r.Version, objects...)

	var told bytes.Buffer
	plain := c.command("--progress", "plain", image)
	plain.Stderr = &told
	if err := plain.Run(); err != nil || !strings.Contains(told.String(), "publish: 8 steps in ") || strings.Contains(told.String(), "stopped") {
		t.Errorf("what it tells while it publishes: %v\n%s", err, &told)
	}

	began := time.Now()
	again, stderr, err := c.publish(image)
	took := time.Since(began)
	if err != nil || again.Count(publish.Found) != 8 || again.Version != r.Version || again.Version != r.SHA256[:12] {
		t.Errorf("%v: %s%+v", err, stderr, again)
	}
	c.wantOnce(r.Version, objects...)
	t.Logf("the first run took %.1f s, of it the upload %.1f s and the import %.1f s; the second run took %v",
		r.Seconds, r.Items[0].Seconds, r.Items[2].Seconds, took)
	if took > 5*time.Second {
		t.Errorf("the second run took %v", took)
	}

	if got, want := c.storage.Get(t, "images", "svc/"+r.Version+"/manifest.json"), readBytes(t, image+".manifest.json"); !bytes.Equal(got, want) {
		t.Error("the manifest in the bucket is another one")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "disk.raw.tar.gz")
	if err := os.WriteFile(archive, c.storage.Get(t, "images", "svc/"+r.Version+"/disk.raw.tar.gz"), 0o666); err != nil {
		t.Fatal(err)
	}
	if names := imagetest.Command(t, "tar", "-xvSzf", archive, "-C", dir); strings.TrimSpace(names) != "disk.raw" {
		t.Errorf("the archive holds %q", names)
	}
	raw := filepath.Join(dir, "disk.raw")
	if info, err := os.Stat(raw); err != nil || info.Size() != 1<<30 {
		t.Errorf("disk.raw: %v, %v", info, err)
	}
	if got := readBytes(t, image); !bytes.Equal(got, readHead(t, raw, len(got))) {
		t.Error("disk.raw does not begin with the image")
	}
	t.Run("mounted", func(t *testing.T) {
		tree := imagetest.ReadTree(t, imagetest.Mount(t, raw))
		imagetest.CheckSame(t, tree, imagetest.ReadTree(t, imagetest.Mount(t, image)))
		if len(tree) < 10 {
			t.Errorf("%d files", len(tree))
		}
	})
}

func readHead(t *testing.T, name string, n int) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// smallImage is a file that will do for an image, without a manifest.
func smallImage(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "small.raw")
	if err := os.WriteFile(name, []byte(imagetest.Noise(1, 100_000)), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPublishKilled kills bigdisk with SIGKILL at each of its calls in turn,
// once before the call has had its effect and once after, and runs it again.
func TestPublishKilled(t *testing.T) {
	image, program := smallImage(t), binary(t)
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			t.Parallel()
			for stop := 1; ; stop++ {
				if !killedAt(t, program, image, stop, after) {
					if stop < 15 {
						t.Errorf("a whole run had %d calls", stop-1)
					}
					t.Logf("a whole run has %d calls", stop-1)
					return
				}
				if t.Failed() {
					t.Fatalf("killed at call %d", stop)
				}
			}
		})
	}
}

// killedAt publishes with a process that is killed at a call, then again. It
// reports whether there was such a call.
func killedAt(t *testing.T, program, image string, stop int, after bool) (killed bool) {
	ok := t.Run(fmt.Sprint(stop), func(t *testing.T) {
		c := newCloud(t, program, true, gcetest.Options{Latency: gcetest.Fixed(2 * time.Millisecond)})
		cmd := c.command("--version", "v1", image)
		started := make(chan struct{}) // a process may be ahead of the one that starts it
		kill := func() {
			<-started
			_ = cmd.Process.Kill()
			panic(http.ErrAbortHandler)
		}
		c.gate = func(call int, _ *http.Request, serve func()) {
			if call == stop && !after {
				kill()
			}
			serve()
			if call == stop {
				kill()
			}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		close(started)
		if cmd.Wait() == nil {
			c.wantOnce("v1", "disk.raw.tar.gz")
			return
		}
		killed = true
		c.mu.Lock()
		c.gate = nil
		c.mu.Unlock()
		r, stderr, err := c.publish("--version", "v1", image)
		if err != nil || r.Count(publish.Created)+r.Count(publish.Found) != 1+2+4 || len(r.Items) != 7 {
			t.Errorf("%v: %s%+v", err, stderr, r)
		}
		c.wantOnce("v1", "disk.raw.tar.gz")
	})
	return killed && ok
}

// TestPublishZoneFails: the others are made, and status and report say which
// failed and why.
func TestPublishZoneFails(t *testing.T) {
	c := newCloud(t, binary(t), true, gcetest.Options{})
	c.compute.AddFault(gcetest.Fault{Kind: gcetest.OpQuotaExceeded, Method: "disks.insert", Zone: "europe-west1-b"})
	cmd := c.command("--version", "v1", smallImage(t))
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(out.String(), "disk svc-v1-europe-west1-b-1 in europe-west1-b: insert projects/prod-2/zones/europe-west1-b/disks/svc-v1-europe-west1-b-1: quota exceeded (QUOTA_EXCEEDED)") ||
		!strings.Contains(out.String(), "6 created, 1 failed") {
		t.Errorf("the report is\n%s", &out)
	}
	if !strings.Contains(messages.String(), "bigdisk: version v1 is not complete: 1 failed: insert projects/prod-2") {
		t.Errorf("it says %s", &messages)
	}
}

// TestPublishInterrupted: after Ctrl-C the report says what was left.
func TestPublishInterrupted(t *testing.T) {
	c := newCloud(t, binary(t), true, gcetest.Options{MethodLatency: map[string]gcetest.Distribution{"images.insert": gcetest.Fixed(time.Hour)}})
	cmd := c.command("--version", "v1", smallImage(t))
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	started := make(chan struct{})
	var once sync.Once
	c.gate = func(_ int, r *http.Request, serve func()) {
		if strings.HasSuffix(r.URL.Path, "/wait") {
			<-started
			once.Do(func() { _ = cmd.Process.Signal(os.Interrupt) }) // the second would end it at once
		}
		serve()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(out.String(), "1 created, 6 left") || !strings.Contains(messages.String(), "bigdisk: interrupted: of version v1 6 are left and 0 failed") {
		t.Errorf("it says %s%s", &out, &messages)
	}
}

// TestVersionOf: a label that somebody chose is the version.
func TestVersionOf(t *testing.T) {
	const sum = "0123456789abcdef"
	for label, want := range map[string]string{
		"": sum[:12], "bigdisk-992e124": sum[:12], "two words": sum[:12], "v12": "v12", "bigdisk-v12": "bigdisk-v12",
	} {
		if got := versionOf(label, sum); got != want {
			t.Errorf("%q: got %q, want %q", label, got, want)
		}
	}
}

// TestPublishFromDisk: the device becomes equal to the image, and on top of a
// clone of the last version only what differs is written.
func TestPublishFromDisk(t *testing.T) {
	c := newCloud(t, binary(t), true, gcetest.Options{})
	if err := c.compute.AddInstance("prod-1", "us-central1-a", &computepb.Instance{Name: proto.String("builder-1")}); err != nil {
		t.Fatal(err)
	}
	c.compute.SetChecks(gcetest.Checks{Builders: []string{"builder-1"}})
	devices, image := t.TempDir(), smallImage(t)
	device := filepath.Join(devices, "google-svc-v1")
	if err := os.WriteFile(device, bytes.Repeat([]byte("old"), 50_000), 0o666); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--version", "v1", "--source", "disk", "--device-dir", devices, "--builder", "prod-1/us-central1-a/builder-1", image}
	for _, want := range []publish.State{publish.Created, publish.Found} {
		r, stderr, err := c.publish(flags...)
		if err != nil || r.Count(want) != 5 || len(r.Items) != 5 || r.Items[0].Kind != publish.KindSnapshot {
			t.Fatalf("%v: %s%+v", err, stderr, r)
		}
	}
	want := readBytes(t, image)
	if got := readBytes(t, device); !bytes.Equal(got[:len(want)], want) || len(got) != 150_000 {
		t.Error("the device does not equal the image")
	}
	if a := c.compute.Attachments(); len(a) != 0 {
		t.Errorf("attached is %v", a)
	}
}
