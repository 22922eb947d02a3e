package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/gcp/guest"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/pipeline/host/modenv"
)

func TestMountRightDisks(t *testing.T) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t)
			h.attach(kind, "v1")
			r := h.mount()
			if r.Version != "v1" || r.Current != "v1" || !r.Switched || r.Path != filepath.Join(h.MountRoot, "nix/v1") {
				t.Errorf("%+v", r)
			}
			h.wantReport("v1", guest.OK, "", "v1")
			if len(h.told) != 2 || h.told[0].Health != guest.Pending {
				t.Errorf("it said %+v", h.told)
			}
			if again := h.mount(); again.Switched || again.Current != "v1" {
				t.Errorf("again: %+v", again)
			}
			if all, err := readMounts(); err != nil || count(all, h.MountRoot) != 1 {
				t.Errorf("%d mounts, %v", count(all, h.MountRoot), err)
			}
			h.Full = true
			h.mount()
		})
	}
}

func count(all []mountPoint, below string) (n int) {
	for _, m := range all {
		if strings.HasPrefix(m.Path, below+"/") {
			n++
		}
	}
	return n
}

// TestMountBlockDevice mounts from a block device larger than the image, as
// Compute Engine's are, bare and partitioned.
func TestMountBlockDevice(t *testing.T) {
	for _, kind := range []string{"v2.raw", "v2.sqsh", "gpt.raw"} {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t)
			name := filepath.Join(t.TempDir(), "disk")
			imagetest.Command(t, "cp", "--sparse=always", imageOf(t, kind), name)
			imagetest.Command(t, "truncate", "--size=+64M", name)
			loop, err := attachLoop(name, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer loop.Close()
			if err := os.Symlink(loop.Name(), h.device("v2")); err != nil {
				t.Fatal(err)
			}
			m, err := image.ReadManifest(imageOf(t, kind) + ".manifest.json")
			if err != nil {
				t.Fatal(err)
			}
			h.Manifest = func(context.Context, Device) (*image.Manifest, error) { return m, nil }
			h.mount()
			at, err := mountAt(filepath.Join(h.MountRoot, "nix/v2"))
			if err != nil || at == nil || (kind != "gpt.raw" && loopFile(at.Source) != name) || !slices.Contains(at.Options, "nodev") || !slices.Contains(at.Options, "nosuid") {
				t.Errorf("mounted is %+v, %v", at, err)
			}
		})
	}
}

// TestMountFallsBack has a bad newest disk where nothing is current yet.
func TestMountFallsBack(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v2"))
	r, err := Mount(t.Context(), h.Options)
	if !errors.Is(err, ErrRefused) && err == nil || r.Version != "v2" || r.Current != "v1" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantCurrent("v1")
	h.wantReport("v2", guest.Failed, "google-nix-v2: ", "v1")

	h = newHost(t)
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v2"))
	if r, err = Mount(t.Context(), h.Options); err == nil || r.Current != "" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantCurrent("")
	h.wantReport("v2", guest.Failed, "google-nix-v2: ", "")
}

func TestMountOrder(t *testing.T) {
	h := newHost(t)
	want := func(version string) {
		t.Helper()
		if r := h.mount(); r.Current != version {
			t.Errorf("current is %s, not %s", r.Current, version)
		}
	}
	h.attachCopy("v1.sqsh", "z-first")
	want("z-first")
	h.attachCopy("v2.sqsh", "a-second")
	want("a-second")
	h.attachCopy("v1.sqsh", "m-third")
	want("m-third")
	h.detach("m-third")
	want("a-second") // it goes back when the newest is gone
	h.detach("z-first")
	h.attachCopy("v1.sqsh", "z-first")
	want("z-first") // attached anew, it is the newest
	h.Version = "a-second"
	want("a-second") // what was asked for
	h.Version = ""
	want("z-first")

	// After a boot the kernel has other numbers, and nothing is mounted.
	unmountBelow(t, h.MountRoot)
	l := layout{filepath.Join(h.MountRoot, "nix")}
	s, err := l.loadState()
	if err != nil {
		t.Fatal(err)
	}
	s.Boot = "before"
	if err := l.saveState(s); err != nil {
		t.Fatal(err)
	}
	touch(t, h.device("a-second"))
	want("z-first")

	h.Version = "none"
	r, err := Mount(t.Context(), h.Options)
	if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "google-nix-a-second, google-nix-z-first") || r.Current != "z-first" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantReport("none", guest.Failed, "no such disk is attached", "z-first")
}

func touch(t *testing.T, name string) {
	t.Helper()
	imagetest.Command(t, "touch", name)
}

// TestMountAgain attaches another disk under the same name: what is mounted is
// of the old one, and is replaced once the new one has passed.
func TestMountAgain(t *testing.T) {
	h := newHost(t)
	h.attachCopy("v1.sqsh", "v1")
	h.mount()
	h.detach("v1")
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v1"))
	if _, err := Mount(t.Context(), h.Options); err == nil {
		t.Error("a damaged disk is taken")
	}
	h.wantCurrent("v1")
	h.detach("v1")
	h.attachCopy("v2.sqsh", "v1")
	h.mount()
	if _, err := modenv.Read(filepath.Join(h.MountRoot, "nix/current"), "hello-1:v2-20240502-603953c"); err != nil {
		t.Errorf("the old disk is still to be seen: %v", err)
	}
}

func TestMountKeeps(t *testing.T) {
	h := newHost(t)
	mounted := func() string {
		l := layout{filepath.Join(h.MountRoot, "nix")}
		all, err := l.mounted()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	for _, step := range []struct{ version, want string }{{"v1", "v1"}, {"v2", "v1 v2"}, {"v3", "v2 v3"}} {
		h.attachCopy("v1.sqsh", step.version)
		h.mount()
		if got := mounted(); got != step.want {
			t.Errorf("after %s: %q are mounted, want %q", step.version, got, step.want)
		}
	}
	if _, err := os.Stat(filepath.Join(h.MountRoot, "nix/v1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of v1: %v", err)
	}
	used, err := os.Open(filepath.Join(h.MountRoot, "nix/v2/nix/store"))
	if err != nil {
		t.Fatal(err)
	}
	h.Keep = 0
	h.mount()
	if got := mounted(); got != "v2 v3" {
		t.Errorf("%q are mounted though v2 is in use", got)
	}
	used.Close()
	h.mount()
	if got := mounted(); got != "v3" {
		t.Errorf("%q are mounted, want v3", got)
	}
}

// TestMountRelative has directories that are relative to the working one.
func TestMountRelative(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	t.Chdir(filepath.Dir(h.MountRoot))
	h.DeviceDir, h.MountRoot = "by-id", "mnt"
	if r := h.mount(); !filepath.IsAbs(r.Path) {
		t.Errorf("%+v", r)
	}
	h.mount()
}

func TestMountUsage(t *testing.T) {
	h := newHost(t)
	for _, service := range []string{"", "a/b", "..", "current"} {
		o := h.Options
		o.Service = service
		if _, err := Mount(t.Context(), o); err == nil {
			t.Errorf("%q is a service", service)
		}
	}
	for _, version := range []string{"../x", "current", ".x", strings.Repeat("x", 300)} {
		o := h.Options
		o.Version = version
		if _, err := Mount(t.Context(), o); err == nil {
			t.Errorf("%q is a version", version)
		}
	}
	if r, err := Mount(t.Context(), h.Options); !errors.Is(err, ErrNoDevice) || r.Current != "" {
		t.Errorf("%+v, %v", r, err)
	}
	h.attach("v1.sqsh", "v1")
	l := layout{filepath.Join(h.MountRoot, "nix")}
	lock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), h.Options); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	lock.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Mount(ctx, h.Options); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	h.wantCurrent("")
	if n := len(h.told); n > 0 {
		t.Errorf("it said %+v", h.told[:n])
	}
}

func TestParseMounts(t *testing.T) {
	text := "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/ro\\134ot ro,errors=continue\n37 35 0:5 / / rw - tmpfs none rw\n"
	all, err := parseMounts([]byte(text))
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if m := all[0]; m.Device != "98:0" || m.Path != "/mnt 2" || m.Type != "ext3" || m.Source != `/dev/ro\ot` || !m.readOnly() || m.Options[1] != "noatime" {
		t.Errorf("%+v", m)
	}
	if all[1].readOnly() {
		t.Errorf("%+v", all[1])
	}
	for _, bad := range []string{"x\n", "36 35 98:0 / - ext3 a b\n", "36 35 98:0 / /x rw - ext3\n"} {
		if m, err := parseMounts([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, m)
		}
	}
	if all, err := readMounts(); err != nil || len(all) == 0 {
		t.Errorf("this machine has %d mounts, %v", len(all), err)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Add([]byte("37 35 0:5 / / rw - tmpfs none rw\n\\777"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseMounts(text)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSuffix(string(text), "\n"), "\n") + 1; len(text) > 0 && len(all) > lines {
			t.Errorf("%d mounts in %d lines", len(all), lines)
		}
	})
}

// TestLoopGoesAway makes sure that a loop device lives as long as its mount.
func TestLoopGoesAway(t *testing.T) {
	h := newHost(t)
	name := h.attachCopy("v1.sqsh", "v1")
	h.mount()
	at, err := mountAt(filepath.Join(h.MountRoot, "nix/v1"))
	if err != nil {
		t.Fatal(err)
	}
	if loopFile(at.Source) != name {
		t.Errorf("%s is of %q", at.Source, loopFile(at.Source))
	}
	f, err := os.OpenFile(at.Source, os.O_RDWR, 0)
	if err == nil {
		if _, err := f.Write([]byte{1}); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			t.Errorf("the device can be written to: %v", err)
		}
		f.Close()
	}
	if err := unmountAll(at.Path, false); err != nil {
		t.Fatal(err)
	}
	if loopFile(at.Source) == name {
		t.Errorf("%s is still there", at.Source)
	}
}
