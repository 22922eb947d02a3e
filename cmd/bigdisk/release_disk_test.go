package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// TestReleaseFromDisk releases by a disk that the builder writes: the second disk
// begins as the first one's snapshot, the third as nothing, since that is gone.
func TestReleaseFromDisk(t *testing.T) {
	t.Parallel()
	y := newReleaseYard(t, nil)
	if err := y.compute.AddInstance("prod-1", "us-central1-a", &computepb.Instance{Name: proto.String("builder-1")}); err != nil {
		t.Fatal(err)
	}
	y.compute.SetChecks(gcetest.Checks{Builders: []string{"builder-1"}})
	y.write("fleet.yaml", string(readBytes(t, filepath.Join(y.dir, "fleet.yaml")))+"builder: {project: prod-1, zone: us-central1-a, instance: builder-1}\n")
	text := string(readBytes(t, filepath.Join(y.dir, "release.yaml"))) + "source: disk\nrollout: false\nformat: squashfs\n"
	devices := t.TempDir()
	y.write("release.yaml", text)
	for n := range 3 {
		version := "v" + string('1'+rune(n))
		device := filepath.Join(devices, "google-"+fleet.DeviceName("svc", version))
		if err := os.WriteFile(device, bytes.Repeat([]byte("blank"), 1<<18), 0o666); err != nil {
			t.Fatal(err)
		}
		y.compute.ForgetCalls()
		r, stderr := y.run("--version", version, "--device-dir", devices)
		image := readBytes(t, filepath.Join(y.dir, "releases", r.Run.Image))
		if got := readBytes(t, device); len(got) < len(image) || !bytes.Equal(got[:len(image)], image) {
			t.Errorf("%s: the device does not equal the image: %s", version, stderr)
		}
		var asked []string
		for _, c := range y.compute.Calls("snapshots.get") {
			asked = append(asked, c.Resource)
		}
		base := fleet.SnapshotName("svc", "v"+string('0'+rune(n)))
		if found := slices.Contains(asked, base); found != (n > 0) {
			t.Errorf("%s: it asked for %q", version, asked)
		}
		imported := slices.ContainsFunc(y.compute.Mutations(), func(c gcetest.Call) bool { return c.Method == "images.insert" })
		if imported {
			t.Errorf("%s: it was imported", version)
		}
		if n == 1 { // as gc does when nothing needs it
			client, err := gce.New(t.Context(), gce.Options{Endpoint: y.compute.URL()})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(client.DeleteSnapshot(t.Context(), "prod-1", fleet.SnapshotName("svc", version)), client.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	y.write("release.yaml", text+"publish: raw\n")
	if out, err := y.command().CombinedOutput(); err == nil || !strings.Contains(string(out), "source: disk makes disks, and publish: raw does not") {
		t.Errorf("%v, %s", err, out)
	}
}
