package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"bigdisk/image/imagetest"
)

// TestExampleIsReproducible makes the example anew with its recipe: the lock
// file and the narinfos are those that are committed, but for the signatures
// and how the NARs are compressed.
func TestExampleIsReproducible(t *testing.T) {
	imagetest.NeedRoot(t, "mount a Nix store of its own")
	imagetest.NeedTools(t, "nix-build", "unshare", "awk", "sha256sum")
	again := t.TempDir()
	imagetest.Command(t, filepath.Join(exampleDir, "make"), again)
	if got, want := readBytes(t, filepath.Join(again, "modules.json")), readBytes(t, filepath.Join(exampleDir, "modules.json")); string(got) != string(want) {
		t.Errorf("the lock file is\n%s, and committed is\n%s", got, want)
	}
	got, want := narinfos(t, filepath.Join(again, "cache")), narinfos(t, filepath.Join(exampleDir, "cache"))
	if !slices.Equal(got, want) {
		t.Errorf("the cache holds\n%s\nand committed is\n%s", got, want)
	}
}

// narinfos reads the narinfos of a cache, sorted by name, without what may
// differ between two runs of the recipe.
func narinfos(t *testing.T, cache string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cache, "*.narinfo"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no narinfos in %s: %v", cache, err)
	}
	varies := regexp.MustCompile(`(?m)^(URL|FileHash|FileSize|Sig): .*\n`)
	var infos []string
	for _, f := range files {
		infos = append(infos, varies.ReplaceAllString(string(readBytes(t, f)), ""))
	}
	return infos
}

// TestExampleIsSmall holds the example to its promise of less than 4 MB.
func TestExampleIsSmall(t *testing.T) {
	var size int64
	err := filepath.WalkDir(exampleDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil || size > 4e6 {
		t.Errorf("it takes %d bytes: %v", size, err)
	}
}
