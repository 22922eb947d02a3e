package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bigdisk/image/imagetest"
)

// TestUnits lets systemd check the units, and holds them to their one rule: no
// mount namespace, which would keep the mounts to the service itself.
func TestUnits(t *testing.T) {
	imagetest.NeedTools(t, "systemd-analyze")
	units, err := filepath.Glob("../../configs/systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	program, dir := binary(t), openDir(t)
	private := regexp.MustCompile(`(?m)^(Private(Tmp|Devices|Mounts)|Protect\w+|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|MountFlags|TemporaryFileSystem|RootDirectory|DynamicUser)=`)
	var names []string
	for _, unit := range units {
		text := string(readBytes(t, unit))
		if found := private.FindString(text); found != "" {
			t.Errorf("%s has %s", unit, found)
		}
		name := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "/usr/local/bin/bigdisk", program)), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, names...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	wrong := filepath.Join(dir, "wrong@.service")
	if err := os.WriteFile(wrong, []byte("[Service]\nType=never\nExecStart=nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", wrong).CombinedOutput(); err == nil && !strings.Contains(string(out), wrong) {
		t.Errorf("systemd-analyze finds nothing wrong with a wrong unit: %s", out)
	}
}

// TestOverlayUnit runs what the unit runs: the store's URL is there for others to
// read, and stays as it was where the store cannot move.
func TestOverlayUnit(t *testing.T) {
	text := string(readBytes(t, "../../configs/systemd/bigdisk-overlay@.service"))
	commands := regexp.MustCompile(`(?m)^Exec(?:Start|Reload)=/bin/sh -c '(.*)' %i$`).FindAllStringSubmatch(text, -1)
	if len(commands) != 2 || commands[0][1] != commands[1][1] {
		t.Fatalf("it starts and reloads with %q", commands)
	}
	dir := t.TempDir()
	for _, c := range []struct{ program, want string }{
		{"run() { echo one; }; run", "one\n"}, {"run() { echo two; false; }; run", "one\n"},
		{"printf '%s '", "host overlay --service nix --upper /var/lib/bigdisk/nix --a --b "},
	} {
		command := strings.NewReplacer("/usr/local/bin/bigdisk", c.program, "/run/bigdisk", dir).Replace(commands[0][1])
		cmd := exec.Command("/bin/sh", "-c", command, "nix")
		cmd.Env = append(os.Environ(), "OPTIONS=--a --b")
		out, err := cmd.CombinedOutput()
		if failed := strings.Contains(c.program, "false"); failed != (err != nil) {
			t.Errorf("%s: %v, %s", c.program, err, out)
		}
		if got := string(readBytes(t, filepath.Join(dir, "nix.store"))); got != c.want {
			t.Errorf("%s: the URL is %q, want %q", c.program, got, c.want)
		}
	}
}
