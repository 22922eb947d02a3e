package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
	"bigdisk/image/read"
)

// TestCorruption flips one bit at 1,000 positions of an image, one after the
// other. Each must be found, or make no difference: everything that can be
// read from the image, names, modes, owners, times, link counts and contents, is as before.
func TestCorruption(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			name := newFixture(t).image(format)
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			pristine, err := describe(name)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(4, 2))
			found, named := 0, 0
			for range 1000 {
				at, bit := position(r, data, format), byte(1)<<r.IntN(8)
				data[at] ^= bit
				report := verifyBytes(t, name, data)
				if !report.OK() {
					found++
					if strings.Contains(dump(report), "/nix/store/") {
						named++
					}
				} else if now, err := describe(name); err != nil || now != pristine {
					t.Errorf("byte %d of %d, bit %#x: not found, but it makes a difference: %v\n%s", at, len(data), bit, err, firstDifference(pristine, now))
				}
				data[at] ^= bit
			}
			t.Logf("%d of 1000 found, %d with a store path; the others make no difference", found, named)
			if named == 0 {
				t.Error("no store path was ever named")
			}
		})
	}
}

// position returns where to flip a bit: anywhere in a squashfs image, which
// has no unused space, and mostly where there is something in the ext4 one.
func position(r *rand.Rand, data []byte, format string) int {
	for {
		at := r.IntN(len(data))
		if format == "squashfs" || r.IntN(20) == 0 {
			return at
		}
		block := data[at&^1023:][:1024]
		for _, c := range block {
			if c != 0 {
				return at
			}
		}
	}
}

func verifyBytes(t *testing.T, name string, data []byte) *Report {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(context.Background(), Options{Image: name, NoSecondReader: true, ScratchDir: filepath.Dir(name), MaxBytes: 1 << 30})
	if err != nil {
		// Not an image any more: that is found too.
		return &Report{Errors: 1, Findings: []Finding{{Detail: err.Error()}}}
	}
	return r
}

// describe lists everything that can be read from an image.
func describe(name string) (string, error) {
	im, err := read.Open(name)
	if err != nil {
		return "", err
	}
	defer im.Close()
	root, err := im.Root()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = im.Walk(root, func(path string, n *read.Node, leave bool) error {
		if leave {
			return nil
		}
		if strings.HasPrefix(path, "nix/var/nix/db/db.sqlite") {
			// Its contents are Nix's; pages that are free, and numbers that nothing
			// depends on, are not held against anything but the manifest.
			return nil
		}
		fmt.Fprintf(&b, "%s %v %o %d:%d %d.%d %d %q", path, n.Kind, n.Mode, n.UID, n.GID, n.Mtime, n.MtimeNsec, n.Size, n.Target)
		if n.Kind == store.Regular {
			f, err := im.OpenFile(n)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", h.Sum(nil))
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), err
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return fmt.Sprintf("%q, now %q", x[i], append(y, "")[min(i, len(y))])
		}
	}
	return ""
}

// TestManifestFindsEveryFlip shows that with a manifest nothing at all passes.
func TestManifestFindsEveryFlip(t *testing.T) {
	f := newFixture(t)
	name := f.image("ext4")
	m := f.manifest(name, "ext4")
	data, err := os.ReadFile(name)
	f.must(err)
	r := rand.New(rand.NewPCG(4, 3))
	for range 40 {
		at := r.IntN(len(data))
		data[at] ^= 1
		f.must(os.WriteFile(name, data, 0o600))
		report, err := Verify(context.Background(), Options{Image: name, Manifest: m, NoSecondReader: true})
		if err == nil && report.OK() {
			t.Errorf("byte %d: not found", at)
		}
		data[at] ^= 1
	}
}

// TestCutShort verifies images that end too early.
func TestCutShort(t *testing.T) {
	for _, format := range formats {
		f := newFixture(t)
		name := f.image(format)
		data, err := os.ReadFile(name)
		f.must(err)
		for i := range 20 {
			short := data[:len(data)*i/20]
			f.must(os.WriteFile(name, short, 0o600))
			r, err := Verify(context.Background(), Options{Image: name, NoSecondReader: true})
			if err == nil && r.OK() {
				t.Errorf("%s: %d of %d bytes pass", format, len(short), len(data))
			}
		}
	}
}

// fuzzSeeds are small images of both formats.
func fuzzSeeds(f *testing.F) {
	for _, format := range formats {
		fix := &fixture{t: f, dir: filepath.Join(f.TempDir(), "root")}
		fix.file(libPath+"/lib/libfoo.so", imagetest.Text(1, 9000), false)
		fix.file(libPath+"/lib/empty", "", true)
		fix.link(libPath+"/so", "lib/libfoo.so")
		fix.file("/"+modulesPath, "{}", false)
		fix.canonical()
		name := filepath.Join(f.TempDir(), "disk")
		if format == "squashfs" {
			imagetest.NeedTools(f, "mksquashfs")
			imagetest.Command(f, "mksquashfs", fix.dir, name, "-b", "4K", "-noI", "-comp", "zstd", "-no-xattrs", "-quiet", "-no-progress", "-nopad")
		} else {
			imagetest.NeedTools(f, "mke2fs")
			imagetest.Command(f, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^resize_inode,^metadata_csum", "-b", "1024", "-N", "32", "-m", "0", "-d", fix.dir, name, "96K")
		}
		fix.unlock()
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("hsqs"))
}

// FuzzVerify gives Verify images that were tampered with. It must come to an
// end, soon, with a report or an error.
func FuzzVerify(f *testing.F) {
	fuzzSeeds(f)
	name := filepath.Join(f.TempDir(), "image")
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<20 {
			return
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), fuzzTimeout)
		defer cancel()
		r, err := Verify(ctx, Options{Image: name, Jobs: 1, MaxBytes: 64 << 20, NoSecondReader: true, ScratchDir: filepath.Dir(name)})
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("no end after %v", fuzzTimeout)
		}
		if err == nil && len(r.Findings) > MaxFindings {
			t.Errorf("%d findings", len(r.Findings))
		}
	})
}

// fuzzTimeout is far more than any image of a few kilobytes may take.
const fuzzTimeout = 20 * time.Second
