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
	"bigdisk/image"
	"bigdisk/image/ext4"
	"bigdisk/image/imagetest"
	"bigdisk/image/squashfs"
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
	imagetest.NeedTools(t, "tar")
	files := imagetest.Trees()["sizes"]
	for format, open := range map[string]func(f *os.File) (image.Writer, error){
		"squashfs": func(f *os.File) (image.Writer, error) {
			return squashfs.NewWriter(t.Context(), f, squashfs.Options{BlockSize: 4096})
		},
		"ext4": func(f *os.File) (image.Writer, error) {
			return ext4.NewWriter(t.Context(), f, ext4.Options{RoundTo: 100 * mib})
		},
	} {
		t.Run(format, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "image")
			writeImage(t, name, files, open)
			packed := writeFile(t, name, rawtar.Options{})
			out := t.TempDir()
			list := imagetest.Command(t, "tar", "-C", out, "-Sxvvzf", packed)
			if !strings.HasSuffix(list, " disk.raw\n") || strings.Count(list, "\n") != 1 {
				t.Errorf("tar lists %q", list)
			}
			disk := filepath.Join(out, "disk.raw")
			checkDisk(t, disk, name)
			got := imagetest.ReadTree(t, imagetest.Mount(t, disk))
			delete(got, "lost+found")
			imagetest.CheckSame(t, got, imagetest.Want(files, 0, 0))
		})
	}
}

func writeImage(t *testing.T, name string, files []imagetest.File, open func(f *os.File) (image.Writer, error)) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := open(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := imagetest.Write(w, files); err != nil {
		t.Fatal(err)
	}
}

func TestGunzip(t *testing.T) {
	for _, tool := range []string{"gzip", "pigz"} {
		t.Run(tool, func(t *testing.T) {
			imagetest.NeedTools(t, tool)
			name := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(name, mixed(), 0o644); err != nil {
				t.Fatal(err)
			}
			imagetest.Command(t, tool, "-t", writeFile(t, name, rawtar.Options{PartSize: mib}))
		})
	}
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
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("the file system has no files of 10 TiB: %v", err)
	}
	if _, err := file.WriteAt([]byte("data"), 7*tib); err != nil {
		t.Fatal(err)
	}
	a, err := rawtar.Open(name, rawtar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	start := time.Now()
	first, _, err := a.Part(t.Context(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := first
	for i := a.Parts() - 1; i > 0; i -= 1000 {
		if buf, _, err = a.Part(t.Context(), i, buf); err != nil || len(buf) > 3*mib {
			t.Fatalf("part %d has %d bytes, %v", i, len(buf), err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("10 GiB of a hole took %s", took)
	}
	if first, _, err = a.Part(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
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
