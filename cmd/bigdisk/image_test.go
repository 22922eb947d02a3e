package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/image"
	"bigdisk/image/imagetest"
)

// TestImageIsTheClosure holds the example's image, as the kernel mounts it and
// as unsquashfs unpacks it, against what Nix makes of the binary cache: the
// store paths are the closure, and every file, mode, time, link and byte is
// the same.
func TestImageIsTheClosure(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	imagetest.NeedTools(t, "nix", "unsquashfs")
	image := buildExample(t)
	source := unpackWithNix(t)
	mounted := imagetest.Mount(t, image)
	unpacked := filepath.Join(t.TempDir(), "root")
	imagetest.Command(t, "unsquashfs", "-no-progress", "-d", unpacked, image)
	imagetest.CheckSame(t, imagetest.ReadTree(t, unpacked), imagetest.ReadTree(t, mounted))

	want := append(exampleClosure(t), ".links")
	slices.Sort(want)
	if got := names(t, filepath.Join(mounted, "nix/store")); !slices.Equal(got, want) {
		t.Errorf("the store holds %v, want %v", got, want)
	}
	for _, name := range want {
		if name != ".links" {
			imagetest.CheckSame(t, imagetest.ReadTree(t, filepath.Join(mounted, "nix/store", name)),
				imagetest.ReadTree(t, filepath.Join(source, "nix/store", name)))
		}
	}
}

// TestImageIsCanonical checks what is promised of every file on the disk, and
// the files beside the store.
func TestImageIsCanonical(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	tree := imagetest.ReadTree(t, imagetest.Mount(t, buildExample(t)))
	for name, f := range tree {
		mode := f.Mode.Perm()
		if f.Mode&fs.ModeSymlink == 0 && mode != 0o444 && mode != 0o555 {
			t.Errorf("%s has mode %v", name, f.Mode)
		}
		if f.UID != 0 || f.GID != 0 || f.Mtime != int64(time.Second) {
			t.Errorf("%s belongs to %d:%d and is of %d ns", name, f.UID, f.GID, f.Mtime)
		}
	}
	var beside []string
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if !strings.HasPrefix(name, "nix/store/") && tree[name].Mode.IsRegular() {
			beside = append(beside, name)
		}
	}
	want := []string{
		"etc/nixmodules/active-modules.json", "etc/nixmodules/auto-upgrade.json",
		"etc/nixmodules/env/hello-1:v1-20240311-645f99f.json", "etc/nixmodules/env/hello-1:v2-20240502-603953c.json",
		"etc/nixmodules/env/notes-2:v1-20240311-8036cc9.json", "etc/nixmodules/env/notes-2:v2-20240502-e977eb0.json",
		"etc/nixmodules/modules.json", "etc/nixmodules/recommend-upgrade.json",
		"nix/var/nix/db/db.sqlite", "nix/var/nix/db/schema",
	}
	if !slices.Equal(beside, want) {
		t.Errorf("beside the store there is %q, want %q", beside, want)
	}
}

// TestStoreAndCacheGiveTheSameImage builds from the store that Nix makes of the
// example's cache: the image is the one that the cache itself gives.
func TestStoreAndCacheGiveTheSameImage(t *testing.T) {
	imagetest.NeedTools(t, "nix")
	image := filepath.Join(t.TempDir(), "x.sqsh")
	imagetest.Command(t, binary(t), "build", "--lock", filepath.Join(exampleDir, "modules.json"), "--from", unpackWithNix(t), "-o", image, "--progress", "none")
	if !bytes.Equal(readBytes(t, image), readBytes(t, buildExample(t))) {
		t.Error("the images differ")
	}
}

// TestDisksHoldTheSameTree mounts the ext4 filesystem of a bare image, and of a
// GPT disk with a hash tree behind the filesystem, and wants of both what the
// squashfs shows.
func TestDisksHoldTheSameTree(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	imagetest.NeedTools(t, "sgdisk", "veritysetup")
	want := imagetest.ReadTree(t, imagetest.Mount(t, buildExample(t)))
	check := func(image string, options ...string) {
		t.Helper()
		got := imagetest.ReadTree(t, imagetest.Mount(t, image, append(options, "ro")...))
		delete(got, "lost+found")
		imagetest.CheckSame(t, got, want)
	}
	check(buildExampleAs(t, "bare.raw"))
	check(buildExampleAs(t, "verity.sqsh", "--verity"))
	disk := buildExampleAs(t, "gpt.raw", "--partition", "gpt", "--verity")
	// The kernel's own partition scan would do; not every kernel has GPT.
	check(disk, "offset=1048576")
	if out := imagetest.Command(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk says\n%s", out)
	}
	checkVeritysetup(t, buildExampleAs(t, "verity.raw", "--verity"))
}

// checkVeritysetup lets cryptsetup hold an image against its hash tree.
func checkVeritysetup(t *testing.T, name string) {
	t.Helper()
	m, err := image.ReadManifest(name + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", name, name, m.Verity.RootHash.String(), "--hash-offset", fmt.Sprint(m.Verity.Offset)}
	imagetest.Command(t, "veritysetup", args...)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), m.Verity.Offset/2); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("veritysetup", args...).CombinedOutput(); err == nil {
		t.Errorf("a flipped byte is accepted: %s", out)
	}
}

// unpackWithNix lets Nix unpack the example's cache into a store of its own and
// returns that store's root.
func unpackWithNix(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	afterwards(t, "chmod", "-R", "u+w", root)
	t.Setenv("NIX_CONF_DIR", t.TempDir())
	args := []string{"--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--option", "build-users-group", ""}
	args = append(args, "--from", exampleCache(t), "--to", "local?root="+root)
	imagetest.Command(t, "nix", append(args, exampleRoots(t)...)...)
	return root
}

// exampleClosure asks Nix for the closure of everything in the example's lock
// file: names in the store directory, sorted.
func exampleClosure(t *testing.T) []string {
	t.Helper()
	args := []string{"--extra-experimental-features", "nix-command", "path-info", "--recursive", "--store", exampleCache(t)}
	var base []string
	for _, path := range strings.Fields(imagetest.Command(t, "nix", append(args, exampleRoots(t)...)...)) {
		base = append(base, filepath.Base(path))
	}
	slices.Sort(base)
	return base
}

func exampleCache(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(exampleDir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return "file://" + dir
}

// exampleRoots are the store paths in the example's lock file.
func exampleRoots(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(exampleDir, "modules.json"))
	if err != nil {
		t.Fatal(err)
	}
	var lock map[string]struct{ Path string }
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	var roots []string
	for _, entry := range lock {
		roots = append(roots, entry.Path)
	}
	slices.Sort(roots)
	return roots
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
