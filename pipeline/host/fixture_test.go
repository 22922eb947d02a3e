package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bigdisk/gcp/guest"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/verify"
	"bigdisk/pipeline"
)

// killAt is set for the process that a test kills, see kill_test.go.
const killAt = "BIGDISK_TEST_KILL_AT"

func TestMain(m *testing.M) {
	if step := os.Getenv(killAt); step != "" {
		os.Exit(mountAndDie(step))
	}
	status := m.Run()
	if images.dir != "" {
		os.RemoveAll(images.dir)
	}
	os.Exit(status)
}

// The example, whose images the tests mount.
const (
	exampleDir = "../../configs/example"
	exampleKey = "example-1:3AlBt2BR9uPx7+vsB5x63kR6IhlDUpa8SmWCeaWsZHI="
)

// images are those that tests have built, by what they are of.
var images struct {
	sync.Mutex
	dir  string
	made map[string]string
}

// The images that there are. Both formats have two versions: the second has
// everything that the first has, and more.
var kinds = map[string]func(*pipeline.BuildOptions){
	"v1.sqsh":   func(o *pipeline.BuildOptions) { o.Modules = first },
	"v2.sqsh":   func(*pipeline.BuildOptions) {},
	"v1.raw":    func(o *pipeline.BuildOptions) { o.Modules = first },
	"v2.raw":    func(*pipeline.BuildOptions) {},
	"gpt.raw":   func(o *pipeline.BuildOptions) { o.Partition, o.Verity = pipeline.GPT, true },
	"tree.raw":  func(o *pipeline.BuildOptions) { o.Verity = true },
	"tree.sqsh": func(o *pipeline.BuildOptions) { o.Verity = true },
	"later.sqsh": func(o *pipeline.BuildOptions) { // has what v1 has not, and not all of what it has
		o.Modules = []string{"hello-1:v2-20240502-603953c", "notes-2:v2-20240502-e977eb0"}
	},
}

var first = []string{"hello-1:v1-20240311-645f99f", "notes-2:v1-20240311-8036cc9"}

// imageOf builds an image, once for all tests, which do not change it.
func imageOf(t testing.TB, kind string) string {
	t.Helper()
	images.Lock()
	defer images.Unlock()
	if name := images.made[kind]; name != "" {
		return name
	}
	if images.dir == "" {
		dir, err := os.MkdirTemp("", "bigdisk-host-")
		if err != nil {
			t.Fatal(err)
		}
		images.dir, images.made = dir, make(map[string]string)
	}
	cache, err := filepath.Abs(filepath.Join(exampleDir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	o := pipeline.BuildOptions{
		Lock: filepath.Join(exampleDir, "modules.json"), From: []string{"file://" + cache}, TrustedKeys: []string{exampleKey},
		Output: filepath.Join(images.dir, kind),
	}
	if kinds[kind](&o); filepath.Ext(kind) == ".raw" && !o.Verity {
		o.Size = 128 << 20
	}
	if _, err := pipeline.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	images.made[kind] = o.Output
	return o.Output
}

// testHost is a host in a directory of its own.
type testHost struct {
	Options
	t    testing.TB
	told []guest.Report
}

// newHost is a host on which nothing is attached or mounted. What tests mount
// goes when they are over.
func newHost(t testing.TB) *testHost {
	t.Helper()
	imagetest.NeedRoot(t, "mount a disk")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &testHost{t: t, Options: Options{
		Service: "nix", DeviceDir: filepath.Join(dir, "by-id"), MountRoot: filepath.Join(dir, "mnt"),
		Sample: 1000, Blocks: 64, Keep: 1,
	}}
	h.Reporter = h
	h.Manifest = besideFile
	if err := os.MkdirAll(h.DeviceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountBelow(t, dir) })
	return h
}

// besideFile finds a manifest beside an image file.
func besideFile(_ context.Context, d Device) (*image.Manifest, error) {
	return verify.LoadManifest(d.Path)
}

// unmountBelow takes away everything that is mounted below a directory.
func unmountBelow(t testing.TB, dir string) {
	all, err := readMounts()
	if err != nil {
		t.Error(err)
	}
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i].Path, dir+"/") {
			if err := unmount(all[i].Path, true); err != nil {
				t.Error(err)
			}
		}
	}
}

// Write implements [Reporter].
func (h *testHost) Write(_ context.Context, r guest.Report) error {
	h.told = append(h.told, r)
	return nil
}

// attach puts an image where devices are: the image file itself, or a copy
// that the test may change.
func (h *testHost) attach(kind, version string) string {
	h.t.Helper()
	name := h.device(version)
	for _, suffix := range []string{"", ".manifest.json"} {
		if err := os.Symlink(imageOf(h.t, kind)+suffix, name+suffix); err != nil {
			h.t.Fatal(err)
		}
	}
	return name
}

func (h *testHost) attachCopy(kind, version string) string {
	h.t.Helper()
	name := h.device(version)
	for _, suffix := range []string{"", ".manifest.json"} {
		imagetest.Command(h.t, "cp", "--sparse=always", imageOf(h.t, kind)+suffix, name+suffix)
	}
	return name
}

func (h *testHost) device(version string) string {
	return filepath.Join(h.DeviceDir, "google-"+h.Service+"-"+version)
}

func (h *testHost) detach(version string) {
	h.t.Helper()
	for _, suffix := range []string{"", ".manifest.json"} {
		if err := os.Remove(h.device(version) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.t.Fatal(err)
		}
	}
}

// mount is a Mount that has to work.
func (h *testHost) mount() *Result {
	h.t.Helper()
	r, err := Mount(h.t.Context(), h.Options)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wantCurrent(r.Current)
	return r
}

// wantCurrent makes sure that current names a version which is mounted and
// whole: every store path has the contents that the database says.
func (h *testHost) wantCurrent(version string) {
	h.t.Helper()
	if err := h.sound(version); err != nil {
		h.t.Error(err)
	}
}

// sound looks at what is current; "" is for nothing.
func (h *testHost) sound(version string) error {
	link := filepath.Join(h.MountRoot, h.Service, currentName)
	target, err := os.Readlink(link)
	if version == "" {
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("current is %q, %v, and was to be nothing", target, err)
		}
		return nil
	}
	if err != nil || target != version {
		return fmt.Errorf("current is %q, %v, not %q", target, err, version)
	}
	m, err := mountAt(filepath.Join(h.MountRoot, h.Service, target))
	if err != nil || !isDisk(m) {
		return fmt.Errorf("%s is current, and mounted there is %+v, %v", target, m, err)
	}
	o := Options{Sample: 1000}
	return o.checkMounted(context.Background(), link, nil)
}

// lastReport is what was told last.
func (h *testHost) lastReport() guest.Report {
	if len(h.told) == 0 {
		return guest.Report{}
	}
	return h.told[len(h.told)-1]
}

// wantReport holds the last report against what it should be, but for its time.
func (h *testHost) wantReport(version string, health guest.Health, says, current string) {
	h.t.Helper()
	r := h.lastReport()
	if r.Version != version || r.Health != health || r.Current != current || !strings.Contains(r.Error, says) || (says == "") != (r.Error == "") {
		h.t.Errorf("the last report is %+v, want %s %s %q, current %s", r, version, health, says, current)
	}
	boot, err := guest.BootID()
	if err != nil || r.BootID != boot || r.Time.IsZero() {
		h.t.Errorf("the last report is of boot %q at %v, not of %q", r.BootID, r.Time, boot)
	}
}
