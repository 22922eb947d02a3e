package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadme runs the README's first command, as it stands there but for where
// the image goes, and wants it to print what stands there.
func TestReadme(t *testing.T) {
	const first = "go run ./cmd/bigdisk build --config configs/example/build.yaml -o example.sqsh"
	readme := string(readBytes(t, "../../README.md"))
	if !strings.Contains(readme, "$ "+first+"\n$ go test ./...\n") {
		t.Fatal("the README does not start with its two commands")
	}
	image := filepath.Join(t.TempDir(), "example.sqsh")
	args := strings.Fields(strings.Replace(first, "example.sqsh", image, 1))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	printed := strings.ReplaceAll(string(out), image, "example.sqsh")
	if !strings.Contains(readme, "```\n"+printed+"```\n") {
		t.Errorf("it prints\n%s\nwhich is not what the README says", printed)
	}
}
