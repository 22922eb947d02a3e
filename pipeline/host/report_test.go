package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bigdisk/gcp/guest"
	"bigdisk/image/imagetest"
)

// onOwn gives the host a filesystem of its own for its mounts, which a test may
// fill or make read-only.
func (h *testHost) onOwn() {
	h.t.Helper()
	if err := os.MkdirAll(h.MountRoot, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", h.MountRoot, "tmpfs", 0, "size=64k"); err != nil {
		h.t.Fatal(err)
	}
}

// TestReportsOfBrokenHosts: it is not the disk that is wrong, and the report
// says what is.
func TestReportsOfBrokenHosts(t *testing.T) {
	link := func(h *testHost) string { return filepath.Join(h.MountRoot, "nix", currentName) }
	for name, c := range map[string]struct {
		breaks  func(h *testHost) error
		says    string
		current string
	}{
		"read-only": {func(h *testHost) error {
			return unix.Mount("", h.MountRoot, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}, "read-only file system", "v1"},
		"full": {func(h *testHost) error {
			imagetest.Command(t, "sh", "-c", "cat /dev/zero > '"+filepath.Join(h.MountRoot, "fill")+"' 2> /dev/null || true")
			return nil
		}, "no space left on device", "v1"},
		"current is a directory": {func(h *testHost) error {
			return errors.Join(os.Remove(link(h)), os.Mkdir(link(h), 0o755))
		}, "current is no symlink: move it away", ""},
		"current leads elsewhere": {func(h *testHost) error {
			return errors.Join(os.Remove(link(h)), os.Symlink("/etc/v1", link(h)))
		}, "cannot be a version", ""},
		"no disk's name": {func(h *testHost) error { return os.Mkdir(h.device("v3"), 0o755) }, "neither a block device nor a file", "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.onOwn()
			h.attach("v1.sqsh", "v1")
			h.mount()
			h.attach("v2.sqsh", "v2")
			if err := c.breaks(h); err != nil {
				t.Fatal(err)
			}
			if r, err := Mount(t.Context(), h.Options); err == nil {
				t.Fatalf("%+v", r)
			}
			about := "v2"
			if name == "no disk's name" {
				about = "v1" // which is all that can be told
			}
			h.wantReport(about, guest.Failed, c.says, c.current)
		})
	}
}

// TestFullAndWell: a host without any space left has a disk that is well, and
// says so.
func TestFullAndWell(t *testing.T) {
	h := newHost(t)
	h.onOwn()
	h.attach("v1.sqsh", "v1")
	h.mount()
	imagetest.Command(t, "sh", "-c", "cat /dev/zero > '"+filepath.Join(h.MountRoot, "fill")+"' 2> /dev/null || true")
	h.told = nil
	h.mount()
	h.wantReport("v1", guest.OK, "", "v1")
}

// TestLinkInFull: people write the link to the current version in full.
func TestLinkInFull(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	h.mount()
	link := filepath.Join(h.MountRoot, "nix", currentName)
	if err := errors.Join(os.Remove(link), os.Symlink(filepath.Join(h.MountRoot, "nix/v1"), link)); err != nil {
		t.Fatal(err)
	}
	if r, err := Mount(t.Context(), h.Options); err != nil || r.Current != "v1" || r.Switched {
		t.Errorf("%+v, %v", r, err)
	}
	if s, err := ReadStatus(h.Options); err != nil || s.Current != "v1" || !s.Mounted {
		t.Errorf("%+v, %v", s, err)
	}
}

// stuck is a metadata server that answers when the test says so.
type stuck struct {
	asked  chan guest.Report
	answer chan error
}

func (s stuck) Write(ctx context.Context, r guest.Report) error {
	s.asked <- r
	select {
	case err := <-s.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestTeller: nobody waits for a report to be written, only the newest counts,
// and one that failed is tried again.
func TestTeller(t *testing.T) {
	server := stuck{make(chan guest.Report), make(chan error)}
	var log strings.Builder
	teller := newTeller(server, slog.New(slog.NewTextHandler(&log, nil)))
	teller.resend = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		teller.run(ctx)
		close(ended)
	}()
	tell := func(n int) {
		if err := teller.Write(ctx, guest.Report{Version: fmt.Sprint("v", n)}); err != nil {
			t.Error(err)
		}
	}
	want := func(version string) {
		t.Helper()
		if r := <-server.asked; r.Version != version {
			t.Errorf("it writes %s, not %s", r.Version, version)
		}
	}
	tell(1)
	want("v1")
	for n := range 5 {
		tell(n) // at once, though v1 is not written yet
	}
	server.answer <- nil
	want("v4")
	for range 3 {
		server.answer <- errors.New("not now")
		want("v4")
	}
	server.answer <- guest.ErrDisabled // that does not pass by itself
	time.Sleep(20 * time.Millisecond)
	tell(5)
	want("v5")
	cancel()
	<-ended
	if n := strings.Count(log.String(), "not now"); n != 1 {
		t.Errorf("it says %d times that it cannot be written:\n%s", n, &log)
	}
}

// TestWatchAndStuckServer: a metadata server that never answers keeps no disk
// from being mounted.
func TestWatchAndStuckServer(t *testing.T) {
	h := newHost(t)
	h.Reporter = stuck{make(chan guest.Report, 100), nil}
	h.attach("v1.sqsh", "v1")
	ctx, cancel := context.WithCancel(t.Context())
	ended, ready := make(chan error, 1), make(chan string, 1)
	go func() {
		ended <- Watch(ctx, h.Options, WatchOptions{Poll: 10 * time.Millisecond, Ready: func(s string) { ready <- s }})
	}()
	if s := <-ready; !strings.HasSuffix(s, "nix/v1 is current") {
		t.Errorf("it is ready with %q", s)
	}
	h.attach("v2.sqsh", "v2")
	for h.sound("v2") != nil {
		select {
		case <-t.Context().Done():
			t.Fatal("v2 does not become current")
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRetries: what may pass by itself is tried again soon.
func TestRetries(t *testing.T) {
	w := &watch{every: WatchOptions{}.fill()}
	passing := errors.New("manifest: the bucket cannot be reached")
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
		if w.retry = w.nextRetry(passing); w.retry != want*time.Second {
			t.Errorf("it is tried again after %v, not %v", w.retry, want*time.Second)
		}
	}
	if got := w.nextRetry(refuse("it is bad")); got != DefaultRetry {
		t.Errorf("a bad disk is tried again after %v", got)
	}
	if got := w.nextRetry(nil); got != 0 {
		t.Errorf("a good one after %v", got)
	}
}
