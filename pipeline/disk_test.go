package pipeline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/image/gpt"
	"bigdisk/image/imagetest"
)

// TestDisk wants what is written to the filesystem of a partitioned disk to lie
// behind its table, however it gets there, and what a copy takes out of it to
// be that.
func TestDisk(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := newDisk(f, BuildOptions{Partition: GPT})
	defer d.Close()
	want := make([]byte, 2<<20+10)
	for _, at := range []int{0, 1 << 20, 2 << 20} {
		p := want[at:min(at+1<<20, len(want))]
		copy(p, imagetest.Noise(uint64(at), len(p)))
		if n, err := d.WriteAt(p, int64(at)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the filesystem reads as something else: %v", err)
	}
	whole, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(whole[gpt.Align:], want) {
		t.Errorf("the disk has something else: %v", err)
	}
	if err := d.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != gpt.Align+4096 {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
}

// TestBuildDiskFull fills a real disk, with a real image and at any moment.
func TestBuildDiskFull(t *testing.T) {
	imagetest.NeedRoot(t, "it mounts a small tmpfs")
	noGoroutines(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	for _, ext := range []string{"sqsh", "ext4"} {
		for _, fill := range []int{4 << 20, 1<<20 - 2000} { // within the data, and past it
			f := aBuild(t)
			f.dir, f.opts.Output = disk, filepath.Join(disk, "disk."+ext)
			f.opts.Paths = []string{string(f.store.add(t, "noise", file(imagetest.Noise(1, fill))))}
			opts, err := f.opts.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			format, err := newFormat(opts)
			if err != nil {
				t.Fatal(err)
			}
			b := &builder{opts: opts, format: format, source: f.store}
			if _, err := b.build(t.Context()); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%s, %d bytes: got %v, want %v", ext, fill, err, unix.ENOSPC)
			} else if text := err.Error(); strings.Contains(text, "-noise") || strings.Count(text, "disk."+ext) > 1 {
				t.Errorf("%s, %d bytes: %v names a store path, which is not to blame, or the image twice", ext, fill, err)
			}
			if left := f.files(t); len(left) > 0 {
				t.Errorf("%s, %d bytes: it left %q", ext, fill, left)
			}
		}
	}
}
