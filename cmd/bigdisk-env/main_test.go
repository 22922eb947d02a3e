package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// disk is one with a single module.
var disk = map[string]string{
	"etc/nixmodules/modules.json": `{"go:v1-20240101-c48c43c": {"commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b", "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go"}}`,
	"etc/nixmodules/env/go:v1-20240101-c48c43c.json": `{"path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go",
		"sha256": "94eb9678259e771ba0f5334120be17a17c17f4b1a41d921211617f9a9a5f5921", "env": {"PATH": "/go/bin", "a-b": "1"}}`,
	"nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go": `{"env": {"PATH": "/go/bin", "a-b": "1"}}`,
}

func TestRun(t *testing.T) {
	mountRoot := t.TempDir()
	root := filepath.Join(mountRoot, "nix/current")
	for name, text := range disk {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stale := filepath.Join(mountRoot, "stale")
	if err := os.CopyFS(stale, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stale, "nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		status         int
		stdout, stderr string // what is in it; "" is for nothing
	}{
		"--root ROOT go": {0, "export PATH='/go/bin'\n", `left out "a-b"`},
		"--service nix --mount-root MOUNTROOT go":   {0, "export PATH='/go/bin'\n", `left out "a-b"`},
		"--root ROOT --keep PATH go":                {0, `export PATH='/go/bin'"${PATH:+:$PATH}"`, `left out "a-b"`},
		"--root ROOT --json go":                     {0, `"env":{"PATH":"/go/bin","a-b":"1"}`, ""},
		"--root ROOT rust":                          {exitFailure, "", `ROOT: module "rust" is not in the lock file`},
		"--root /nowhere go":                        {exitFailure, "", "bigdisk-env: /nowhere: no disk with modules is mounted there: open /nowhere: no such file"},
		"--service other --mount-root MOUNTROOT go": {exitFailure, "", "\nbigdisk-env: hint: bigdisk host mount mounts a disk, bigdisk host status shows"},
		"--root STALE go":                           {exitFailure, "", "\nbigdisk-env: hint: check the disk with bigdisk verify: an environment is made"},
		"--root ROOT --service nix go":              {exitUsage, "", "hint: see bigdisk-env --help"},
		"--root ROOT":                               {exitUsage, "", "it takes one module"},
		"go":                                        {exitUsage, "", "either --service or --root"},
		"--service ../nix go":                       {exitUsage, "", `"../nix" cannot be a service`},
		"--service . go":                            {exitUsage, "", `"." cannot be a service`},
		"--root ROOT go:v1":                         {exitFailure, "", `did you mean "v1-20240101-c48c43c"?`},
		"--never go":                                {exitUsage, "", "unknown flag: --never"},
		"--help":                                    {0, "usage: bigdisk-env", ""},
	} {
		var stdout, stderr bytes.Buffer
		full := strings.NewReplacer("MOUNTROOT", mountRoot, "ROOT", root, "STALE", stale).Replace
		status := run(strings.Fields(full(args)), &stdout, &stderr)
		if status != want.status || !says(stdout.String(), want.stdout) || !says(stderr.String(), full(want.stderr)) {
			t.Errorf("%s: %d, %q, %q; want %+v", args, status, stdout.String(), stderr.String(), want)
		}
	}
}

func says(got, want string) bool {
	if want == "" {
		return got == ""
	}
	return strings.Contains(got, want)
}
