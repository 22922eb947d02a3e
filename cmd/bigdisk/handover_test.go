package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHandover lays a script beside the program, and wants it to be run before
// anything of Google's libraries is initialised.
func TestHandover(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "bigdisk")
	if err := os.WriteFile(program, readBytes(t, self), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (stdout, stderr string, err error) {
		var out, trace bytes.Buffer
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1") // package runtime
		cmd.Stdout, cmd.Stderr = &out, &trace
		err = cmd.Run()
		return out.String(), trace.String(), err
	}
	const heavy = "init cloud.google.com/"
	args := []string{"host", "env", "--root", "/nowhere", "--json", "a b"}
	if _, stderr, err := run(args...); err == nil || !strings.Contains(stderr, "bigdisk: /nowhere: no disk") || !strings.Contains(stderr, heavy) {
		t.Errorf("with nothing beside it: %v, %s", err, stderr)
	}
	if err := os.WriteFile(program+"-env", []byte("#!/bin/sh\nprintf '%s|' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, err := run(args...); err != nil || stdout != "--root|/nowhere|--json|a b|" || !strings.Contains(stderr, "init os ") || strings.Contains(stderr, heavy) {
		t.Errorf("%q, %v, %s", stdout, err, stderr)
	}
	if stdout, _, err := run("host", "--help"); err != nil || !strings.Contains(stdout, "overlay") {
		t.Errorf("another command: %q, %v", stdout, err)
	}
}
