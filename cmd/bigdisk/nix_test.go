package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bigdisk/image/imagetest"
)

// newerNixDir is where .ci/newer-nix puts a Nix that knows read-only stores,
// unless BIGDISK_NIX226 names another directory.
const newerNixDir = "/var/cache/bigdisk/newer-nix"

// TestNixUsesTheImage mounts the example's image and lets a Nix that knows
// read-only and layered stores use it, see testdata/nix.sh.
func TestNixUsesTheImage(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	imagetest.NeedTools(t, "unshare", "chroot")
	nix := newerNix(t)
	image := buildExample(t)
	key := exampleKey(t)
	for _, check := range []string{"store", "verify", "overlay", "layered"} {
		t.Run(check, func(t *testing.T) {
			imagetest.Command(t, "unshare", "--mount", "bash", "testdata/nix.sh", nix, image, check, key)
		})
	}
}

// TestOlderNixUsesTheImage lets the Nix that is installed read the image's
// database and check every file against it. Nix 2.8 knows no read-only stores,
// so it gets an overlay to write to.
func TestOlderNixUsesTheImage(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	imagetest.NeedTools(t, "nix-store")
	mounted := imagetest.Mount(t, buildExample(t))
	work := t.TempDir()
	for _, dir := range []string{"u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(work, "m")
	layers := "lowerdir=" + mounted + ",upperdir=" + filepath.Join(work, "u") + ",workdir=" + filepath.Join(work, "w")
	imagetest.Command(t, "mount", "-t", "overlay", "overlay", "-o", layers, at)
	afterwards(t, "umount", at)
	t.Setenv("NIX_CONF_DIR", t.TempDir())

	store := "local?root=" + at
	imagetest.Command(t, "nix-store", "--verify", "--check-contents", "--store", store, "--option", "build-users-group", "")
	closure := strings.Fields(imagetest.Command(t, "nix-store", append([]string{"--query", "--requisites", "--store", store}, exampleRoots(t)...)...))
	if want := len(exampleClosure(t)); len(closure) != want {
		t.Errorf("the closure has %d paths: %v, want %d", len(closure), closure, want)
	}
}

// newerNix finds the directory of .ci/newer-nix.
func newerNix(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BIGDISK_NIX226")
	if dir == "" {
		dir = newerNixDir
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/nix")); err != nil {
		imagetest.Missing(t, "no newer Nix in %s: .ci/newer-nix %s gets it", dir, dir)
	}
	return dir
}

// exampleKey is the key that has signed the example's cache.
func exampleKey(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(exampleConfig)
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`trusted-key: \["(.*)"\]`).FindStringSubmatch(string(text))
	if key == nil || !strings.Contains(key[1], ":") {
		t.Fatalf("no trusted-key in %s", exampleConfig)
	}
	return key[1]
}
