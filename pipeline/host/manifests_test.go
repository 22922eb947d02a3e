package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"bigdisk/image"
)

func TestManifests(t *testing.T) {
	text, err := os.ReadFile(imageOf(t, "v1.sqsh") + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(imageOf(t, "v2.sqsh") + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	c, err := NewManifests(Options{Service: "nix", MountRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, generation int64, text []byte) {
		t.Helper()
		if m, err := c.Write(name, generation, bytes.NewReader(text)); err != nil || m == nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	size := func(m *image.Manifest) int64 {
		if m == nil {
			return -1
		}
		return m.Image.Size
	}
	if c.Read("gs://b/v1", 7) != nil || c.Any("gs://b/v1") != nil {
		t.Error("there is a copy before there is one")
	}
	write("gs://b/v1", 7, text)
	first := size(c.Read("gs://b/v1", 7))
	if first <= 0 || size(c.Any("gs://b/v1")) != first || c.Read("gs://b/v1", 8) != nil || c.Any("gs://b/v2") != nil {
		t.Error("it is not found as it was written")
	}
	if m, err := c.Write("gs://b/v1", 9, iotest.TimeoutReader(iotest.HalfReader(bytes.NewReader(other)))); err == nil {
		t.Errorf("half a manifest is %+v", m)
	}
	if _, err := c.Write("gs://b/v1", 9, bytes.NewReader([]byte("{}"))); err == nil {
		t.Error("{} is a manifest")
	}
	if size(c.Any("gs://b/v1")) != first {
		t.Error("what could not be read has taken its place")
	}
	write("gs://b/v1", 8, other)
	if size(c.Any("gs://b/v1")) == first {
		t.Error("the older one is taken")
	}
	for n := range 20 {
		write(fmt.Sprintf("gs://b/x%d", n), 1, text)
	}
	if files := c.byAge(); len(files) != keptManifests || c.Read("gs://b/x19", 1) == nil {
		t.Errorf("%d copies are kept", len(files))
	}

	if err := errors.Join(os.RemoveAll(c.dir), os.WriteFile(c.dir, nil, 0o644)); err != nil { // no place for copies
		t.Fatal(err)
	}
	write("gs://b/v1", 7, text)
	if _, err := (&mayFail{to: errorWriter{}}).Write(text); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "nix")); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

type errorWriter struct{}

func (errorWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
