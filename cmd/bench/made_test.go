package main

import (
	"path/filepath"
	"testing"

	"bigdisk/image"
)

// TestMade makes images of a small synthetic store, which are verified before
// they get their names.
func TestMade(t *testing.T) {
	for _, suffix := range []string{".sqsh", ".raw"} {
		t.Run(suffix, func(t *testing.T) {
			m := made{paths: 200, output: filepath.Join(t.TempDir(), "image"+suffix), verify: true}
			if err := m.build(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, err := image.ReadManifest(image.ManifestName(m.output))
			if err != nil {
				t.Fatal(err)
			}
			if got.Totals.StorePaths != 200 || got.Totals.Files < 5*199 || got.Totals.UniqueBytes >= got.Totals.Bytes {
				t.Errorf("the image holds %+v", got.Totals)
			}
		})
	}
}
