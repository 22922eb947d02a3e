package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/status"
)

// What somebody does who is called in the night, with processes.

// night is a process that goes on beside others.
type night struct {
	y     *rolloutYard
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan error
}

func (y *rolloutYard) background(verb string, args ...string) *night {
	y.t.Helper()
	n := &night{y: y, cmd: y.command(verb, args...), ended: make(chan error, 1)}
	n.cmd.Stdout, n.cmd.Stderr = &n.log, &n.log
	if err := n.cmd.Start(); err != nil {
		y.t.Fatal(err)
	}
	go func() { n.ended <- n.cmd.Wait() }()
	y.t.Cleanup(func() { _ = n.cmd.Process.Kill() }) // it may have ended
	return n
}

// wait returns how the process ended, and what it said.
func (n *night) wait() (string, error) {
	n.y.t.Helper()
	select {
	case err := <-n.ended:
		return n.log.String(), err
	case <-time.After(2 * time.Minute):
		_ = n.cmd.Process.Kill() // it may have ended
		<-n.ended
		n.y.t.Fatalf("%v has not ended: %s\n%s", n.cmd.Args, n.log.String(), n.y.run("status"))
		return "", nil
	}
}

func (n *night) signal(sig os.Signal) {
	n.y.t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		n.y.t.Error(err)
	}
	_, _ = n.wait() // how it ends is what was asked for
}

// done waits until a rollout or rollback has so many hosts done.
func (y *rolloutYard) done(kind string, hosts int) {
	y.t.Helper()
	y.waitFor(kind, func(st *status.Status) bool {
		return st.Rollout != nil && st.Rollout.Kind == kind && st.Rollout.Done >= hosts
	})
}

// over waits until a rollout or rollback is done.
func (y *rolloutYard) over(kind, version string) {
	y.t.Helper()
	y.waitFor(kind+" to "+version, func(st *status.Status) bool {
		return st.Rollout.Kind == kind && st.Rollout.Version == version && st.Rollout.Phase == state.Done
	})
	if y.running()[version] != len(y.hosts.Current()) {
		y.t.Errorf("hosts run %v, not %s", y.running(), version)
	}
}

// gc deletes what nothing uses, of which there is nothing.
func (y *rolloutYard) gc(when string, unread ...string) {
	y.t.Helper()
	out, err := y.bigdisk("gc", "--config", y.config, "--delete", "--wait", "0s").CombinedOutput()
	if (err != nil) != (len(unread) > 0) || !bytes.Contains(out, []byte("0 deleted")) {
		y.t.Errorf("gc %s: %v\n%s", when, err, out)
	}
	for _, zone := range unread {
		if !bytes.Contains(out, []byte("not everything could be read: "+zone)) {
			y.t.Errorf("gc %s does not say that it could not read %s:\n%s", when, zone, out)
		}
	}
}

// TestNightWithTheServiceRunning never stops the reconcile service: it makes room
// for a start, goes on when that is killed, is paused and resumed, repairs, rolls
// back, and gc runs in the middle of it all.
func TestNightWithTheServiceRunning(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	service := y.background("reconcile", "--watch")
	y.waitFor("the service", func(st *status.Status) bool { return strings.Contains(st.Controller, "(reconcile") })
	start := y.background("start", "--version", "v2")
	y.done(state.KindRollout, 1)
	if out, err := y.command("start", "--version", "v2").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("(rollout, since")) {
		t.Errorf("a second start: %v\n%s", err, out)
	}
	y.done(state.KindRollout, 5)
	start.signal(os.Kill)
	y.run("pause", "--reason", "looking")
	y.gc("while paused")
	if out := string(y.run("status")); !strings.Contains(out, "PAUSED") || !strings.Contains(out, "looking") {
		t.Errorf("status:\n%s", out)
	}
	y.waitFor("the service", func(st *status.Status) bool { return strings.Contains(st.Controller, "(reconcile") })
	y.run("resume")
	y.over(state.KindRollout, "v2")
	y.hosts.Recreate("host-us-east1-b-3")
	y.waitFor("the repair", func(*status.Status) bool { return y.hosts.Current()["host-us-east1-b-3"] == "v2" })
	y.run("rollback", "--reason", "v2 lacks python")
	y.done(state.KindRollback, 3)
	y.gc("in the middle of a rollback")
	y.over(state.KindRollback, "v1")
	if out, err := y.background("start", "--version", "v2").wait(); err != nil || y.running()["v2"] != 24 {
		t.Errorf("%v: hosts run %v\n%s", err, y.running(), out)
	}
	select {
	case err := <-service.ended:
		t.Errorf("the service has ended: %v\n%s", err, service.log.String())
	default:
		service.signal(os.Interrupt)
	}
}

// TestNightRollbackDuringStart rolls back while start is at work: it turns back,
// and says so in the end.
func TestNightRollbackDuringStart(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	start := y.background("start", "--version", "v2")
	y.done(state.KindRollout, 6)
	y.run("rollback", "--reason", "it lacks python", "--keep-new")
	out, err := start.wait()
	if err == nil || !strings.Contains(out, "all hosts are back on v1") || y.running()["v1"] != 24 {
		t.Errorf("%v: hosts run %v\n%s", err, y.running(), out)
	}
	kept := 0
	for _, a := range y.compute.Attachments() {
		if a.Device == "svc-v2" {
			kept++
		}
	}
	if kept < 6 {
		t.Errorf("%d hosts kept the disk that programs may run from", kept)
	}
}

// TestNightRollbackAtOnce takes the new disk away from everybody.
func TestNightRollbackAtOnce(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	y.run("start", "--version", "v2")
	y.run("rollback")
	for _, a := range y.compute.Attachments() {
		if a.Device != "svc-v1" && strings.HasPrefix(a.Device, "svc-") {
			t.Errorf("%s is on %s", a.Device, a.Instance)
		}
	}
	if y.running()["v1"] != 24 {
		t.Errorf("hosts run %v", y.running())
	}
}

// TestNightKilledRollback kills rollbacks, and what goes on with them.
func TestNightKilledRollback(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	y.run("start", "--version", "v2")
	back := y.background("rollback", "--reason", "bad")
	for hosts := 2; hosts <= 8; hosts += 3 {
		y.done(state.KindRollback, hosts)
		back.signal(os.Kill)
		y.gc("after a kill")
		back = y.background("start")
	}
	if _, err := back.wait(); y.running()["v1"] != 24 {
		t.Errorf("%v: hosts run %v\n%s", err, y.running(), y.run("status"))
	}
	count := map[string]int{}
	for _, a := range y.compute.Attachments() {
		if strings.HasPrefix(a.Device, "svc-") {
			count[a.Instance]++
		}
	}
	for host, n := range count {
		if n > 3 {
			t.Errorf("%s has %d disks", host, n)
		}
	}
}

// TestNightZoneUnreachable loses a zone in the middle of a rollout, and with it the
// service that would have to go on.
func TestNightZoneUnreachable(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 24, nil)
	service := y.background("reconcile", "--watch")
	start := y.background("start", "--version", "v2")
	y.done(state.KindRollout, 2)
	y.compute.SetUnreachable(true, "us-east1-b")
	y.waitFor("the zone to be missed", func(st *status.Status) bool {
		return st.Rollout != nil && strings.Contains(strings.Join(st.Rollout.Waiting, " "), "us-east1-b")
	})
	start.signal(os.Kill)
	y.gc("without a zone", "prod-1/us-east1-b")
	time.Sleep(2 * time.Second)
	y.compute.SetUnreachable(false, "us-east1-b")
	y.over(state.KindRollout, "v2")
	service.signal(os.Interrupt)
}

// TestNightSickHosts has hosts get sick after a rollout: the service says which and
// why.
func TestNightSickHosts(t *testing.T) {
	t.Parallel()
	y := newRolloutYard(t, 12, func(string, string, int) gcetest.Behaviour { return gcetest.Healthy })
	y.run("start", "--version", "v2")
	y.hosts.Fail("host-us-west1-c-1", "block 4711 is damaged")
	out, err := y.command("reconcile", "--json").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("1 of 12 are not well")) {
		t.Errorf("%v\n%s", err, out)
	}
	var st status.Status
	if err := json.Unmarshal(y.run("status", "--json"), &st); err != nil {
		t.Fatal(err)
	}
	if f := st.Reconcile.Sick["prod-1/us-west1-c/host-us-west1-c-1"]; !strings.Contains(f.Reason, "block 4711") {
		t.Errorf("sick: %+v", st.Reconcile)
	}
}

// TestNightPublishDuringRollout publishes another image under the version that is being
// rolled out: that is refused, and hosts get what was published first.
func TestNightPublishDuringRollout(t *testing.T) {
	t.Parallel()
	disk := buildExample(t)
	y := newRolloutYard(t, 24, nil)
	start := y.background("start", "--version", "v2")
	y.done(state.KindRollout, 2)
	out, err := y.bigdisk("publish", disk, "--config", y.config, "--version", "v2").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("image svc-v2-us in prod-1 exists and is another one")) {
		t.Errorf("another image under the same version: %v\n%s", err, out)
	}
	if n := len(y.compute.Calls("images.insert")); n > 0 {
		t.Errorf("%d images are made:\n%s", n, out)
	}
	if out, err := start.wait(); err != nil || y.running()["v2"] != 24 {
		t.Errorf("%v: hosts run %v\n%s", err, y.running(), out)
	}
}
