package objects

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/publish"
)

const sha = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// newUploader starts a bucket and writes a small image and its manifest.
func newUploader(t *testing.T) (*Uploader, *buckettest.Server) {
	t.Helper()
	server := buckettest.New(t, "bucket")
	c, err := bucket.New(t.Context(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	dir := t.TempDir()
	u := &Uploader{Client: c, Bucket: "bucket", Image: filepath.Join(dir, "disk.raw"), Manifest: filepath.Join(dir, "m.json"), SHA256: sha, Size: 1 << 20}
	for name, text := range map[string]string{u.Image: strings.Repeat("0123456789abcdef", 1<<16), u.Manifest: `{"version":1}`} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return u, server
}

// TestPut: each content is made once, is what it should be, and is found again.
func TestPut(t *testing.T) {
	u, server := newUploader(t)
	var sent atomic.Int64
	u.Progress = func(n int64) { sent.Add(n) }
	names := map[publish.Content]string{publish.Archive: "s/v/disk.raw.tar.gz", publish.Raw: "s/v/disk.raw", publish.Manifest: "s/v/manifest.json"}
	for content, name := range names {
		if _, found, err := u.Look(t.Context(), content, name); found || err != nil {
			t.Errorf("%s before: %v %v", name, found, err)
		}
		made, created, err := u.Put(t.Context(), content, name)
		if err != nil || !created {
			t.Errorf("%s: %v %v", name, created, err)
		}
		again, created, err := u.Put(t.Context(), content, name)
		if err != nil || created || again != made || made.Bytes != int64(len(server.Get(t, "bucket", name))) {
			t.Errorf("%s again: %v %v, %+v and %+v", name, created, err, made, again)
		}
	}
	if got := string(server.Get(t, "bucket", "s/v/manifest.json")); got != `{"version":1}` {
		t.Errorf("the manifest is %q", got)
	}
	info, err := gcetest.EmulatorSource(server.URL)(t.Context(), "https://storage.googleapis.com/bucket/s/v/disk.raw.tar.gz")
	if err != nil || info.DiskSizeGB != 1 {
		t.Errorf("the archive: %+v %v", info, err)
	}
	if n := len(server.Objects(t, "bucket")); n != 3 || sent.Load() != 2<<20 {
		t.Errorf("%d objects, %d bytes told", n, sent.Load())
	}
}

// TestOthersObject: an object of another image is neither taken nor replaced.
func TestOthersObject(t *testing.T) {
	u, server := newUploader(t)
	server.Put("bucket", "s/v/disk.raw.tar.gz", []byte("other"), map[string]string{"bigdisk-image-sha256": "beef"})
	for _, content := range []publish.Content{publish.Archive, publish.Manifest} {
		_, _, err := u.Put(t.Context(), content, "s/v/disk.raw.tar.gz")
		if !errors.Is(err, bucket.ErrExists) || !strings.Contains(err.Error(), `of the image "beef"`) {
			t.Errorf("got %v", err)
		}
	}
	if got := string(server.Get(t, "bucket", "s/v/disk.raw.tar.gz")); got != "other" {
		t.Errorf("the object is %q", got)
	}
}

// TestPartsLeft: an upload that was killed when the object was whole leaves parts,
// which go when it is found.
func TestPartsLeft(t *testing.T) {
	u, server := newUploader(t)
	const name = "s/v/disk.raw.tar.gz"
	if _, _, err := u.Put(t.Context(), publish.Archive, name); err != nil {
		t.Fatal(err)
	}
	server.Put("bucket", name+".parts/0123456789abcdef/0-00000000", []byte("part"), nil)
	if _, created, err := u.Put(t.Context(), publish.Archive, name); created || err != nil {
		t.Errorf("%v %v", created, err)
	}
	if got := server.Objects(t, "bucket"); len(got) != 1 {
		t.Errorf("the bucket holds %q", got)
	}
}

// TestNoFile: what cannot be read is named.
func TestNoFile(t *testing.T) {
	u, _ := newUploader(t)
	u.Image, u.Manifest = u.Image+"x", u.Manifest+"x"
	for content, name := range map[publish.Content]string{publish.Archive: "a.tar.gz", publish.Raw: "a", publish.Manifest: "m"} {
		if _, _, err := u.Put(t.Context(), content, name); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "x: no such file") {
			t.Errorf("%s: %v", content, err)
		}
	}
}
