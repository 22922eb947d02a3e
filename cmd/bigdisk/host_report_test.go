package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/guest"
	"bigdisk/image/imagetest"
)

// attributes are the guest attributes of one namespace, as a metadata server
// keeps them.
type attributes struct {
	mu    sync.Mutex
	value map[string]string
}

func (a *attributes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	name, ok := strings.CutPrefix(r.URL.Path, "/computeMetadata/v1/instance/guest-attributes/nix/")
	if err != nil || !ok || r.Method != http.MethodPut {
		http.NotFound(w, r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.value[name] = string(text)
}

// wait waits for a report.
func (a *attributes) wait(t *testing.T, what string, ok func(guest.Report) bool) guest.Report {
	t.Helper()
	var r guest.Report
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		a.mu.Lock()
		r, err = guest.Parse(a.value)
		a.mu.Unlock()
		if err == nil && ok(r) {
			return r
		}
	}
	t.Fatalf("no report that %s; the last is %+v, %v", what, r, err)
	return r
}

// TestHostWatch runs the command as systemd would, attaches and detaches disks,
// and reads what the host reports as a rollout would.
func TestHostWatch(t *testing.T) {
	t.Parallel()
	imagetest.NeedRoot(t, "mount a disk")
	server := &attributes{value: make(map[string]string)}
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	dir := t.TempDir()
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ready.Close() })
	devices, root := filepath.Join(dir, "by-id"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(devices, 0o755); err != nil {
		t.Fatal(err)
	}
	attach := func(version, image string) {
		t.Helper()
		for _, suffix := range []string{".manifest.json", ""} {
			imagetest.Command(t, "cp", "--sparse=always", image+suffix, filepath.Join(devices, ".new"))
			imagetest.Command(t, "mv", filepath.Join(devices, ".new"), filepath.Join(devices, "google-nix-"+version+suffix))
		}
	}
	attach("v1", buildExample(t))
	cmd := exec.Command(binary(t), "host", "mount", "--service", "nix", "--device-dir", devices, "--mount-root", root, "--watch", "--poll", "50ms", "--heartbeat", "2s")
	cmd.Env = append(os.Environ(), guest.HostVariable+"="+strings.TrimPrefix(web.URL, "http://"), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		for _, version := range []string{"v1", "v2"} {
			unix.Unmount(filepath.Join(root, "nix", version), unix.MNT_DETACH)
		}
	})

	first := server.wait(t, "v1 is well", func(r guest.Report) bool { return r.Version == "v1" && r.Health == guest.OK })
	said := make([]byte, 1000)
	ready.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := ready.Read(said); err != nil || !strings.HasPrefix(string(said[:n]), "READY=1\nSTATUS=") || !strings.Contains(string(said[:n]), "nix/v1 is current") {
		t.Errorf("systemd was told %q, %v", said[:n], err)
	}
	server.wait(t, "is a heartbeat", func(r guest.Report) bool { return r.Health == guest.OK && r.Time.After(first.Time) })

	bad := filepath.Join(t.TempDir(), "bad.sqsh")
	for _, suffix := range []string{"", ".manifest.json"} {
		imagetest.Command(t, "cp", buildExample(t)+suffix, bad+suffix)
	}
	imagetest.Command(t, "truncate", "--size=100000", bad)
	attach("v2", bad)
	r := server.wait(t, "v2 is bad", func(r guest.Report) bool { return r.Version == "v2" && r.Health == guest.Failed })
	if r.Current != "v1" || !strings.Contains(r.Error, "the disk is refused") {
		t.Errorf("it reports %+v", r)
	}
	attach("v2", buildExampleAs(t, "good.raw"))
	server.wait(t, "v2 is well", func(r guest.Report) bool { return r.Version == "v2" && r.Health == guest.OK && r.Current == "v2" })
	for _, suffix := range []string{"", ".manifest.json"} {
		if err := os.Remove(filepath.Join(devices, "google-nix-v2"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	server.wait(t, "it is back at v1", func(r guest.Report) bool { return r.Version == "v1" && r.Health == guest.OK })

	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, stderr.String())
	}
	if target, err := os.Readlink(filepath.Join(root, "nix/current")); err != nil || target != "v1" {
		t.Errorf("current is %q, %v", target, err)
	}
	if n := strings.Count(stderr.String(), "\n"); n > 5 {
		t.Errorf("it logs\n%s", stderr.String())
	}
}

// TestHostNeedsRoot runs what mounts as somebody who may not.
func TestHostNeedsRoot(t *testing.T) {
	for _, args := range [][]string{{"mount", "--service", "nix"}, {"overlay", "--service", "nix", "--upper", "x"}} {
		cmd := exec.Command(binary(t), append([]string{"host"}, args...)...)
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "bigdisk: only root may mount\nbigdisk: hint: run it with sudo") {
			t.Errorf("%s: %v, %s", args, err, out)
		}
	}
}

// TestHostOverlayNothing has no disk to stand on.
func TestHostOverlayNothing(t *testing.T) {
	imagetest.NeedRoot(t, "mount an overlay")
	dir := t.TempDir()
	out, err := exec.Command(binary(t), "host", "overlay", "--service", "nix", "--mount-root", dir, "--upper", filepath.Join(dir, "upper")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nothing is current") || !strings.Contains(string(out), "hint: bigdisk host mount --service nix mounts") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestHostManifest takes the manifest from where it may be: a bucket, as bigdisk
// publish leaves it there, and a file.
func TestHostManifest(t *testing.T) {
	imagetest.NeedRoot(t, "mount a disk")
	storage := buckettest.New(t, "disks")
	t.Setenv("STORAGE_EMULATOR_HOST", storage.URL)
	disk, other := buildExample(t), buildExampleAs(t, "other.sqsh", "--latest", "1")
	storage.Put("disks", fleet.ManifestName("nix", "v1"), readBytes(t, disk+".manifest.json"), nil)
	storage.Put("disks", "some/where.json", readBytes(t, other+".manifest.json"), nil)
	dir := t.TempDir()
	root := filepath.Join(dir, "mnt")
	t.Cleanup(func() { unix.Unmount(filepath.Join(root, "nix/v1"), unix.MNT_DETACH) })
	imagetest.Command(t, "cp", disk, filepath.Join(dir, "google-nix-v1"))
	imagetest.Command(t, "cp", other+".manifest.json", filepath.Join(dir, "nix-v1.json"))
	for manifest, says := range map[string]string{
		"gs://disks": "", "gs://disks/{service}/{version}/manifest.json": "",
		"gs://disks/some/where.json": "its metadata has the SHA-256", "gs://disks/none": "disks/none",
		filepath.Join(dir, "{service}-{version}.json"): "its metadata has the SHA-256", filepath.Join(dir, "none"): "no such file",
	} {
		out, err := exec.Command(binary(t), "host", "mount", "--service", "nix", "--device-dir", dir, "--mount-root", root, "--manifest", manifest).CombinedOutput()
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(string(out), says)) {
			t.Errorf("%s: %v, %s; want %q", manifest, err, out, says)
		}
	}
}

// TestHostManifestStays: what the bucket has said once holds while it cannot be
// asked, and no longer than it is so.
func TestHostManifestStays(t *testing.T) {
	imagetest.NeedRoot(t, "mount a disk")
	storage := buckettest.New(t, "disks")
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	disk, other := buildExample(t), buildExampleAs(t, "other.sqsh", "--latest", "1")
	dir := t.TempDir()
	root := filepath.Join(dir, "mnt")
	at := filepath.Join(root, "nix/v1")
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	imagetest.Command(t, "cp", disk, filepath.Join(dir, "google-nix-v1"))
	mount := func(server, says string) {
		t.Helper()
		cmd := exec.Command(binary(t), "host", "mount", "--service", "nix", "--device-dir", dir, "--mount-root", root, "--manifest", "gs://disks")
		cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST="+server)
		out, err := cmd.CombinedOutput()
		if bad := strings.HasPrefix(says, "bigdisk: google"); bad != (err != nil) || !strings.Contains(string(out), says) {
			t.Errorf("%v, %s; want %q", err, out, says)
		}
	}
	object := fleet.ManifestName("nix", "v1")
	mount(refusing.URL, "bigdisk: google-nix-v1: manifest: gs://disks/"+object)
	storage.Put("disks", object, readBytes(t, disk+".manifest.json"), nil)
	mount(storage.URL, "is current now")
	unix.Unmount(at, unix.MNT_DETACH)
	mount(refusing.URL, "taking the manifest that it had before")
	storage.Put("disks", object, readBytes(t, other+".manifest.json"), nil)
	mount(storage.URL, "bigdisk: google-nix-v1: the disk is refused")
}

// TestWithTimeout: a bucket that does not answer holds nobody up.
func TestWithTimeout(t *testing.T) {
	_, err := withTimeout(t.Context(), time.Millisecond, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if err == nil || !strings.Contains(err.Error(), "no answer in 1ms") {
		t.Error(err)
	}
}
