package narinfo_test

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/narinfo"
	"bigdisk/bundle/store"
)

// nixRun runs a command of Nix in dir, on the store in dir/root.
func nixRun(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("needs %s", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "NIX_REMOTE=local?root="+dir+"/root",
		"NIX_CONFIG=build-users-group =\nexperimental-features = nix-command\nsubstitute = false\n")
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errOut.String())
	}
	return strings.TrimSpace(string(out))
}

// writableDir is a new directory that is removed even if Nix has made what is
// in it read-only.
func writableDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Narinfos that Nix makes are read, keep every byte when they are written
// again, carry a signature that is good, and tell the truth about the archive.
func TestNixCopy(t *testing.T) {
	dir := writableDir(t)
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "bin", "run"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	paths := []string{
		nixRun(t, dir, "nix-store", "--add", tree),
		strings.Trim(nixRun(t, dir, "nix-instantiate", "--eval", "--read-write-mode", "-E",
			`builtins.toFile "y" "${builtins.toFile "a" "a"} ${builtins.toFile "b" "b"}"`), `"`),
		nixRun(t, dir, "nix-instantiate", "-E", `derivation { name = "d"; system = "x"; builder = builtins.toFile "c" "c"; }`),
	}
	nixRun(t, dir, "nix-store", "--generate-binary-cache-key", "test-1", "secret", "public")
	public, err := os.ReadFile(filepath.Join(dir, "public"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := store.ParseKeys([]string{string(public), store.CacheNixOSOrgKey})
	if err != nil {
		t.Fatal(err)
	}
	nixRun(t, dir, "nix", append([]string{"store", "sign", "--derivation", "--key-file", "secret"}, paths[2])...)
	for _, compression := range []string{"none", "xz", "bzip2", "zstd", "gzip"} {
		t.Run(compression, func(t *testing.T) {
			cache := filepath.Join(dir, compression)
			to := "file://" + cache + "?compression=" + compression + "&secret-key=" + filepath.Join(dir, "secret")
			nixRun(t, dir, "nix-store", "--version")
			nixRun(t, dir, "nix", append([]string{"copy", "--derivation", "--to", to}, paths[2])...)
			nixRun(t, dir, "nix", append([]string{"copy", "--to", to}, paths[:2]...)...)
			files, err := filepath.Glob(filepath.Join(cache, "*.narinfo"))
			if err != nil || len(files) < 6 {
				t.Fatalf("Nix made %v, %v", files, err)
			}
			for _, file := range files {
				checkNarinfo(t, cache, file, compression, keys)
			}
		})
	}
}

func checkNarinfo(t *testing.T, cache, file, compression string, keys store.Keys) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := narinfo.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if n.String() != string(text) {
		t.Errorf("Nix wrote\n%swe write\n%s", text, n)
	}
	if n.Compression != compression {
		t.Errorf("compression %q", n.Compression)
	}
	if err := keys.Check(&n.Info); err != nil {
		t.Error(err)
	}
	if _, ok := n.Info.Certified(); !ok {
		t.Errorf("%s is not certified by %q", n.Info.Path, n.Info.CA)
	}
	archive, err := os.ReadFile(filepath.Join(cache, n.URL))
	if err != nil {
		t.Fatal(err)
	}
	if got := store.Hash(sha256.Sum256(archive)); got != n.FileHash || int64(len(archive)) != n.FileSize {
		t.Errorf("%s: %v and %d bytes, the narinfo says %v and %d", n.URL, got, len(archive), n.FileHash, n.FileSize)
	}
}
