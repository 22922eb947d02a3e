package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/status"
)

// rolloutYard is a fleet for processes of bigdisk: v1 on all hosts, v2
// published. A minute passes there in a second.
type rolloutYard struct {
	t       *testing.T
	storage string // its URL
	program string
	config  string
	compute *gcetest.Server
	hosts   *gcetest.Hosts
}

const yardScale = 60

const yardText = `
service: svc
bucket: images
computeEndpoint: %s
publish: {mutationsPerSecond: 100}
targets: [{project: prod-1, storageLocation: us, diskType: pd-balanced, zones: [us-central1-a, us-east1-b, us-west1-c]}]
hosts: {filter: 'labels.role=repl-host AND status=RUNNING'}
rollout:
  waves: [{name: canary, hosts: 1, bake: 700ms}, {hosts: 30%%, bake: 300ms}, {hosts: 100%%}]
  maxConcurrent: 6
  maxPerZone: 3
  healthTimeout: 5s
`

func newRolloutYard(t *testing.T, hosts int, behave func(host, version string, nth int) gcetest.Behaviour) *rolloutYard {
	t.Helper()
	storage := buckettest.Start(t, "images")
	compute, err := gcetest.Start(gcetest.Options{Clock: gcetest.ScaledClock(yardScale), Latency: gcetest.Uniform(time.Second, 4*time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	y := &rolloutYard{t: t, storage: storage.URL, program: binary(t), config: filepath.Join(t.TempDir(), "fleet.yaml"), compute: compute}
	t.Cleanup(y.close)
	if err := os.WriteFile(y.config, fmt.Appendf(nil, yardText, compute.URL()), 0o666); err != nil {
		t.Fatal(err)
	}
	config, err := fleet.Load(y.config)
	if err != nil {
		t.Fatal(err)
	}
	y.publish(config, "v1", (hosts+2)/3)
	y.publish(config, "v2", 1)
	y.hosts, err = compute.AddHosts(gcetest.HostSpec{
		Project: "prod-1", Zones: []string{"us-central1-a", "us-east1-b", "us-west1-c"}, Count: hosts, Service: "svc",
		Labels: map[string]string{"role": "repl-host"}, Behave: behave,
		Disk: func(zone string, n int) (string, string) {
			return fleet.DiskName("svc", "v1", zone, 1+n/10), fleet.DeviceName("svc", "v1")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	compute.SetChecks(gcetest.Checks{Service: "svc", MaxConcurrent: 6, MaxPerZone: func(string, string) int { return 3 }, ChangeTimeout: 5 * time.Minute})
	return y
}

// publish makes an image, and disks for so many hosts in each zone.
func (y *rolloutYard) publish(config *fleet.Config, version string, hosts int) {
	labels := map[string]string{"service": "svc", "version": version, "sha": strings.Repeat("a", 32)}
	y.compute.AddImage("prod-1", &computepb.Image{
		Name: proto.String(fleet.ImageName("svc", version, "us")), Labels: labels, DiskSizeGb: proto.Int64(10), Family: proto.String("svc"),
	})
	for _, z := range config.Targets[0].Zones {
		for n := range (hosts + 9) / 10 {
			y.compute.AddDisk("prod-1", z.Name, &computepb.Disk{
				Name: proto.String(fleet.DiskName("svc", version, z.Name, n+1)), SizeGb: proto.Int64(10), Type: proto.String(z.DiskType),
				Labels: map[string]string{"service": "svc", "version": version, "sha": labels["sha"], "copy": fmt.Sprint(n + 1)},
			})
		}
	}
}

func (y *rolloutYard) close() {
	if err := y.compute.Close(); err != nil {
		y.t.Error(err)
	}
	for _, v := range y.compute.Violations() {
		y.t.Error(v)
	}
}

// command is bigdisk rollout as a process. Those that change hosts are fast.
func (y *rolloutYard) command(verb string, args ...string) *exec.Cmd {
	args = append([]string{"--config", y.config}, args...)
	if verb == "start" || verb == "rollback" || verb == "reconcile" {
		args = append(args, "--lease", "2s", "--report-interval", "200ms", "--look-interval", "300ms")
	}
	return y.bigdisk(append([]string{"rollout", verb}, args...)...)
}

// bigdisk is any command, in the world of the yard.
func (y *rolloutYard) bigdisk(args ...string) *exec.Cmd {
	cmd := exec.Command(y.program, args...)
	cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST="+y.storage)
	return cmd
}

// run runs a command that has to succeed, and returns its standard output.
func (y *rolloutYard) run(verb string, args ...string) []byte {
	y.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := y.command(verb, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		y.t.Fatalf("%s: %v\n%s\n%s", verb, err, stderr.Bytes(), stdout.Bytes())
	}
	return stdout.Bytes()
}

func (y *rolloutYard) running() map[string]int {
	counts := map[string]int{}
	for _, v := range y.hosts.Current() {
		counts[fleet.PlainVersion("svc", v)]++
	}
	return counts
}

// TestRolloutKilled kills the process that rolls out, again and again.
func TestRolloutKilled(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 36, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	kills := 0
	for ; kills < 5; kills++ {
		cmd := y.command("start", "--version", "v2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1200*time.Millisecond + time.Duration(rng.Int64N(int64(time.Second))))
		if err := cmd.Process.Kill(); err != nil {
			break // it is done
		}
		_ = cmd.Wait() // it was killed
	}
	var st status.Status
	if err := json.Unmarshal(y.run("start", "--json"), &st); err != nil {
		t.Fatal(err)
	}
	if y.running()["v2"] != 36 || st.Deployed != "v2" || st.Controller != "" || st.Rollout.Done != 36 {
		t.Errorf("after %d kills hosts run %v, status %+v", kills, y.running(), st)
	}
	count := map[string]int{}
	for _, call := range y.compute.Calls("instances.attachDisk") {
		if call.Applied() {
			if count[call.Resource]++; count[call.Resource] > 1 {
				t.Errorf("%s was changed twice", call.Resource)
			}
		}
	}
}

// TestRolloutCommands goes the whole way: plan, start, pause and resume by
// another process, a second controller, a rollback.
func TestRolloutCommands(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	y.run("status")
	var p plan.Plan
	if err := json.Unmarshal(y.run("plan", "--version", "v2", "--json"), &p); err != nil {
		t.Fatal(err)
	}
	if p.Hosts != 24 || p.Attachments != 24 || len(p.Waves) != 3 || p.Waves[0].Hosts != 1 || len(p.Disks) != 0 {
		t.Errorf("plan: %+v", p)
	}
	if out, err := y.command("start", "--version", "v3").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("no zone has a disk of version v3; there are v1, v2")) {
		t.Errorf("a version that is not published: %v, %s", err, out)
	}
	first := y.command("start", "--version", "v2")
	var log bytes.Buffer
	first.Stderr = &log
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	y.waitFor("the first hosts", func(st *status.Status) bool { return st.Rollout != nil && st.Rollout.Done > 0 })
	out, err := y.command("start", "--version", "v2").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailure || !bytes.Contains(out, fmt.Appendf(nil, "process %d", first.Process.Pid)) {
		t.Errorf("a second controller: %v, %s", err, out)
	}
	y.run("pause", "--reason", "lunch")
	if out := string(y.run("status")); !strings.Contains(out, "PAUSED") || !strings.Contains(out, "lunch") || !strings.Contains(out, "bigdisk rollout resume") {
		t.Errorf("status while paused:\n%s", out)
	}
	y.run("resume")
	if err := first.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	if y.running()["v2"] != 24 {
		t.Errorf("hosts run %v", y.running())
	}
	y.hosts.Recreate("host-us-east1-b-3")
	time.Sleep(2 * time.Second)
	y.run("reconcile")
	if v := y.hosts.Current()["host-us-east1-b-3"]; v != "v2" {
		t.Errorf("the host that was made anew runs %q", v)
	}
	y.run("rollback", "--reason", "v2 lacks python", "--wave", "50%", "--wave", "100%:100ms")
	if y.running()["v1"] != 24 {
		t.Errorf("after the rollback hosts run %v", y.running())
	}
	attached := map[string]int{}
	for _, a := range y.compute.Attachments() {
		if version, ours := strings.CutPrefix(a.Device, "svc-"); ours {
			attached[fleet.PlainVersion("svc", version)]++
		}
	}
	if attached["v2"] != 0 || attached["v1"] != 24 {
		t.Errorf("after the rollback hosts have %v attached", attached)
	}
	var past []state.Past
	if err := json.Unmarshal(y.run("history", "--json"), &past); err != nil {
		t.Fatal(err)
	}
	if len(past) != 2 || past[0].Version != "v2" || past[1].Kind != state.KindRollback || past[1].Done != 24 {
		t.Errorf("history: %+v", past)
	}
	y.checkGC()
}

// checkGC runs gc, which has nothing to delete and says why.
func (y *rolloutYard) checkGC() {
	y.t.Helper()
	out, err := y.bigdisk("gc", "--config", y.config, "--delete", "--wait", "0s").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("a rollout refers to it")) || !bytes.Contains(out, []byte("0 deleted")) {
		y.t.Errorf("gc: %v\n%s", err, out)
	}
	y.compute.SetUnreachable(true, "us-east1-b")
	defer y.compute.SetUnreachable(false, "us-east1-b")
	cmd := y.bigdisk("gc", "--config", y.config)
	if out, err = cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 || !bytes.Contains(out, []byte("not everything could be read: prod-1/us-east1-b")) ||
		!bytes.Contains(out, []byte("hint: ")) || !bytes.Contains(out, []byte("0 may go")) {
		y.t.Errorf("gc, with a zone that cannot be read: %v\n%s", err, out)
	}
}

// waitFor reads the status until it is as wanted.
func (y *rolloutYard) waitFor(what string, ok func(*status.Status) bool) {
	y.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var st status.Status
		if err := json.Unmarshal(y.run("status", "--json"), &st); err != nil {
			y.t.Fatal(err)
		}
		if ok(&st) {
			return
		}
	}
	y.t.Fatalf("%s: not in time\n%s", what, y.run("status"))
}

// TestRolloutPausedInCI fails with the reason when too many hosts are sick.
func TestRolloutPausedInCI(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 12, func(_, version string, _ int) gcetest.Behaviour {
		if version == "v2" {
			return gcetest.Sick
		}
		return gcetest.Healthy
	})
	out, err := y.command("start", "--version", "v2", "--stop-when-paused").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("every host of wave canary failed")) || !bytes.Contains(out, []byte("block 4711")) {
		t.Errorf("%v\n%s", err, out)
	}
	y.run("abort", "--reason", "bad build")
	if out := string(y.run("history")); !strings.Contains(out, "aborted") || !strings.Contains(out, "bad build") {
		t.Errorf("history:\n%s", out)
	}
}
