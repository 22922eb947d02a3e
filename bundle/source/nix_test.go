package source_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle"
	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

func needNix(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("nix"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("nix is missing")
	}
	t.Skip("needs nix")
}

// nix runs a command of Nix on the store below dir.
func nix(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "NIX_REMOTE=local?root="+dir+"/root", "HOME="+dir, "NIX_CONFIG=build-users-group =\n"+
		"experimental-features = nix-command\nsandbox = false\nsubstitute = false\n")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// A store and binary caches of every compression that real Nix makes give the
// same closure and the same contents.
func TestNixMadeThese(t *testing.T) {
	needNix(t)
	dir := t.TempDir()
	t.Cleanup(func() { makeWritable(t, dir) })
	sourcetest.WriteTree(t, dir+"/tree", []sourcetest.File{
		sourcetest.Dir(""), sourcetest.Exe("exe", "#!/bin/sh\n"), sourcetest.Link("link", "exe"),
		sourcetest.Reg("text", strings.Repeat("a text that can be compressed\n", 20_000)),
	})
	tree := nix(t, dir, "nix-store", "--add", dir+"/tree")
	expr := `let t = builtins.storePath ` + tree + `; a = builtins.toFile "a" "see ${t}"; in builtins.toFile "b" "see ${a} and ${t}"`
	root := strings.Trim(nix(t, dir, "nix-instantiate", "--eval", "--read-write-mode", "-E", expr), `"`)
	nix(t, dir, "nix-store", "--generate-binary-cache-key", "k-1", dir+"/k.sec", dir+"/k.pub")
	nix(t, dir, "nix", "store", "sign", "--key-file", dir+"/k.sec", "--all")
	public, err := os.ReadFile(dir + "/k.pub")
	must(t, err)
	keys, err := store.ParseKeys([]string{string(public)})
	must(t, err)
	roots := []store.Path{store.Path(root)}

	s := parse(t, dir+"/root", source.Options{})
	defer s.Close()
	want := everything(t, s, roots)
	if len(want) != 3 {
		t.Fatalf("%d paths", len(want))
	}
	for _, compression := range []string{"none", "xz", "gzip", "bzip2", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			cache := filepath.Join(t.TempDir(), "cache")
			nix(t, dir, "nix", "copy", "--to", "file://"+cache+"?compression="+compression, root)
			s := parse(t, "file://"+cache, source.Options{Keys: keys, ScratchDir: t.TempDir()})
			defer s.Close()
			if got := everything(t, s, roots); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
			other := sourcetest.NewKey("k-1").Keys(t)
			s = parse(t, "file://"+cache, source.Options{Keys: other})
			defer s.Close()
			// What is content-addressed needs no signature.
			if _, err := s.Info(t.Context(), roots[0]); err != nil {
				t.Error(err)
			}
		})
	}
}

// makeWritable lets a store be removed by whoever made it.
func makeWritable(t *testing.T, dir string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

type pathAndFiles struct {
	info  store.PathInfo
	files []sourcetest.File
}

// everything returns a closure and its contents, in order.
func everything(t *testing.T, s source.Source, roots []store.Path) []pathAndFiles {
	t.Helper()
	c, err := bundle.FindClosure(t.Context(), s, roots, 0)
	must(t, err)
	var all []pathAndFiles
	for info := range c.All() {
		files, err := read(t, s, info.Path)
		must(t, err)
		slices.Sort(info.Sigs)
		all = append(all, pathAndFiles{*info, files})
	}
	return all
}
