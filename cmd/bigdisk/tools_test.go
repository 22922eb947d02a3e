package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/image/imagetest"
)

// binary is a program that is bigdisk: this test binary, under the name that
// TestMain looks for, where every user can run it.
func binary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(openDir(t), "bigdisk")
	imagetest.Command(t, "cp", self, program)
	return program
}

// openDir is a temporary directory that every user can enter; [testing.T]'s
// are only for the user who runs the test.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bigdisk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// buildExample builds the example's image.
func buildExample(t *testing.T) string {
	t.Helper()
	return buildExampleAs(t, "example.sqsh")
}

// buildExampleAs builds the example's image under a name, with more flags.
func buildExampleAs(t *testing.T, name string, flags ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), name)
	imagetest.Command(t, binary(t), append([]string{"build", "--config", exampleConfig, "-o", image, "--progress", "none"}, flags...)...)
	return image
}

// exampleConfig is the example's configuration, as tests see it.
const exampleConfig = exampleDir + "/build.yaml"

// afterwards runs a command when the test is over.
func afterwards(t *testing.T, name string, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	})
}
