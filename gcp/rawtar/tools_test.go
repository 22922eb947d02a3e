package rawtar_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/rawtar"
	"bigdisk/image/imagetest"
)

// writeFile writes the archive of an image to a file.
func writeFile(t *testing.T, image string, opts rawtar.Options) (packed string) {
	t.Helper()
	a, err := rawtar.Open(image, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	packed = filepath.Join(t.TempDir(), "disk.raw.tar.gz")
	file, err := os.Create(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := a.Write(t.Context(), file, 2); err != nil {
		t.Fatal(err)
	}
	return packed
}

// The tools that people have read the archive, and what comes out mounts.
func TestTools(t *testing.T) {
	imagetest.NeedTools(t, "tar", "gzip", "go")
	dir := t.TempDir()
	for _, image := range []string{"example.sqsh", "example.raw"} {
		t.Run(image, func(t *testing.T) {
			image := filepath.Join(dir, image)
			imagetest.Command(t, "go", "run", "bigdisk/cmd/bigdisk", "build", "--config", "../../configs/example/build.yaml", "--progress", "none", "-o", image)
			packed := writeFile(t, image, rawtar.Options{})
			imagetest.Command(t, "gzip", "-t", packed)
			if list := imagetest.Command(t, "tar", "-tvzf", packed); !strings.HasSuffix(list, " disk.raw\n") || strings.Count(list, "\n") != 1 {
				t.Errorf("tar lists %q", list)
			}
			out := t.TempDir()
			imagetest.Command(t, "tar", "-C", out, "-Sxzf", packed)
			disk := filepath.Join(out, "disk.raw")
			checkDisk(t, disk, image)
			imagetest.Command(t, "ls", filepath.Join(imagetest.Mount(t, disk), "nix/store"))
		})
	}
}

func TestPigz(t *testing.T) {
	imagetest.NeedTools(t, "pigz")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, mixed(), 0o644); err != nil {
		t.Fatal(err)
	}
	imagetest.Command(t, "pigz", "-t", writeFile(t, image, rawtar.Options{PartSize: mib}))
}

// checkDisk makes sure that a disk is the image and then zeros, up to a GiB.
func checkDisk(t *testing.T, disk, image string) {
	t.Helper()
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size()%gib != 0 || info.Size() < int64(len(want)) || info.Size()-int64(len(want)) >= gib {
		t.Errorf("a disk of %d bytes for an image of %d", info.Size(), len(want))
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(file, got); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Error("the disk does not begin with the image")
	}
	if err := onlyZeros(file, info.Size()-int64(len(want))); err != nil {
		t.Error(err)
	}
}

// A hole costs nothing to read, and a size beyond what octal digits in a tar
// header can say is one that GNU tar reads.
func TestHugeHole(t *testing.T) {
	const tib = int64(1) << 40
	name := filepath.Join(t.TempDir(), "image")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(10*tib + 5); err != nil {
		t.Skipf("the file system has no files of 10 TiB: %v", err)
	}
	if _, err := file.WriteAt([]byte("data"), 7*tib); err != nil {
		t.Fatal(err)
	}
	a, err := rawtar.Open(name, rawtar.Options{PartSize: gib})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	start := time.Now()
	first, _, err := a.Part(t.Context(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 7 << 10, a.Parts() - 1} {
		data, _, err := a.Part(t.Context(), i, nil)
		if err != nil || len(data) > 5*mib {
			t.Errorf("part %d has %d bytes, %v", i, len(data), err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("4 GiB of a hole took %s", took)
	}
	checkHeader(t, first, a.Size())
}

// checkHeader has GNU tar list the beginning of an archive.
func checkHeader(t *testing.T, start []byte, size int64) {
	t.Helper()
	imagetest.NeedTools(t, "tar")
	cmd := exec.CommandContext(t.Context(), "tar", "-tvzf", "-")
	cmd.Stdin = bytes.NewReader(start)
	out, _ := cmd.Output() // it is cut off, so tar complains after it listed
	if fields := strings.Fields(string(out)); len(fields) < 6 || fields[2] != strconv.FormatInt(size, 10) || fields[5] != "disk.raw" {
		t.Errorf("tar lists %q, and the size is %d", out, size)
	}
}
