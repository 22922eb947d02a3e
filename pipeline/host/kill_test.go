package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// hostDir tells the process that a test kills where the host's directories are.
const hostDir = "BIGDISK_TEST_HOST_DIR"

// mountAndDie is that process: it mounts, and kills itself before the step with
// a number. It prints the steps that it comes to.
func mountAndDie(step string) int {
	n, err := strconv.Atoi(step)
	if err != nil {
		return 3
	}
	dir := os.Getenv(hostDir)
	o := Options{
		Service: "nix", DeviceDir: filepath.Join(dir, "by-id"), MountRoot: filepath.Join(dir, "mnt"), Sample: 1000, Keep: 1, Manifest: besideFile,
		step: func(name string) {
			fmt.Println(name)
			if n--; n == 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	}
	if _, err := Mount(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a process that dies at a step, or never for a step of 0.
func (h *testHost) child(step int) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", killAt, step), hostDir+"="+filepath.Dir(h.MountRoot))
	return cmd
}

// die runs a child, and reports whether it was killed, and its steps.
func (h *testHost) die(step int) (killed bool, steps []string) {
	h.t.Helper()
	cmd := h.child(step)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		killed = true
	} else if err != nil {
		h.t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	for line := range bytes.Lines(out) {
		steps = append(steps, string(bytes.TrimSpace(line)))
	}
	return killed, steps
}

// TestKilledAtAnyStep kills it before each step in turn: current names a
// version that is mounted and whole, and the next run goes on from there.
func TestKilledAtAnyStep(t *testing.T) {
	for _, before := range []string{"", "v1"} {
		for _, suffix := range []string{".sqsh", ".raw"} {
			t.Run(before+suffix, func(t *testing.T) {
				for step := 1; ; step++ {
					killed, steps := killOnce(t, before, suffix, step)
					if !killed {
						for _, name := range []string{"look", "check device", "mount", "check contents", "show", "remember", "switch", "switched", "retire", "report"} {
							if !slices.Contains(steps, name) {
								t.Errorf("%q was no step of %q", name, steps)
							}
						}
						return
					}
				}
			})
		}
	}
}

func killOnce(t *testing.T, before, suffix string, step int) (bool, []string) {
	h := newHost(t)
	if before != "" {
		h.attach("v1"+suffix, before)
		h.mount()
	}
	h.attach("v2"+suffix, "v2")
	killed, steps := h.die(step)
	want := before
	if !killed || slices.Contains(steps, "switched") {
		want = "v2"
	}
	if err := h.sound(want); err != nil {
		t.Errorf("killed before %q: %v", steps[len(steps)-1], err)
	}
	h.afterwards()
	return killed, steps
}

// afterwards runs it to its end, after which nothing is left over.
func (h *testHost) afterwards() {
	h.t.Helper()
	if r := h.mount(); r.Current != "v2" {
		h.t.Errorf("afterwards %s is current", r.Current)
	}
	entries, err := os.ReadDir(filepath.Join(h.MountRoot, "nix"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !slices.Contains([]string{"current", "v1", "v2", lockName, stateName}, name) {
			h.t.Errorf("%s was left behind", name)
		}
	}
	unmountBelow(h.t, h.MountRoot)
}

// TestKilledAtAnyMoment kills it at moments that nobody chose.
func TestKilledAtAnyMoment(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	h.mount()
	h.attach("v2.sqsh", "v2")
	start := time.Now()
	h.die(0)
	whole := time.Since(start)
	for i := range 25 {
		unmountBelow(t, h.MountRoot)
		h.detach("v2")
		h.mount()
		h.attach("v2.sqsh", "v2")
		cmd := h.child(0)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait := time.Duration(rand.Int64N(int64(whole)))
		time.Sleep(wait)
		cmd.Process.Kill()
		cmd.Wait()
		l := layout{filepath.Join(h.MountRoot, "nix")}
		version, err := l.current()
		if err != nil || version == "" {
			t.Fatalf("run %d, killed after %v: current is %q, %v", i, wait, version, err)
		}
		h.wantCurrent(version)
	}
	h.mount()
	h.afterwards()
}
