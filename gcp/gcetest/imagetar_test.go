package gcetest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bigdisk/gcp/gcetest"
)

type member struct {
	name string
	size int64
}

// chunk is the piece of zeros that archives are made of, and its gzip member.
const chunk = 1 << 20

// archive makes a tar.gz of files that hold zeros. Gzip members may be
// concatenated: whole chunks are compressed once and repeated.
func archive(t *testing.T, format tar.Format, members ...member) []byte {
	t.Helper()
	zero := compressed(t, make([]byte, chunk))
	var out bytes.Buffer
	tw := tar.NewWriter(writerFunc(func(p []byte) (int, error) {
		if len(p) == chunk {
			out.Write(zero)
		} else {
			out.Write(compressed(t, p))
		}
		return len(p), nil
	}))
	for _, m := range members {
		if err := tw.WriteHeader(&tar.Header{Name: m.name, Size: m.size, Mode: 0o644, Typeflag: tar.TypeReg, Format: format}); err != nil {
			t.Fatal(err)
		}
		for left := m.size; left > 0; left -= min(left, chunk) {
			if _, err := tw.Write(make([]byte, min(left, chunk))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if out.Len() == 0 {
		return compressed(t, nil)
	}
	return out.Bytes()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCheckImageTar(t *testing.T) {
	good := archive(t, tar.FormatGNU, member{"disk.raw", 1 << 30})
	info, err := gcetest.CheckImageTar(bytes.NewReader(good))
	if err != nil || info.DiskSizeGB != 1 || info.ArchiveBytes != int64(len(good)) {
		t.Errorf("got %+v, %v", info, err)
	}
	damaged := bytes.Clone(good[:10<<10])
	damaged[2<<10] ^= 1
	for _, tt := range []struct {
		name, want string
		data       []byte
	}{
		{"nothing", "gzip", nil},
		{"no gzip", "gzip", []byte("disk.raw")},
		{"cut off", "unexpected EOF", good[:10<<10]},
		{"damaged", "", damaged},
		{"ustar", "GNU and OLDGNU", archive(t, tar.FormatUSTAR, member{"disk.raw", 512})},
		{"PAX", "GNU and OLDGNU", archive(t, tar.FormatPAX, member{"disk.raw", 512})},
		{"name", "was named", archive(t, tar.FormatGNU, member{"./disk.raw", 512})},
		{"size", "whole number of GiB", archive(t, tar.FormatGNU, member{"disk.raw", 512})},
		{"empty", "whole number of GiB", archive(t, tar.FormatGNU, member{"disk.raw", 0})},
		{"two files", "second file", archive(t, tar.FormatGNU, member{"disk.raw", 1 << 30}, member{"x", 1})},
		{"no file", "tar header", archive(t, tar.FormatGNU)},
	} {
		if _, err := gcetest.CheckImageTar(bytes.NewReader(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			if tt.name == "no file" && err != nil { // an empty archive has no magic either
				continue
			}
			t.Errorf("%s: %v, want an error about %q", tt.name, err, tt.want)
		}
	}
}

func TestEmulatorSource(t *testing.T) {
	good := archive(t, tar.FormatGNU, member{"disk.raw", 1 << 30})
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/storage/v1/b/bucket/o/nix%2Fv1.tar.gz" || r.URL.Query().Get("alt") != "media" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(good)
	}))
	t.Cleanup(storage.Close)
	source := gcetest.EmulatorSource(storage.URL)
	if info, err := source(t.Context(), "https://storage.googleapis.com/bucket/nix/v1.tar.gz"); err != nil || info.DiskSizeGB != 1 {
		t.Errorf("got %+v, %v", info, err)
	}
	if _, err := source(t.Context(), "https://storage.googleapis.com/bucket/nix/v2.tar.gz"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an object that is not there: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source(gone, "https://storage.googleapis.com/bucket/nix/v1.tar.gz"); err == nil {
		t.Error("the context was not heeded")
	}
}
