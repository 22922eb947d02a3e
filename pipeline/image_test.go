package pipeline

import (
	"bytes"
	"path/filepath"
	"testing"
)

// exampleBuild builds the example of configs for real.
func exampleBuild(t *testing.T, output string, change func(*BuildOptions)) *BuildResult {
	t.Helper()
	cache, err := filepath.Abs("../configs/example/cache")
	if err != nil {
		t.Fatal(err)
	}
	opts := BuildOptions{
		Lock: "../configs/example/modules.json", From: []string{"file://" + cache},
		TrustedKeys: []string{"example-1:3AlBt2BR9uPx7+vsB5x63kR6IhlDUpa8SmWCeaWsZHI="},
		Output:      filepath.Join(t.TempDir(), output),
	}
	change(&opts)
	r, err := Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestImagesAreTheSame builds real images of every kind twice, with as
// different a number of workers and as little memory as can be.
func TestImagesAreTheSame(t *testing.T) {
	noGoroutines(t)
	for _, kind := range []struct{ output, compression string }{
		{"x.sqsh", ""}, {"x.sqsh", "zstd:fastest"}, {"x.sqsh", "gzip"}, {"x.sqsh", "lz4"}, {"x.sqsh", "none"}, {"x.ext4", ""},
	} {
		t.Run(kind.output+" "+kind.compression, func(t *testing.T) {
			one := exampleBuild(t, kind.output, func(o *BuildOptions) { o.Compression, o.Jobs = kind.compression, 1 })
			eight := exampleBuild(t, kind.output, func(o *BuildOptions) {
				o.Compression, o.Jobs, o.MemoryBudget, o.SpoolBudget = kind.compression, 8, 1, 1
			})
			if one.SHA256 != eight.SHA256 {
				t.Error("the images differ")
			}
			if !bytes.Equal(readFile(t, one.Manifest), readFile(t, eight.Manifest)) {
				t.Error("the manifests differ")
			}
		})
	}
}
