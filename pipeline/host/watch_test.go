package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/guest"
)

// waiting gives reports to a test as they come.
type waiting chan guest.Report

func (w waiting) Write(_ context.Context, r guest.Report) error {
	w <- r
	return nil
}

// until returns the first report that will do.
func (w waiting) until(t *testing.T, what string, ok func(guest.Report) bool) guest.Report {
	t.Helper()
	var last guest.Report
	for {
		select {
		case last = <-w:
			if ok(last) {
				return last
			}
		case <-time.After(time.Minute):
			t.Fatalf("no report that %s; the last is %+v", what, last)
		}
	}
}

// watch watches the host's disks, and gives what it reports. It has to be told to
// stop before the test is over.
func (h *testHost) watch(w WatchOptions) (reports waiting, stop func()) {
	h.t.Helper()
	w.Poll = 10 * time.Millisecond
	reports = make(waiting, 1000)
	h.Reporter = reports
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, h.Options, w) }()
	return reports, func() {
		h.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	}
}

func TestWatch(t *testing.T) {
	h := newHost(t)
	ready := make(chan string, 1)
	reports, stop := h.watch(WatchOptions{Heartbeat: time.Hour, Retry: 50 * time.Millisecond, Ready: func(s string) { ready <- s }})
	if got := <-ready; got != "nothing is mounted" {
		t.Errorf("it is ready with %q", got)
	}
	is := func(version string, health guest.Health) func(guest.Report) bool {
		return func(r guest.Report) bool { return r.Version == version && r.Health == health }
	}
	h.attach("v1.sqsh", "v1")
	reports.until(t, "v1 is well", is("v1", guest.OK))
	name := h.attachCopy("v2.sqsh", "v2")
	hide(t, name, true)
	reports.until(t, "v2 is well or bad", func(r guest.Report) bool { return r.Version == "v2" && r.Health != guest.Pending })
	hide(t, name, true)
	touch(t, name)
	reports.until(t, "v2 is bad", is("v2", guest.Failed))
	hide(t, name, false) // it is tried again
	reports.until(t, "v2 is well", is("v2", guest.OK))
	h.detach("v2")
	reports.until(t, "v1 is back", is("v1", guest.OK))
	h.detach("v1")
	reports.until(t, "v1 is gone", func(r guest.Report) bool {
		return r.Version == "v1" && r.Health == guest.Failed && r.Current == "v1" && strings.Contains(r.Error, "no such disk")
	})
	stop()
	h.wantCurrent("v1") // nothing better is there, and its file still is
}

// hide moves the manifest of a disk away, and back.
func hide(t *testing.T, name string, away bool) {
	t.Helper()
	from, to := name+".manifest.json", filepath.Join(filepath.Dir(name), "hidden")
	bad := []byte("{")
	if away {
		if _, err := os.Stat(to); err == nil {
			return
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(from, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.Rename(to, from); err != nil {
		t.Fatal(err)
	}
}

// TestWatchUnmounted has somebody unmount the current disk, and take its name
// away: neither waits for the next heartbeat.
func TestWatchUnmounted(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	reports, stop := h.watch(WatchOptions{Heartbeat: time.Hour})
	ok := func(r guest.Report) bool { return r.Health == guest.OK }
	reports.until(t, "v1 is well", ok)
	for name, take := range map[string]func() error{
		"unmounted": func() error { return unmountAll(filepath.Join(h.MountRoot, "nix/v1"), true) },
		"unnamed":   func() error { return os.Remove(filepath.Join(h.MountRoot, "nix/current")) },
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		reports.until(t, "v1 is well though it was "+name, ok)
		h.wantCurrent("v1")
	}
	stop()
}

func TestHeartbeat(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	reports, stop := h.watch(WatchOptions{Heartbeat: 1200 * time.Millisecond})
	ok := func(r guest.Report) bool { return r.Health == guest.OK }
	first := reports.until(t, "v1 is well", ok)
	if again := reports.until(t, "is a heartbeat", ok); !again.Time.After(first.Time) {
		t.Errorf("%v after %v", again.Time, first.Time)
	}
	stop()
	if err := Watch(t.Context(), Options{Service: "a/b"}, WatchOptions{}); err == nil {
		t.Error("a/b is a service")
	}
}

func TestStatus(t *testing.T) {
	h := newHost(t)
	h.attachCopy("v1.sqsh", "v1")
	h.mount()
	name := h.attachCopy("v2.sqsh", "v2")
	s, err := ReadStatus(h.Options)
	if err != nil {
		t.Fatal(err)
	}
	if s.Current != "v1" || !s.Mounted || s.Path != filepath.Join(h.MountRoot, "nix/v1") || len(s.Versions) != 1 || s.Report == nil || s.Report.Health != guest.OK {
		t.Errorf("%+v", s)
	}
	if len(s.Attached) != 2 || s.Attached[1].Path != name || s.Versions[0].Source != h.device("v1") || s.Versions[0].Format != "squashfs" {
		t.Errorf("%+v", s)
	}
	unmountBelow(t, h.MountRoot)
	if s, err = ReadStatus(h.Options); err != nil || s.Current != "v1" || s.Mounted {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestArrange holds the order of disks against a host that remembers every
// attachment, over boots that number them anew.
func TestArrange(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := &state{Mounted: make(map[string]uint64)}
		var truth []Device
		boot, seq := 0, uint64(1)
		for range 30 {
			switch n := r.IntN(4); {
			case n == 0 && len(truth) > 0:
				i := r.IntN(len(truth))
				truth = slices.Delete(truth, i, i+1)
			case n == 1:
				boot++
				for _, i := range r.Perm(len(truth)) {
					truth[i].Seq, seq = seq, seq+1
				}
			default:
				name := fmt.Sprint("d", r.IntN(6))
				truth = slices.DeleteFunc(truth, func(d Device) bool { return d.Name == name })
				truth = append(truth, Device{Name: name, Seq: seq})
				seq++
			}
			found := slices.Clone(truth)
			slices.SortFunc(found, func(a, b Device) int { return int(a.Seq) - int(b.Seq) })
			if got := s.arrange(fmt.Sprint(boot), found); !slices.Equal(got, truth) {
				t.Fatalf("seed %d: %v, want %v", seed, got, truth)
			}
		}
	}
}

func TestAttached(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"google-nix-v1", "google-nix-v1.manifest.json", "google-nix-v2-part1", "google-other-v1", "google-nix-", "nix-v3", "google-nix-.x"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "google-nix-v9")); err != nil {
		t.Fatal(err)
	}
	devices, err := Attached(dir, "nix")
	if err != nil || len(devices) != 1 || devices[0].Version != "v1" || devices[0].Path != filepath.Join(dir, "google-nix-v1") {
		t.Errorf("%+v, %v", devices, err)
	}
	long := "V12_" + strings.Repeat("x", 100) // the device's name is a shortened one
	d, ok := find([]Device{{Name: "google-nix-v1", Version: "v1"}, {Name: deviceName("nix", long)}}, "nix", long)
	if !ok || d.Version != long {
		t.Errorf("%+v, %v", d, ok)
	}
	if err := os.Mkdir(filepath.Join(dir, "google-nix-dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if devices, err := Attached(dir, "nix"); err == nil {
		t.Errorf("a directory is a disk: %+v", devices)
	}
	if devices, err := Attached(filepath.Join(dir, "none"), "nix"); err != nil || len(devices) > 0 {
		t.Errorf("%+v, %v", devices, err)
	}
}

// TestOtherServices: a disk of service nix-extra is no version of nix.
func TestOtherServices(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	h.attach("v2.sqsh", "extra-v2")
	if err := os.MkdirAll(filepath.Join(h.MountRoot, "nix-extra"), 0o755); err != nil {
		t.Fatal(err)
	}
	if r := h.mount(); r.Current != "v1" {
		t.Errorf("%+v", r)
	}
	if s, err := ReadStatus(h.Options); err != nil || len(s.Attached) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	extra := h.Options
	extra.Service = "nix-extra"
	if r, err := Mount(t.Context(), extra); err != nil || r.Current != "v2" {
		t.Errorf("%+v, %v", r, err)
	}
}
