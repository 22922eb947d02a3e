package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestConfigKnowsEveryFlag: a configuration file can hold every flag but
// --config itself, under the flag's name, and nothing else.
func TestConfigKnowsEveryFlag(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(buildOptions).AddFlags(flags)
	var want []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" {
			want = append(want, f.Name)
		}
	})
	keys := yamlKeys(reflect.TypeFor[buildOptions]())
	slices.Sort(want)
	slices.Sort(keys)
	if !slices.Equal(keys, want) {
		t.Errorf("the keys are %q, the flags %q", keys, want)
	}
}

// yamlKeys lists the keys that a struct is read from.
func yamlKeys(t reflect.Type) []string {
	var keys []string
	for _, field := range reflect.VisibleFields(t) {
		switch key := field.Tag.Get("yaml"); key {
		case "-":
		case ",inline":
			keys = append(keys, yamlKeys(field.Type)...)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

// TestConfigReachesThePipeline sets every key and looks for it in the options.
func TestConfigReachesThePipeline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.yaml")
	const text = `
lock: l
module: [a, b]
latest: 2
path: [p]
from: [/s, "file:c", "http://h", nix]
trusted-key: [k]
no-check-sigs: true
output: o.sqsh
format: squashfs
compression: gzip
block-size: 64K
owner: 1:2
label: x
auto-upgrade: au
recommend-upgrade: /abs/ru
active-modules: am
jobs: 3
progress: none
json: true
select: terminal
mapping: m.yaml
keep-going: true
skip-missing: true
flake: f
flake-attr: a
nix-store: daemon
nix-option: ["a=b"]
size: 1G
writable: true
verity: true
partition: gpt
verify: true
`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	flags, given := parseBuildFlags(t, "--config", file, "--jobs", "4", "--module", "c")
	opts, err := given.withConfig(flags)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(filepath.Dir(file), name) }
	want := buildOptions{
		Lock: in("l"), Modules: []string{"c"}, Latest: 2, Paths: []string{"p"},
		From: []string{"/s", "file://" + in("c"), "http://h", "nix"}, TrustedKeys: []string{"k"}, NoCheckSigs: true,
		Output: in("o.sqsh"), Format: "squashfs", Compression: "gzip", BlockSize: 64 << 10, Owner: owner{1, 2}, Label: "x",
		AutoUpgrade: in("au"), RecommendUpgrade: "/abs/ru", ActiveModules: in("am"),
		Jobs: 4, Progress: "none", JSON: true, Select: "terminal", Mapping: in("m.yaml"), KeepGoing: true, SkipMissing: true,
		Size: 1 << 30, Writable: true, Verity: true, Partition: "gpt", Verify: true,
		Nix: nixOptions{Flake: in("f"), Attr: "a", Store: "daemon", Settings: []string{"a=b"}},
	}
	opts.Config = ""
	if !reflect.DeepEqual(*opts, want) {
		t.Errorf("got  %+v\nwant %+v", *opts, want)
	}
	build := reflect.ValueOf(opts.pipelineOptions())
	for _, name := range []string{"Lock", "Modules", "Latest", "Paths", "From", "TrustedKeys", "NoCheckSigs", "Output", "Format", "Compression",
		"BlockSize", "UID", "GID", "Label", "AutoUpgrade", "RecommendUpgrade", "ActiveModules", "Jobs",
		"Select", "Mapping", "KeepGoing", "SkipMissing", "Flake", "FlakeAttr"} {
		if build.FieldByName(name).IsZero() {
			t.Errorf("%s does not reach the pipeline", name)
		}
	}
}

// TestDefaultLock: no lock file is needed for store paths alone.
func TestDefaultLock(t *testing.T) {
	const path = "/nix/store/0qmk4xvkibcjbbzhkck4w17y1smrha8p-wordlist-2024a"
	tests := []struct{ args, want string }{
		{"", "modules.json"},
		{"--module a", "modules.json"},
		{"--path " + path, ""},
		{"--path " + path + " --module a", "modules.json"},
		{"--path " + path + " --latest 1", "modules.json"},
		{"--path " + path + " --lock x", "x"},
	}
	for _, test := range tests {
		flags, given := parseBuildFlags(t, strings.Fields(test.args)...)
		opts, err := given.withConfig(flags)
		if err != nil {
			t.Fatal(err)
		}
		if got := opts.pipelineOptions().Lock; got != test.want {
			t.Errorf("%q: lock file %q, want %q", test.args, got, test.want)
		}
	}
}

func parseBuildFlags(t *testing.T, args ...string) (*pflag.FlagSet, *buildOptions) {
	t.Helper()
	flags, given := pflag.NewFlagSet("", pflag.ContinueOnError), new(buildOptions)
	given.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags, given
}

func TestResolveStore(t *testing.T) {
	tests := []struct{ from, want string }{
		{"nix", "nix"},
		{"/", "/"},
		{"store", "/conf/store"},
		{"../store", "/store"},
		{"https://cache.example.org/a", "https://cache.example.org/a"},
		{"gs://bucket", "gs://bucket"},
		{"file:cache", "file:///conf/cache"},
		{"file:./cache", "file:///conf/cache"},
		{"file:/cache", "file:///cache"},
		{"file:///cache", "file:///cache"},
		{"file://./cache", "file:///conf/cache"},
		{"file://../cache", "file:///cache"},
		{"file:with space", "file:///conf/with%20space"},
		{"file:with%20space", "file:///conf/with%20space"},
	}
	for _, test := range tests {
		if got, err := resolveStore("/conf", test.from); err != nil || got != test.want {
			t.Errorf("%s: %s, %v, want %s", test.from, got, err, test.want)
		}
	}
	if got, err := resolveStore("/conf", "file://cache"); err == nil {
		t.Errorf("file://cache is taken for %s", got)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add("lock: a\nfrom: [b, c]\njobs: 3\n")
	f.Add("block-size: 12Q")
	f.Add("owner: {a: b}")
	f.Add("a: &a [*a, *a]\nlock: *a")
	f.Add("--- \n...\n---\n- ")
	f.Add("<<: {lock: x}\nlabel: !!binary aGk=")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := readConfig(file, new(buildOptions)); err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}

// TestConfigLimits: what the parser would take gigabytes for is refused, by file
// and line; package yamlfile has the limits.
func TestConfigLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(file, []byte("lock: x\nmodule: "+strings.Repeat("[", 3000)), 0o600); err != nil {
		t.Fatal(err)
	}
	err := readConfig(file, new(buildOptions))
	if want := "line 2: more than 32 brackets are open"; err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s in %s", err, want, file)
	}
}
