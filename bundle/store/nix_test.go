package store_test

import (
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

// nixStore is a Nix store of the test's own.
type nixStore struct {
	t   *testing.T
	dir string
}

func newNixStore(t *testing.T) *nixStore {
	t.Helper()
	for _, tool := range []string{"nix", "nix-store"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		} else if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: %v", tool, err)
		}
		t.Skipf("needs %s", tool)
	}
	return &nixStore{t, writableDir(t)}
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

func (s *nixStore) root() string { return "local?root=" + filepath.Join(s.dir, "root") }

// command is one of Nix's, on the store.
func (s *nixStore) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "NIX_REMOTE="+s.root(), "HOME="+s.dir, "NIX_CONFIG=build-users-group =\n"+
		"experimental-features = nix-command\nsubstitute = false\n")
	cmd.Dir = s.dir
	return cmd
}

// run runs a command of Nix on the store, and returns its output's only line.
func (s *nixStore) run(name string, args ...string) string {
	s.t.Helper()
	cmd := s.command(name, args...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", cmd, err, errOut.String())
	}
	return strings.Trim(strings.TrimSpace(string(out)), `"`)
}

// info asks Nix for the info of a path.
func (s *nixStore) info(path string) *store.PathInfo {
	s.t.Helper()
	var all []struct {
		Path       string   `json:"path"`
		NarHash    string   `json:"narHash"`
		NarSize    int64    `json:"narSize"`
		References []string `json:"references"`
		CA         string   `json:"ca"`
		Signatures []string `json:"signatures"`
	}
	args := []string{"path-info", "--json", path}
	if strings.HasSuffix(path, ".drv") {
		args = append(args, "--derivation")
	}
	out := s.run("nix", args...)
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		s.t.Fatalf("nix path-info of %s: %v: %s", path, err, out)
	}
	i := &store.PathInfo{NarSize: all[0].NarSize, CA: all[0].CA, Sigs: all[0].Signatures}
	var err error
	if i.Path, err = store.ParsePath(all[0].Path); err != nil {
		s.t.Fatal(err)
	}
	if i.NarHash, err = store.ParseHash(all[0].NarHash); err != nil {
		s.t.Fatal(err)
	}
	for _, r := range all[0].References {
		ref, err := store.ParsePath(r)
		if err != nil {
			s.t.Fatal(err)
		}
		i.References = append(i.References, ref)
	}
	i.SortReferences()
	return i
}

func (s *nixStore) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Every kind of content-addressed path that Nix makes, and whether its address
// vouches for it here.
func TestNixContentAddresses(t *testing.T) {
	s := newNixStore(t)
	flat := s.write("flat.txt", "flat\n")
	s.write("tree/a", "a file\n")
	eval := func(expr string) string {
		return s.run("nix-instantiate", "--eval", "--read-write-mode", "-E", expr)
	}
	tests := []struct {
		name      string
		path      string
		prefix    string
		refs      int
		certified bool
	}{
		{"flat", s.run("nix-store", "--add-fixed", "sha256", flat), "fixed:sha256:", 0, true},
		{"flat with SHA-1", s.run("nix-store", "--add-fixed", "sha1", flat), "fixed:sha1:", 0, false},
		{"tree", s.run("nix-store", "--add-fixed", "--recursive", "sha256", filepath.Join(s.dir, "tree")), "fixed:r:sha256:", 0, true},
		{"tree with SHA-1", s.run("nix-store", "--add-fixed", "--recursive", "sha1", filepath.Join(s.dir, "tree")), "fixed:r:sha1:", 0, false},
		{"text", eval(`builtins.toFile "x" "hello"`), "text:sha256:", 0, true},
		{"text with references", eval(`let f = n: builtins.toFile n n; in builtins.toFile "y" "${f "b"} ${f "a"} ${f "c"}"`), "text:sha256:", 3, true},
		{"derivation", eval(`builtins.unsafeDiscardOutputDependency (derivation { name = "d"; system = "x"; builder = builtins.toFile "b" "b"; }).drvPath`), "text:sha256:", 1, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := s.info(test.path)
			if !strings.HasPrefix(i.CA, test.prefix) || len(i.References) != test.refs {
				t.Fatalf("Nix gave %s the address %q and %d references", i.Path, i.CA, len(i.References))
			}
			if ca, ok := i.Certified(); ok != test.certified {
				t.Errorf("Certified of %+v = %v, %v", i, ca, ok)
			} else if ok && ca.String() != i.CA {
				t.Errorf("%q is written %q", i.CA, ca)
			}
			if err := i.CheckCA(); err != nil {
				t.Error(err)
			}
			if got, err := i.CAPath(); test.certified && (err != nil || got != i.Path) {
				t.Errorf("CAPath = %q, %v; Nix made %q", got, err, i.Path)
			}
		})
	}
}

// Trees that refer to themselves and to others, put under the addresses of
// their contents by Nix.
func TestNixSelfReference(t *testing.T) {
	s := newNixStore(t)
	dep := s.run("nix-store", "--add", s.write("dep", "dep\n"))
	for _, test := range []struct {
		name string
		self bool
		refs []string
	}{
		{"other", false, []string{dep}},
		{"self", true, nil},
		{"both", true, []string{dep}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &nixStore{t, s.dir}
			path := "/nix/store/" + strings.Repeat("0", 31) + "1-" + test.name
			refs := test.refs
			if test.self {
				refs = append([]string{path}, refs...)
			}
			i := s.info(s.makeCA(path, refs))
			if len(i.References) != len(refs) || !strings.HasPrefix(i.CA, "fixed:r:sha256:") {
				t.Fatalf("Nix made %+v", i)
			}
			if got, err := i.CAPath(); err != nil || got != i.Path {
				t.Errorf("CAPath = %q, %v; Nix made %q", got, err, i.Path)
			}
			if _, ok := i.Certified(); ok == test.self {
				t.Errorf("Certified = %v of %+v", ok, i)
			}
		})
	}
}

// makeCA adds a file that mentions refs as path, and has Nix copy it to the
// address of its contents.
func (s *nixStore) makeCA(path string, refs []string) string {
	s.t.Helper()
	s.write("root"+path, strings.Join(refs, "\n"))
	hash, size := s.hashPath("root" + path)
	registration := strings.Join(append([]string{path, hash, size, "", strconv.Itoa(len(refs))}, refs...), "\n") + "\n"
	cmd := s.command("nix-store", "--load-db")
	cmd.Stdin = strings.NewReader(registration)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("nix-store --load-db: %v\n%s", err, out)
	}
	var out struct{ Rewrites map[string]string }
	text := s.run("nix", "store", "make-content-addressed", "--json", path)
	if err := json.Unmarshal([]byte(text), &out); err != nil || out.Rewrites[path] == "" {
		s.t.Fatalf("nix store make-content-addressed: %v: %s", err, text)
	}
	return out.Rewrites[path]
}

// hashPath returns the NAR hash in base 16 and the NAR size of a file in the
// test's directory.
func (s *nixStore) hashPath(name string) (hash, size string) {
	s.t.Helper()
	nar, err := s.command("nix-store", "--dump", filepath.Join(s.dir, name)).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return store.Hash(sha256.Sum256(nar)).Base16(), strconv.Itoa(len(nar))
}

// A signature that Nix makes is good; nothing else is.
func TestNixSignature(t *testing.T) {
	s := newNixStore(t)
	s.write("a", "a\n")
	i := s.info(s.run("nix-store", "--add", filepath.Join(s.dir, "a")))
	secret, public := filepath.Join(s.dir, "key"), filepath.Join(s.dir, "key.pub")
	s.run("nix-store", "--generate-binary-cache-key", "test-1", secret, public)
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := store.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := (store.Keys{key}).Check(i); err == nil {
		t.Error("an unsigned path is accepted")
	}
	s.run("nix", "store", "sign", "--key-file", secret, i.Path.String())
	signed := s.info(i.Path.String())
	if err := (store.Keys{key}).Check(signed); err != nil {
		t.Error(err)
	}
	signed.NarSize++
	if err := (store.Keys{key}).Check(signed); err == nil {
		t.Error("a signature of another NAR size is accepted")
	}
}
