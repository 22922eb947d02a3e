// Package imagetest is what tests of images share: trees to write into an
// image, the kernel's view of what came out, and the rule that a missing tool
// skips a test by name, and fails it in CI.
package imagetest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// commandTimeout ends a command that a test runs and that never would.
const commandTimeout = 5 * time.Minute

// Missing skips the test for want of something, or fails it in CI, where
// everything has to be there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// NeedTools makes sure that the tools are installed.
func NeedTools(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			Missing(t, "%s is not installed", tool)
		}
	}
}

// NeedRoot makes sure that the test may do what only root may, such as "mount
// an image".
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "not root, which it takes to %s", why)
	}
}

// Command runs a command that has to succeed and returns its standard output.
func Command(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// Mount mounts an image through a loop device, read-only unless options say
// otherwise, for as long as the test runs.
func Mount(t testing.TB, image string, options ...string) string {
	t.Helper()
	NeedRoot(t, "mount an image")
	if len(options) == 0 {
		options = []string{"ro"}
	}
	at := t.TempDir()
	Command(t, "mount", "-o", strings.Join(append(options, "loop"), ","), image, at)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return at
}
