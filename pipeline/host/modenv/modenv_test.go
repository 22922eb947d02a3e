package modenv_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/environment"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/store"
	"bigdisk/pipeline/host/modenv"
)

// The files of a disk, below a directory that stands for it.
const (
	lockFile = "etc/nixmodules/modules.json"
	autoFile = "etc/nixmodules/auto-upgrade.json"
	recFile  = "etc/nixmodules/recommend-upgrade.json"
	goKey    = "go:v2-20240201-c48c43c"
	goPath   = store.Path("/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-module-go")
	oldKey   = "go:v1-20240101-c48c43c"
	oldPath  = store.Path("/nix/store/1vrlhhzyjkizcqkjycb6x4a0g7vw0imq-module-go")
	goModule = `{"id": "go", "env": {"PATH": "/go/bin", "a-b": "it's"}}`
)

// aDisk is a disk with a module in two versions.
func aDisk(t testing.TB) (root string, files map[string]string) {
	t.Helper()
	commit := "c48c43c6c698223ed3ce2abc5a2d708735a77d5b"
	encoded := func(path store.Path, module string) string {
		text, err := environment.New(path, []byte(module)).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	files = map[string]string{
		lockFile: fmt.Sprintf(`{%q: {"commit": %q, "path": %q}, %q: {"commit": %q, "path": %q}}`, oldKey, commit, oldPath, goKey, commit, goPath),
		autoFile: fmt.Sprintf(`{"golang": {"to": %q}, %q: {"to": %q}}`, oldKey, oldKey, goKey),
		recFile:  "{}",
		"etc/nixmodules/" + environment.Name(goKey):  encoded(goPath, goModule),
		"etc/nixmodules/" + environment.Name(oldKey): encoded(oldPath, "{}"),
		string(goPath):  goModule,
		string(oldPath): "{}",
	}
	return t.TempDir(), files
}

func write(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	root, files := aDisk(t)
	write(t, root, files)
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"go", goKey, oldKey, "golang"} {
		m, err := modenv.Read(link, id)
		if err != nil || m.Version.ID != goKey || !maps.Equal(m.Env, environment.Env{"PATH": "/go/bin", "a-b": "it's"}) {
			t.Errorf("%s: %+v, %v", id, m, err)
			continue
		}
		var b bytes.Buffer
		skipped, err := m.Write(&b, false, "PATH")
		if err != nil || b.String() != "export PATH='/go/bin'\"${PATH:+:$PATH}\"\n" || !slices.Equal(skipped, []string{"a-b"}) {
			t.Errorf("%s: %q, left out %q, %v", id, b.String(), skipped, err)
		}
		b.Reset()
		var again modenv.Module
		if _, err := m.Write(&b, true); err != nil || json.Unmarshal(b.Bytes(), &again) != nil || !maps.Equal(again.Env, m.Env) || again.Version != m.Version {
			t.Errorf("%s: %q, %v", id, b.String(), err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	file := "etc/nixmodules/" + environment.Name(goKey)
	list, err := environment.New(goPath, []byte("[]")).Encode()
	if err != nil {
		t.Fatal(err)
	}
	noFile, err := environment.NoFile(goPath).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, text string // "-" takes the file away
		is         error
		says       string
	}{
		"another path":    {file, strings.Replace(fileOf(t, file), string(goPath), string(oldPath), 1), environment.ErrStale, "it was made from " + string(oldPath)},
		"another content": {string(goPath), goModule + " ", environment.ErrStale, "has the SHA-256"},
		"no environment":  {file, "-", environment.ErrNone, "built without environments"},
		"another value":   {file, strings.Replace(fileOf(t, file), "/go/bin", "/no/bin", 1), environment.ErrStale, "not what " + string(goPath) + " says"},
		"no module":       {string(goPath), "-", os.ErrNotExist, string(goPath)[1:]},
		"not a module":    {file, string(list), environment.ErrNone, "is not a JSON object"},
		"a directory":     {file, string(noFile), environment.ErrNone, "is not a small file"},
		"no lock":         {lockFile, "-", modenv.ErrNoDisk, lockFile},
		"bad lock":        {lockFile, "x", nil, lockFile},
		"bad map":         {autoFile, "[]", modules.ErrMapping, autoFile},
		"circle":          {autoFile, fmt.Sprintf(`{%q: {"to": %q}}`, goKey, goKey), modules.ErrCycle, goKey},
		"a wide circle":   {autoFile, fmt.Sprintf(`{%q: {"to": "a"}, "a": {"to": "b"}, "b": {"to": %q}}`, goKey, goKey), modules.ErrCycle, goKey + " → a → b → " + goKey},
		"upgraded away":   {autoFile, fmt.Sprintf(`{%q: {"to": "go:v3-20240301-c48c43c"}}`, goKey), modules.ErrUnknown, "upgraded to go:v3"},
		"unknown":         {lockFile, "{}", nil, "go"},
		"not JSON":        {file, "x", nil, file},
		"large":           {file, strings.Repeat(" ", environment.MaxFile+1), nil, "bytes long"},
		"cut":             {file, fileOf(t, file)[:80], nil, file},
	} {
		t.Run(name, func(t *testing.T) {
			root, files := aDisk(t)
			if files[c.file] = c.text; c.text == "-" {
				delete(files, c.file)
			}
			if c.text == string(list) {
				files[string(goPath)] = "[]"
			}
			write(t, root, files)
			m, err := modenv.Read(root, "go")
			if err == nil || !strings.HasPrefix(err.Error(), root+": ") || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; want %v, %q", m, err, c.is, c.says)
			}
		})
	}
}

// TestReadOdd reads disks that are not disks, or not there.
func TestReadOdd(t *testing.T) {
	root, files := aDisk(t)
	module := files[string(goPath)]
	delete(files, string(goPath))
	write(t, root, files)
	name := filepath.Join(root, string(goPath))
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := modenv.Read(root, "go"); !errors.Is(err, environment.ErrStale) {
		t.Errorf("a FIFO that nobody writes to: %v", err)
	}
	elsewhere := filepath.Join(t.TempDir(), "module")
	if err := errors.Join(os.Remove(name), os.WriteFile(elsewhere, []byte(module), 0o644), os.Symlink(elsewhere, name)); err != nil {
		t.Fatal(err)
	}
	if m, err := modenv.Read(root, "go"); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a symlink away from the disk: %+v, %v", m, err)
	}
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink("none", link); err != nil {
		t.Fatal(err)
	}
	for what, root := range map[string]string{"no disk": filepath.Join(root, "none"), "a symlink to nothing": link, "nothing mounted": t.TempDir()} {
		if _, err := modenv.Read(root, "go"); !errors.Is(err, modenv.ErrNoDisk) || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := modenv.Read(elsewhere, "go"); err == nil {
		t.Error("a file is read for a disk")
	}
}

// TestReadNames asks for what is no module.
func TestReadNames(t *testing.T) {
	root, files := aDisk(t)
	write(t, root, files)
	for _, id := range []string{"", ":", "go:", "go:v1", "go:v2-20240201-c48c43d", "../go", "go:../../x", "go:v2-20240201-c48c43c/", "go\n", "Go", "go:v2-20240201-c48c43c:", strings.Repeat("g", 1<<20)} {
		if m, err := modenv.Read(root, id); err == nil || len(err.Error()) > 2000 {
			t.Errorf("%.60q is %+v, %.300v", id, m, err)
		}
	}
}

// TestReadUpgrades follows chains, and none that are only recommended.
func TestReadUpgrades(t *testing.T) {
	root, files := aDisk(t)
	chain := make(map[string]modules.Upgrade)
	const steps = 10_000
	for i := range steps {
		chain[fmt.Sprintf("name%d", i)] = modules.Upgrade{To: fmt.Sprintf("name%d", i+1)}
	}
	chain[fmt.Sprintf("name%d", steps)] = modules.Upgrade{To: goKey}
	text, err := modules.Encode(chain)
	if err != nil {
		t.Fatal(err)
	}
	files[autoFile] = string(text)
	for what, recommended := range map[string]string{
		"a version that this disk lacks": `{"` + goKey + `": {"to": "go:v9-20240901-c48c43c"}}`,
		"a circle":                       `{"` + goKey + `": {"to": "` + oldKey + `"}, "` + oldKey + `": {"to": "` + goKey + `"}}`,
		"no map":                         `x`,
	} {
		files[recFile] = recommended
		write(t, root, files)
		m, err := modenv.Read(root, "name0")
		if err != nil || m.Version.ID != goKey || len(m.Auto) != steps+1 {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	chain[goKey] = modules.Upgrade{To: "name0"}
	if text, err = modules.Encode(chain); err != nil {
		t.Fatal(err)
	}
	files[autoFile] = string(text)
	write(t, root, files)
	if m, err := modenv.Read(root, "go"); !errors.Is(err, modules.ErrCycle) || len(err.Error()) > 2000 {
		t.Errorf("%+v, %.300v", m, err)
	}
}

func fileOf(t *testing.T, name string) string {
	_, files := aDisk(t)
	return files[name]
}

func BenchmarkRead(b *testing.B) {
	root, files := aDisk(b)
	write(b, root, files)
	for b.Loop() {
		if _, err := modenv.Read(root, "golang"); err != nil {
			b.Fatal(err)
		}
	}
}
