package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/environment"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/pipeline/progress"
)

// aBuild has two modules in two versions, which share libraries.
func aBuild(t testing.TB) *fakeBuild {
	t.Helper()
	s := newFakeStore()
	r := rand.New(rand.NewPCG(1, 1))
	libc := s.add(t, "libc", randomTree(r, 5000))
	libA := s.add(t, "liba", randomTree(r, 3*batchSize), libc)
	libB := s.add(t, "libb", randomTree(r, 100), libc, libA)
	go1 := s.add(t, "module-go-1", file(`{"name":"Go","description":"old","env":{"PATH":"/go/bin"}}`), libA)
	go2 := s.add(t, "module-go-2", file(`{"name":"Go","description":"new"}`), libB)
	bun1 := s.add(t, "module-bun-1", file(`{"name":"Bun","description":"a runtime"}`), libc)
	f := newFakeBuild(t, s)
	f.lock(t,
		entry(t, "bun:v1-20240301-bbbbbbb", bun1),
		entry(t, "go:v1-20240101-aaaaaaa", go1),
		entry(t, "go:v2-20240201-ccccccc", go2),
	)
	return f
}

func (f *fakeBuild) mustRun(t testing.TB) *BuildResult {
	t.Helper()
	r, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// units are the names of the store paths without their digests, as written.
func (f *fakeBuild) units() []string {
	var names []string
	for _, u := range f.recorder.layout.Units {
		names = append(names, u.Name[store.DigestLen+1:])
	}
	return names
}

func TestBuild(t *testing.T) {
	noGoroutines(t)
	f := aBuild(t)
	tracker := progress.New(nil)
	f.opts.Progress = tracker
	result := f.mustRun(t)
	if got, want := f.files(t), []string{"disk.sqsh", "disk.sqsh.manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	m, err := image.ReadManifest(result.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if m.Image.SHA256 != result.SHA256 || m.Image.Size != result.Size || result.Size != int64(len(readFile(t, result.Image))) {
		t.Errorf("the manifest is of an image of %d bytes, the result of %d", m.Image.Size, result.Size)
	}
	var modules []string
	for _, mod := range m.Modules {
		modules = append(modules, mod.ID)
	}
	if want := []string{"bun:v1-20240301-bbbbbbb", "go:v1-20240101-aaaaaaa", "go:v2-20240201-ccccccc"}; !slices.Equal(modules, want) {
		t.Errorf("modules %q, want the lock file's order %q", modules, want)
	}
	if m.Totals.StorePaths != 6 || result.Modules != 3 || !strings.HasPrefix(m.Image.Label, "bigdisk-") || m.Lock == nil {
		t.Errorf("manifest %+v, result %+v", m, result)
	}
	for _, p := range m.Paths {
		if want := f.store.paths[p.Path].info; p.NarHash != want.NarHash || p.NarSize != want.NarSize || p.Files == 0 {
			t.Errorf("%s: %+v in the manifest", p.Path, p)
		}
	}
	for _, s := range tracker.Snapshot() {
		if !s.Finished || s.Done != s.Total || s.Done == 0 {
			t.Errorf("stage %s ended as %+v", s.Stage, s)
		}
	}
}

func TestBuildLayout(t *testing.T) {
	f := aBuild(t)
	f.mustRun(t)
	want := []string{
		"nix", "nix/store", "nix/store/.links", "nix/var", "nix/var/nix", "nix/var/nix/db", "nix/var/nix/db/schema",
		"nix/var/nix/db/db.sqlite", "nix/var/nix/gcroots", "nix/var/nix/gcroots/per-user", "nix/var/nix/profiles",
		"nix/var/nix/profiles/per-user", "nix/var/nix/temproots", "etc", "etc/nixmodules",
		"etc/nixmodules/active-modules.json", "etc/nixmodules/auto-upgrade.json", "etc/nixmodules/env",
		"etc/nixmodules/env/bun:v1-20240301-bbbbbbb.json", "etc/nixmodules/env/go:v1-20240101-aaaaaaa.json",
		"etc/nixmodules/env/go:v2-20240201-ccccccc.json", "etc/nixmodules/modules.json", "etc/nixmodules/recommend-upgrade.json",
	}
	var got []string
	for _, name := range f.created("") {
		if strings.Count(name, "/") < 2 || !strings.HasPrefix(name, "nix/store/") || name == "nix/store/.links" {
			if len(name) < len("nix/store/")+store.DigestLen || !strings.HasPrefix(name, "nix/store/") {
				got = append(got, name)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("beside the store paths there is\n%q, want\n%q", got, want)
	}
	log := strings.Join(f.recorder.log, "\n")
	if last, end := strings.LastIndex(log, "begin "), strings.Index(log, "nix/var/nix/db/db.sqlite"); !strings.HasPrefix(log[last:], "begin \n") || last > end {
		t.Error("the database belongs to the unit of a store path")
	}
}

// TestBuildReleaseOrder: a release that adds entries only adds store paths at
// the end, wherever the lock file has them.
func TestBuildReleaseOrder(t *testing.T) {
	f := aBuild(t)
	f.mustRun(t)
	want := []string{"liba", "libc", "module-go-1", "libb", "module-go-2", "module-bun-1"}
	got := f.units()
	for _, group := range [][2]int{{0, 3}, {3, 5}} { // digests decide within one root
		slices.Sort(got[group[0]:group[1]])
	}
	if !slices.Equal(got, want) {
		t.Fatalf("release order %q, want %q", got, want)
	}
	first := f.units()

	extra := f.store.add(t, "tool", file("x"))
	another := f.store.add(t, "module-another", file("{}"), extra)
	entries := []string{"another:v1-20240401-ddddddd", "bun:v1-20240301-bbbbbbb", "go:v1-20240101-aaaaaaa", "go:v2-20240201-ccccccc"}
	paths := []store.Path{another, f.named("module-bun-1"), f.named("module-go-1"), f.named("module-go-2")}
	next := newFakeBuild(t, f.store)
	lines := make([]string, len(entries))
	for i := range entries {
		lines[i] = fmt.Sprintf("%q: {\"commit\": %q, \"path\": %q}", entries[i], entry(t, entries[i], paths[i]).Commit, paths[i])
	}
	next.opts.Lock = filepath.Join(t.TempDir(), "modules.json")
	if err := os.WriteFile(next.opts.Lock, []byte("{"+strings.Join(lines, ",\n")+"}"), 0o644); err != nil {
		t.Fatal(err)
	}
	next.mustRun(t)
	if second := next.units(); len(second) != 8 || !slices.Equal(second[:len(first)], first) {
		t.Errorf("the next release has %q, which does not start with %q", second, first)
	}
}

func (f *fakeBuild) named(name string) store.Path {
	for p := range f.store.paths {
		if p.Name() == name {
			return p
		}
	}
	return ""
}

// TestBuildDeterministic: workers, delays and memory change nothing.
func TestBuildDeterministic(t *testing.T) {
	noGoroutines(t)
	var image, manifest []byte
	for i, jobs := range []int{1, 8, 1, 3, 8} {
		f := aBuild(t)
		f.opts.Jobs = jobs
		if i >= 2 {
			f.opts.MemoryBudget = 1
			f.opts.SpoolBudget = 1
			var calls atomic.Int64
			f.store.step = func(string) {
				if rand.IntN(10) == 0 || calls.Add(1) < 5 {
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				}
			}
		}
		r := f.mustRun(t)
		if i == 0 {
			image, manifest = readFile(t, r.Image), readFile(t, r.Manifest)
			continue
		}
		if !bytes.Equal(readFile(t, r.Image), image) {
			t.Errorf("run %d, %d jobs: another image", i, jobs)
		}
		if !bytes.Equal(readFile(t, r.Manifest), manifest) {
			t.Errorf("run %d, %d jobs: another manifest", i, jobs)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	full := errors.New("no space left on device")
	rotten := fmt.Errorf("%w: its NAR hash is another", source.ErrMismatch)
	const libb = "module go:v2-20240201-ccccccc: /nix/store/"
	tests := []struct {
		name  string
		spoil func(t *testing.T, f *fakeBuild)
		want  []string
	}{
		{"no such lock file", func(t *testing.T, f *fakeBuild) { f.opts.Lock = "none.json" }, []string{"none.json: no such file"}},
		{"malformed lock file", func(t *testing.T, f *fakeBuild) {
			f.opts.Lock = filepath.Join(t.TempDir(), "m.json")
			if err := os.WriteFile(f.opts.Lock, []byte("{\n\"x\": 1}"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"m.json: line 2"}},
		{"empty lock file", func(t *testing.T, f *fakeBuild) { f.lock(t) }, []string{"no entries"}},
		{"unknown module", func(t *testing.T, f *fakeBuild) { f.opts.Modules = []string{"gos"} }, []string{`module "gos"`, "modules.json"}},
		{"bad path", func(t *testing.T, f *fakeBuild) { f.opts.Paths = []string{"/nix/store/x"} }, []string{"--path", "/nix/store/x"}},
		{"path is nowhere", func(t *testing.T, f *fakeBuild) { delete(f.store.paths, f.named("libb")) }, []string{libb, "libb: not in memory"}},
		{"root is nowhere", func(t *testing.T, f *fakeBuild) { delete(f.store.paths, f.named("module-bun-1")) },
			[]string{"module bun:v1-20240301-bbbbbbb: /nix/store/", "not in memory"}},
		{"open fails", func(t *testing.T, f *fakeBuild) { f.store.paths[f.named("libb")].openErr = rotten }, []string{libb, "-libb: memory: ", "NAR hash"}},
		{"contents end early", func(t *testing.T, f *fakeBuild) {
			p := f.store.paths[f.named("libb")]
			p.fail = map[int]error{len(p.files): rotten}
		}, []string{libb, "-libb: ", "NAR hash"}},
		{"image refuses an entry", func(t *testing.T, f *fakeBuild) {
			f.recorder.fail = func(what string) error {
				if strings.HasPrefix(what, "create") && strings.Contains(what, "-libb/") {
					return errors.New("too long a name")
				}
				return nil
			}
		}, []string{`module go:v2-20240201-ccccccc: "nix/store/`, "too long a name"}},
		{"image fails at its end", func(t *testing.T, f *fakeBuild) {
			f.recorder.fail = func(what string) error {
				if what == "close" {
					return full
				}
				return nil
			}
		}, []string{"no space left"}},
		{"upgrade map is no JSON", func(t *testing.T, f *fakeBuild) { f.opts.AutoUpgrade = f.opts.Lock + "/x" }, []string{"--auto-upgrade: "}},
		{"output is a directory", func(t *testing.T, f *fakeBuild) {
			f.opts.Output = f.dir
			f.opts.Format = Squashfs
		}, []string{"not a regular file"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			noGoroutines(t)
			f := aBuild(t)
			test.spoil(t, f)
			_, err := f.run(t.Context())
			if err == nil {
				t.Fatal("it was built")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			if got := f.files(t); len(got) > 0 {
				t.Errorf("it left %q", got)
			}
		})
	}
}

// TestBuildPathAlone needs no lock file and names no module.
func TestBuildPathAlone(t *testing.T) {
	f := aBuild(t)
	f.opts.Lock = ""
	f.opts.Paths = []string{string(f.named("libb")), string(f.named("libc")), string(f.named("libb"))}
	r := f.mustRun(t)
	m, err := image.ReadManifest(r.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Roots) != 2 || m.Lock != nil || len(m.Modules) != 0 || len(m.Paths) != 3 || len(m.Image.Label) != len("bigdisk-1234567") {
		t.Errorf("manifest %+v", m)
	}
	f.store.paths[f.named("libc")].openErr = errors.New("bad luck")
	if _, err := f.run(t.Context()); err == nil || !strings.Contains(err.Error(), "-libc: memory: bad luck") {
		t.Errorf("got %v", err)
	}
}

// TestBuildCancelled cancels at one call after the other.
func TestBuildCancelled(t *testing.T) {
	noGoroutines(t)
	count := func(limit int64) (calls int64, err error, files []string) {
		f := aBuild(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var n atomic.Int64
		step := func(string) {
			if n.Add(1) == limit {
				cancel()
			}
		}
		f.store.step, f.recorder.step = step, step
		_, err = f.run(ctx)
		return n.Load(), err, f.files(t)
	}
	all, err, _ := count(-1)
	if err != nil {
		t.Fatal(err)
	}
	for limit := int64(1); limit < all; limit += 1 + all/150 {
		_, err, files := count(limit)
		if err == nil {
			// It was too late to stop; then all of it must be there.
			if len(files) != 2 {
				t.Errorf("cancelled at call %d of %d: built, but there are %q", limit, all, files)
			}
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at call %d of %d: %v", limit, all, err)
		}
		if len(files) > 0 {
			t.Errorf("cancelled at call %d of %d: it left %q", limit, all, files)
		}
	}
}

// TestBuildAfterKilled: what a killed build leaves is neither used nor kept.
func TestBuildAfterKilled(t *testing.T) {
	f := aBuild(t)
	left := []string{".disk.sqsh.bigdisk-tmp", ".disk.sqsh.bigdisk-tmp-db", ".disk.sqsh.manifest.json.bigdisk-tmp"}
	for _, name := range left {
		if err := os.WriteFile(filepath.Join(f.dir, name), bytes.Repeat([]byte("x"), 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.mustRun(t)
	if got, want := f.files(t), []string{"disk.sqsh", "disk.sqsh.manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if b := readFile(t, f.opts.Output); bytes.Contains(b, []byte("xxxxxxxx")) {
		t.Error("what was left is in the image")
	}
}

func TestBuildEtc(t *testing.T) {
	f := aBuild(t)
	want := `{"bun":{"commit":"bbbbbbb000000000000000000000000000000000","description":"a runtime","name":"Bun","path":"` + string(f.named("module-bun-1")) +
		`","tag":"v1-20240301-bbbbbbb","tags":["v1-20240301-bbbbbbb"],"version":1},` +
		`"go":{"commit":"ccccccc000000000000000000000000000000000","description":"new","name":"Go","path":"` + string(f.named("module-go-2")) +
		`","tag":"v2-20240201-ccccccc","tags":["v2-20240201-ccccccc","v1-20240101-aaaaaaa"],"version":2}}` + "\n"
	f.mustRun(t)
	if got := string(f.recorder.kept["etc/nixmodules/active-modules.json"]); got != want {
		t.Errorf("active-modules.json is\n%s, want\n%s", got, want)
	}
	if got, want := f.recorder.kept["etc/nixmodules/modules.json"], readFile(t, f.opts.Lock); !bytes.Equal(got, want) {
		t.Errorf("modules.json is\n%s, want\n%s", got, want)
	}
	f.opts.Modules = []string{"go:v1-20240101-aaaaaaa"}
	f.mustRun(t)
	if got := string(f.recorder.kept["etc/nixmodules/modules.json"]); strings.Contains(got, "bun") || !strings.Contains(got, "go:v1") {
		t.Errorf("modules.json has entries that are not on the disk: %s", got)
	}

	given := filepath.Join(t.TempDir(), "active.json")
	if err := os.WriteFile(given, []byte("{ }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.opts.ActiveModules = given
	f.mustRun(t)
	if got := string(f.recorder.kept["etc/nixmodules/active-modules.json"]); got != "{ }\n" {
		t.Errorf("the given active-modules.json is in the image as %q", got)
	}
}

// TestBuildEnvironments has a module with an environment, one that is no JSON
// and one that is a directory.
func TestBuildEnvironments(t *testing.T) {
	f := aBuild(t)
	f.store.paths[f.named("module-go-2")].files = file("#!/bin/sh\n")
	f.store.paths[f.named("module-bun-1")].files = randomTree(rand.New(rand.NewPCG(1, 2)), 100)
	f.mustRun(t)
	for key, want := range map[string]struct {
		path store.Path
		env  environment.Env
		says string
	}{
		"go:v1-20240101-aaaaaaa":  {f.named("module-go-1"), environment.Env{"PATH": "/go/bin"}, ""},
		"go:v2-20240201-ccccccc":  {f.named("module-go-2"), nil, "not a JSON object"},
		"bun:v1-20240301-bbbbbbb": {f.named("module-bun-1"), nil, "not a small file"},
	} {
		got, err := environment.Decode(f.recorder.kept["etc/nixmodules/"+environment.Name(key)])
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got.Path != want.path || !reflect.DeepEqual(got.Env, want.env) || !strings.Contains(got.Problem, want.says) {
			t.Errorf("%s has %+v, want %v", key, got, want)
		}
	}
	f.opts.Modules = []string{"go:v1-20240101-aaaaaaa"}
	f.mustRun(t)
	if _, ok := f.recorder.kept["etc/nixmodules/"+environment.Name("go:v2-20240201-ccccccc")]; ok {
		t.Error("there is an environment of a module that is not on the disk")
	}
}

// TestBuildDatabase: the database has every path, and the outputs of those that
// are derivations, which are only known from their contents.
func TestBuildDatabase(t *testing.T) {
	f := aBuild(t)
	out := f.named("libb")
	drv := f.store.add(t, "libb.drv", file(`Derive([("out","`+string(out)+`","","")],[],[],"x86_64-linux","/bin/sh",[],[])`), f.named("libc"))
	f.opts.Paths = []string{string(drv)}
	f.mustRun(t)
	name := filepath.Join(t.TempDir(), "db.sqlite")
	if err := os.WriteFile(name, f.recorder.kept["nix/var/nix/db/db.sqlite"], 0o644); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.OpenConn(name, sqlite.OpenReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ask := func(query string) (rows []string) {
		err := sqlitex.Execute(db, query, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			rows = append(rows, s.ColumnText(0))
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	var want []string
	for p := range f.store.paths {
		want = append(want, string(p))
	}
	slices.Sort(want)
	if got := ask("select path from ValidPaths order by path"); !slices.Equal(got, want) {
		t.Errorf("valid paths\n%q, want\n%q", got, want)
	}
	query := "select v.path || ' ' || o.id || ' ' || o.path from DerivationOutputs o join ValidPaths v on v.id = o.drv"
	if got, want := ask(query), []string{string(drv) + " out " + string(out)}; !slices.Equal(got, want) {
		t.Errorf("outputs %q, want %q", got, want)
	}
	f.store.paths[drv].files = file("no derivation")
	if _, err := f.run(t.Context()); err == nil || !strings.Contains(err.Error(), string(drv)) {
		t.Errorf("a derivation that is none: %v", err)
	}
}
