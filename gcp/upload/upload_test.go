package upload_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/rawtar"
	"bigdisk/gcp/upload"
	"bigdisk/image/imagetest"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func client(t testing.TB, transport http.RoundTripper) *bucket.Client {
	t.Helper()
	c, err := bucket.New(t.Context(), bucket.Options{Transport: transport, Delay: time.Millisecond, Budget: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// image writes an image of that many bytes, some of which compress, to a file.
func image(t testing.TB, size int) (name string, data []byte) {
	t.Helper()
	data = make([]byte, size)
	rand.NewChaCha8([32]byte{8}).Read(data[:size/3])
	copy(data[size/2:], imagetest.Text(3, size/4))
	name = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name, data
}

func options(format upload.Format, object string, data []byte, sent *atomic.Int64) upload.Options {
	return upload.Options{
		Bucket: "images", Object: object, Format: format, SHA256: fmt.Sprintf("%x", sha256.Sum256(data)), Size: int64(len(data)),
		Manifest: []byte(`{"format":"squashfs"}`), Archive: rawtar.Options{PartSize: mib},
		Upload: bucket.UploadOptions{Progress: func(n int64) { sent.Add(n) }},
	}
}

// TestImage uploads images of several sizes twice, in both formats, while a
// tenth of the requests fail.
func TestImage(t *testing.T) {
	for _, size := range []int{1, 5*mib + 7, 36*mib + 1} {
		for format, object := range map[upload.Format]string{upload.TarGz: "v1.tar.gz", upload.Raw: "v1.sqsh"} {
			t.Run(fmt.Sprint(size, format), func(t *testing.T) {
				s := buckettest.New(t, "images")
				var n atomic.Uint32
				c := client(t, &buckettest.Transport{Fault: func(int, *http.Request) buckettest.Fault {
					return map[uint32]buckettest.Fault{3: buckettest.Reset, 13: buckettest.Refused, 23: buckettest.Lost}[n.Add(1)%30]
				}})
				name, data := image(t, size)
				var sent atomic.Int64
				o := options(format, object, data, &sent)
				first, err := upload.Image(t.Context(), c, name, o)
				if err != nil {
					t.Fatal(err)
				}
				if sent.Load() != int64(size) {
					t.Errorf("progress of %d bytes for %d", sent.Load(), size)
				}
				checkObject(t, s.Get(t, "images", object), data, format, first.DiskSize)
				second, err := upload.Image(t.Context(), c, name, o)
				if err != nil {
					t.Fatal(err)
				}
				if first.Image.Found || !second.Image.Found || !second.ManifestFound || second.Image.Sent != 0 || second.DiskSize != first.DiskSize {
					t.Errorf("first %+v\nthen %+v", first, second)
				}
				if got := strings.Join(s.Objects(t, "images"), " "); got != object+" "+object+".manifest.json" {
					t.Errorf("there are %s", got)
				}
				if want := "https://storage.googleapis.com/images/" + object; first.Source() != want {
					t.Errorf("source %s", first.Source())
				}
			})
		}
	}
}

func checkObject(t *testing.T, got, image []byte, format upload.Format, size int64) {
	t.Helper()
	if format == upload.Raw {
		if !bytes.Equal(got, image) || size != int64(len(image)) {
			t.Error("the object is not the image")
		}
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, len(image))
	if _, err := io.ReadFull(r, disk); err != nil || !bytes.Equal(disk, image) {
		t.Errorf("disk.raw is not the image: %v", err)
	}
	if h.Size != gib || size != gib {
		t.Errorf("disk.raw has %d bytes, said to be %d", h.Size, size)
	}
	if len(image) > 1 { // the padding of one disk shows as much as that of three
		return
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Error(err)
	}
}

func TestBadOptions(t *testing.T) {
	buckettest.New(t, "images")
	c := client(t, nil)
	name, data := image(t, 1000)
	for want, change := range map[string]func(o *upload.Options){
		"not a SHA-256":                 func(o *upload.Options) { o.SHA256 = "xyz" },
		"is neither tar.gz nor raw":     func(o *upload.Options) { o.Format = "vmdk" },
		"names that end in .tar.gz":     func(o *upload.Options) { o.Object = "v1.tgz" },
		"its manifest says 7":           func(o *upload.Options) { o.Size = 7 },
		"part size 5":                   func(o *upload.Options) { o.Archive.PartSize = 5 },
		"gs://elsewhere/v1.tar.gz: buc": func(o *upload.Options) { o.Bucket = "elsewhere" },
	} {
		o := options(upload.TarGz, "v1.tar.gz", data, new(atomic.Int64))
		change(&o)
		if _, err := upload.Image(t.Context(), c, name, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	for _, format := range []upload.Format{upload.TarGz, upload.Raw} {
		o := options(format, "v1.tar.gz", nil, new(atomic.Int64))
		if _, err := upload.Image(t.Context(), c, name+"-not", o); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no image: %v", err)
		}
		empty := filepath.Join(t.TempDir(), "empty")
		if err := os.WriteFile(empty, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := upload.Image(t.Context(), c, empty, o); err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("an empty image: %v", err)
		}
	}
}

// Another image, or another manifest, of the same name is refused.
func TestOtherImage(t *testing.T) {
	buckettest.New(t, "images")
	c := client(t, nil)
	name, data := image(t, 1000)
	o := options(upload.TarGz, "v1.tar.gz", data, new(atomic.Int64))
	if _, err := upload.Image(t.Context(), c, name, o); err != nil {
		t.Fatal(err)
	}
	o.Manifest = []byte("{}")
	if _, err := upload.Image(t.Context(), c, name, o); !errors.Is(err, bucket.ErrExists) || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("another manifest: %v", err)
	}
	o.SHA256 = strings.Repeat("0", 64)
	if _, err := upload.Image(t.Context(), c, name, o); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("another image: %v", err)
	}
}

func ExampleImage() {
	ctx := context.Background()
	c, err := bucket.New(ctx, bucket.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	result, err := upload.Image(ctx, c, "disk.sqsh", upload.Options{
		Bucket: "nixmodules-images", Object: "nixmodules-v1.tar.gz",
		SHA256: "27acdba8234c82a6ce2fbda4c7ba217899f95770033563355fa89054bedfbe7e", // from disk.sqsh.manifest.json
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Source(), result.DiskSize>>30, "GiB")
}
