package pipeline

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/base"
	"bigdisk/image/ext4"
	"bigdisk/image/imagetest"
	"bigdisk/image/read"
	"bigdisk/image/verify"
)

// inPlace is a store, and an image of a part of it that is changed in place.
type inPlace struct {
	opts BuildOptions
	all  []store.Path
	disk string
}

func newInPlace(t *testing.T, r *rand.Rand) *inPlace {
	t.Helper()
	from, paths := randomStore(t, r, 15)
	x := &inPlace{
		opts: BuildOptions{From: []string{from}, NoCheckSigs: true, Jobs: 2, Label: "disk", Size: 128 << 20},
		all:  paths, disk: filepath.Join(t.TempDir(), "disk.raw"),
	}
	full := x.opts
	full.Output, full.Paths = x.disk, some(r, paths, 0.6)
	if _, err := Build(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *inPlace) build(t *testing.T, part []string) (*BuildResult, error) {
	t.Helper()
	opts := x.opts
	opts.Base, opts.InPlace, opts.Verify, opts.Paths = x.disk, true, true, part
	return Build(t.Context(), opts)
}

// check holds the image against its manifest and against e2fsck, and its digest
// against one of all its bytes.
func (x *inPlace) check(t *testing.T) {
	t.Helper()
	m, err := image.ReadManifest(image.ManifestName(x.disk))
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Verify(t.Context(), verify.Options{Image: x.disk, Manifest: m, Jobs: 2})
	if err != nil || !report.OK() {
		t.Fatalf("verify: %v %v", err, report)
	}
	imagetest.NeedTools(t, "e2fsck")
	imagetest.Command(t, "e2fsck", "-fn", x.disk)
}

// same wants the disk to hold what an image that is built in full does.
func (x *inPlace) same(t *testing.T, part []string) {
	t.Helper()
	full := x.opts
	full.Output, full.Paths = filepath.Join(t.TempDir(), "full.raw"), part
	if _, err := Build(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	a, b := facts(t, x.disk), facts(t, full.Output)
	if a != b {
		t.Errorf("the image holds\n%s\nnot\n%s", a, b)
	}
	// What stands on an image that was changed in place does not show it.
	full.Base, full.Output = x.disk, full.Output+".again.raw"
	if _, err := Build(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, full.Output), readFile(t, strings.TrimSuffix(full.Output, ".again.raw"))) {
		t.Error("an image on top of one that was changed in place differs")
	}
}

// facts lists all that is in an image, but for where it lies.
func facts(t *testing.T, name string) string {
	t.Helper()
	im, err := read.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	root, err := im.Root()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = im.Walk(root, func(path string, n *read.Node, leave bool) error {
		if leave {
			return nil
		}
		fmt.Fprintf(&b, "%s %s %o %d %d %q ", path, n.Kind, n.Mode, n.Size, n.Mtime, n.Target)
		if n.Kind == store.Regular {
			var data bytes.Buffer
			if err := im.CopyNode(t.Context(), &data, n); err != nil {
				return err
			}
			fmt.Fprintf(&b, "%x", sha256.Sum256(data.Bytes()))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestInPlace goes from release to release on one disk.
func TestInPlace(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 2))
		x := newInPlace(t, r)
		var part []string
		for range 4 {
			part = some(r, x.all, 0.6)
			result, err := x.build(t, part)
			if err != nil {
				t.Fatal(err)
			}
			if result.Unchanged || result.Written == 0 {
				t.Errorf("%d bytes written, unchanged %v", result.Written, result.Unchanged)
			}
			x.check(t)
		}
		x.same(t, part)
		before := append(readFile(t, x.disk), readFile(t, image.ManifestName(x.disk))...)
		result, err := x.build(t, part)
		if err != nil || !result.Unchanged {
			t.Errorf("the same again: %v, unchanged %v", err, result)
		}
		if !bytes.Equal(before, append(readFile(t, x.disk), readFile(t, image.ManifestName(x.disk))...)) {
			t.Error("the same again changed something")
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(x.disk), ".*")); len(left) > 0 {
			t.Errorf("%q were left", left)
		}
	}
}

// cutDisk stops after so many steps.
type cutDisk struct {
	*ext4.FileDisk
	steps int
}

var errCut = errors.New("cut off")

func (d *cutDisk) step() error {
	if d.steps--; d.steps < 0 {
		return errCut
	}
	return nil
}

func (d *cutDisk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.step(); err != nil {
		return 0, err
	}
	return d.FileDisk.WriteAt(p, at)
}

func (d *cutDisk) Sync() error {
	return cmp.Or(d.step(), d.FileDisk.Sync())
}

func (d *cutDisk) Punch(at, n int64) error {
	return cmp.Or(d.step(), d.FileDisk.Punch(at, n))
}

func (d *cutDisk) Resize(size int64) error {
	return cmp.Or(d.step(), d.FileDisk.Resize(size))
}

// cut builds in place and stops after so many steps.
func (x *inPlace) cut(t *testing.T, part []string, steps int) error {
	t.Helper()
	opts := x.opts
	opts.Base, opts.InPlace, opts.Paths = x.disk, true, part
	b, err := open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := b.resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ext4.OpenDisk(x.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = b.change(t.Context(), plan, &cutDisk{d, steps}, time.Now())
	return b.close(t.Context(), err)
}

// TestInPlaceInterrupted stops a build after each of its steps, and runs it
// again.
func TestInPlaceInterrupted(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	x := newInPlace(t, r)
	part := some(r, x.all, 0.6)
	image1, manifest1 := readFile(t, x.disk), readFile(t, image.ManifestName(x.disk))
	again := func() {
		for name, data := range map[string][]byte{x.disk: image1, image.ManifestName(x.disk): manifest1} {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := x.build(t, part); err != nil {
		t.Fatal(err)
	}
	x.same(t, part)
	image2, manifest2 := readFile(t, x.disk), readFile(t, image.ManifestName(x.disk))
	refused := 0
	for steps := 0; ; steps++ {
		again()
		err := x.cut(t, part, steps)
		if err == nil {
			t.Logf("%d steps, after %d of which the image was refused", steps, refused)
			if refused < steps-5 {
				t.Error("an unfinished image was taken for one")
			}
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		switch _, err := verify.Verify(t.Context(), verify.Options{Image: x.disk, Jobs: 1}); {
		case errors.Is(err, read.ErrUnfinished):
			refused++
			x.refusedAsBase(t)
		case err != nil:
			t.Fatalf("after %d steps: verify says %v", steps, err)
		}
		opts := x.opts
		opts.Base, opts.InPlace, opts.Paths = x.disk, true, part
		if _, err := Build(t.Context(), opts); err != nil {
			t.Fatalf("after %d steps, again: %v", steps, err)
		}
		if !bytes.Equal(readFile(t, x.disk), image2) || !bytes.Equal(readFile(t, image.ManifestName(x.disk)), manifest2) {
			t.Fatalf("after %d steps the image is another one", steps)
		}
	}
}

// refusedAsBase wants an unfinished image to be no base for another.
func (x *inPlace) refusedAsBase(t *testing.T) {
	t.Helper()
	opts := x.opts
	opts.Base, opts.Output, opts.Paths = x.disk, filepath.Join(t.TempDir(), "other.raw"), []string{string(x.all[0])}
	if _, err := Build(t.Context(), opts); !errors.Is(err, read.ErrUnfinished) {
		t.Errorf("as a base it is refused with %v", err)
	}
}

// TestInPlaceDevice does the same on a block device, which cannot grow, with
// the manifest in a file elsewhere.
func TestInPlaceDevice(t *testing.T) {
	imagetest.NeedRoot(t, "set up a loop device")
	imagetest.NeedTools(t, "losetup")
	r := rand.New(rand.NewPCG(4, 2))
	x := newInPlace(t, r)
	x.opts.Size = 0
	manifest := filepath.Join(t.TempDir(), "release.json")
	if err := os.Rename(image.ManifestName(x.disk), manifest); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(imagetest.Command(t, "losetup", "--find", "--show", x.disk))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	var part []string
	for range 3 {
		part = some(r, x.all, 0.6)
		opts := x.opts
		opts.Base, opts.BaseManifest, opts.InPlace, opts.Verify, opts.Paths = device, manifest, true, true, part
		result, err := Build(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if result.Image != device || result.Manifest != manifest || result.Size != 128<<20 {
			t.Errorf("%+v", result)
		}
	}
	m, err := image.ReadManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Verify(t.Context(), verify.Options{Image: device, Manifest: m, Jobs: 2})
	if err != nil || !report.OK() {
		t.Fatalf("verify: %v %v", err, report)
	}
	imagetest.Command(t, "e2fsck", "-fn", device)
	if left, _ := filepath.Glob("/dev/.*bigdisk*"); len(left) > 0 {
		t.Errorf("%q were left", left)
	}
	at := t.TempDir()
	imagetest.Command(t, "mount", "-o", "ro", device, at)
	defer imagetest.Command(t, "umount", at)
	opts := x.opts
	opts.Base, opts.BaseManifest, opts.InPlace, opts.Paths = device, manifest, true, part
	if _, err := Build(t.Context(), opts); !errors.Is(err, ext4.ErrBusy) {
		t.Errorf("while it is mounted: %v", err)
	}
}

// TestInPlaceBusy wants one build at a time.
func TestInPlaceBusy(t *testing.T) {
	x := newInPlace(t, rand.New(rand.NewPCG(9, 2)))
	d, err := ext4.OpenDisk(x.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := x.build(t, some(rand.New(rand.NewPCG(1, 1)), x.all, 0.5)); !errors.Is(err, ext4.ErrBusy) {
		t.Error(err)
	}
}

// TestInPlaceRefused covers what is not changed in place.
func TestInPlaceRefused(t *testing.T) {
	x := newInPlace(t, rand.New(rand.NewPCG(9, 2)))
	before := readFile(t, x.disk)
	for name, c := range map[string]struct {
		opts func(o *BuildOptions)
		err  error
		text string
	}{
		"no base":     {func(o *BuildOptions) { o.Base = "" }, ErrUsage, "give --base"},
		"output":      {func(o *BuildOptions) { o.Output = "x.raw" }, ErrUsage, "leave -o out"},
		"squashfs":    {func(o *BuildOptions) { o.Format = Squashfs }, ErrUsage, "for ext4"},
		"verity":      {func(o *BuildOptions) { o.Verity = true }, ErrUsage, "--verity"},
		"partition":   {func(o *BuildOptions) { o.Partition = GPT }, ErrUsage, "--partition"},
		"optional":    {func(o *BuildOptions) { o.BaseOptional = true }, ErrUsage, "--base-optional"},
		"too small":   {func(o *BuildOptions) { o.Size = 64 << 20 }, nil, "cannot be made one of 67108864"},
		"no manifest": {func(o *BuildOptions) { os.Remove(image.ManifestName(x.disk)) }, os.ErrNotExist, "disk.raw.manifest.json"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := readFile(t, image.ManifestName(x.disk))
			opts := x.opts
			opts.Base, opts.InPlace, opts.Paths = x.disk, true, []string{string(x.all[0])}
			c.opts(&opts)
			_, err := Build(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), c.text) || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v, not %q", err, c.text)
			}
			if !bytes.Equal(readFile(t, x.disk), before) {
				t.Error("the base has changed")
			}
			if err := os.WriteFile(image.ManifestName(x.disk), manifest, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	for at, want := range map[int]error{2*4096 + 5: ext4.ErrForeign, 7*4096 + 5: base.ErrDamaged} {
		damaged := bytes.Clone(before)
		damaged[at] ^= 1
		if err := os.WriteFile(x.disk, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := x.build(t, []string{string(x.all[0])}); !errors.Is(err, want) {
			t.Errorf("damaged at byte %d: %v", at, err)
		}
		if !bytes.Equal(readFile(t, x.disk), damaged) {
			t.Error("a damaged base has changed")
		}
	}
}
