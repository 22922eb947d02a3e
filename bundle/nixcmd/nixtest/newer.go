package nixtest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// newerDir is where .ci/newer-nix puts a newer Nix than Debian bookworm's,
// unless BIGDISK_NIX226 names another directory.
const newerDir = "/var/cache/bigdisk/newer-nix"

// Newer makes a directory with the commands of the newer
// Nix, for a test in its namespace (see [Enter]): it sees the files that the
// test sees, and uses the same store.
func Newer(t *testing.T) string {
	t.Helper()
	root := os.Getenv("BIGDISK_NIX226")
	if root == "" {
		root = newerDir
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/nix")); err != nil {
		Missing(t, "no newer Nix in %s: .ci/newer-nix %s gets it", root, root)
	}
	Need(t, "chroot", "mount")
	// Its files are those of the machine, but for the programs.
	at := t.TempDir()
	mount := func(what, where string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(what, where, "", flags, ""); err != nil {
			t.Fatalf("mount %s: %v", where, err)
		}
		t.Cleanup(func() { unix.Unmount(where, unix.MNT_DETACH) })
	}
	mount("/", at, unix.MS_BIND|unix.MS_REC)
	for _, dir := range []string{"usr", "lib", "lib64", "bin"} {
		from, err := filepath.EvalSymlinks(filepath.Join(root, dir))
		if err != nil {
			continue
		}
		to, err := filepath.EvalSymlinks(filepath.Join(at, dir))
		if err != nil || to == filepath.Join(at, "usr", dir) {
			continue // a link into usr
		}
		mount(from, to, unix.MS_BIND)
	}
	bin := t.TempDir()
	for _, name := range []string{"nix", "nix-store", "nix-instantiate"} {
		script := "#!/bin/sh\nexec chroot " + at + " " + name + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}
