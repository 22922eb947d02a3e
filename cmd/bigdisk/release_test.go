package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bigdisk/gcp/bucket/buckettest"
	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/rollout/state"
	"bigdisk/image/imagetest"
	"bigdisk/pipeline/release"
)

// releaseYard is a fleet for processes of bigdisk release, of hosts that run
// nothing yet. A minute passes there in a second.
type releaseYard struct {
	t       *testing.T
	program string
	dir     string // of release.yaml and fleet.yaml
	storage *buckettest.Server
	compute *gcetest.Server
	hosts   *gcetest.Hosts
}

const releaseFleetText = `
service: svc
bucket: images
computeEndpoint: %s
publish: {mutationsPerSecond: 100}
targets: [{project: prod-1, storageLocation: us, diskType: pd-balanced, zones: [us-central1-a, us-east1-b]}]
hosts: {filter: 'labels.role=repl-host AND status=RUNNING'}
rollout: {waves: [{name: canary, hosts: 1}, {hosts: 100%%}], maxPerZone: 3, healthTimeout: 10s}
`

const releaseText = `
directory: releases
build: %s
checkLock: false
fleet: fleet.yaml
`

func newReleaseYard(t *testing.T, behave func(host, version string, nth int) gcetest.Behaviour) *releaseYard {
	t.Helper()
	y := &releaseYard{t: t, program: binary(t), dir: t.TempDir(), storage: buckettest.Start(t, "images")}
	var err error
	y.compute, err = gcetest.Start(gcetest.Options{
		Clock: gcetest.ScaledClock(yardScale), Latency: gcetest.Uniform(time.Second, 4*time.Second), ImageSource: gcetest.EmulatorSource(y.storage.URL),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.compute.Close(); err != nil {
			t.Error(err)
		}
		for _, v := range y.compute.Violations() {
			t.Error(v)
		}
	})
	y.hosts, err = y.compute.AddHosts(gcetest.HostSpec{
		Project: "prod-1", Zones: []string{"us-central1-a", "us-east1-b"}, Count: 6, Service: "svc",
		Labels: map[string]string{"role": "repl-host"}, Behave: behave,
	})
	if err != nil {
		t.Fatal(err)
	}
	build, err := filepath.Abs(exampleConfig)
	if err != nil {
		t.Fatal(err)
	}
	y.write("fleet.yaml", fmt.Sprintf(releaseFleetText, y.compute.URL()))
	y.write("release.yaml", fmt.Sprintf(releaseText, build))
	return y
}

func (y *releaseYard) write(name, text string) {
	y.t.Helper()
	if err := os.WriteFile(filepath.Join(y.dir, name), []byte(text), 0o666); err != nil {
		y.t.Fatal(err)
	}
}

// command is bigdisk release as a process.
func (y *releaseYard) command(args ...string) *exec.Cmd {
	return y.bigdisk(append([]string{"release", "--config", filepath.Join(y.dir, "release.yaml"), "--progress", "none",
		"--lease", "1s", "--report-interval", "200ms", "--look-interval", "300ms"}, args...)...)
}

// bigdisk is another command of bigdisk as a process.
func (y *releaseYard) bigdisk(args ...string) *exec.Cmd {
	cmd := exec.Command(y.program, args...)
	cmd.Env = append(os.Environ(), "STORAGE_EMULATOR_HOST="+y.storage.URL)
	return cmd
}

// run releases to the end.
func (y *releaseYard) run(args ...string) (result release.Result, stderr string) {
	y.t.Helper()
	var out, messages bytes.Buffer
	cmd := y.command(append([]string{"--json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		y.t.Fatalf("%v: %s%s", err, &messages, &out)
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		y.t.Fatalf("%v: %s", err, &out)
	}
	return result, messages.String()
}

// journal is what the journal says of the last run; nil while there is none.
func (y *releaseYard) journal() *release.Entry {
	y.t.Helper()
	data, err := os.ReadFile(filepath.Join(y.dir, "releases", "journal.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		y.t.Fatal(err)
	}
	j, err := release.Decode(data)
	if err != nil {
		y.t.Fatalf("the journal is not whole: %v", err)
	}
	return j.Runs[len(j.Runs)-1]
}

// wantOnce checks that everything was done once: an image, a disk in each zone,
// an attachment to each host, and that they run the version.
func (y *releaseYard) wantOnce(version string) {
	y.t.Helper()
	got := map[string]int{}
	for _, call := range y.compute.Mutations() {
		got[call.Method]++
	}
	if want := map[string]int{"images.insert": 1, "disks.insert": 2, "instances.attachDisk": 6}; fmt.Sprint(got) != fmt.Sprint(want) {
		y.t.Errorf("the mutations were %v, want %v", got, want)
	}
	for host, have := range y.hosts.Current() {
		if have != version {
			y.t.Errorf("%s runs %q", host, have)
		}
	}
	want := []string{"state/svc.json", "svc/" + version + "/disk.raw.tar.gz", "svc/" + version + "/manifest.json"}
	if objects := y.storage.Objects(y.t, "images"); len(objects) != len(want) || !slices.Equal(objects[1:], want[1:]) {
		y.t.Errorf("the bucket holds %q", objects)
	}
}

// TestReleaseKilled kills a release with SIGKILL inside each stage and after it.
// The next run goes on there: stages that were done stay as they were, to the
// image's inode, and everything is there once.
func TestReleaseKilled(t *testing.T) {
	for _, stage := range []string{release.StageBuild, release.StageVerify, release.StagePublish, release.StageRollout} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,after=%v", stage, after), func(t *testing.T) {
				t.Parallel()
				y := newReleaseYard(t, nil)
				before := y.kill(stage, after)
				image := filepath.Join(y.dir, "releases", before.Image)
				was, err := os.Stat(image)
				if builtBefore := !before.Stages[0].Done.IsZero(); builtBefore != (err == nil) && builtBefore {
					t.Fatal(err)
				}
				r, stderr := y.run()
				is, err := os.Stat(image)
				if err != nil {
					t.Fatal(err)
				}
				for i, s := range before.Stages {
					now := r.Run.Stages[i]
					// One that was killed in its last moment may have done everything.
					skipped := strings.Contains(stderr, "release: "+s.Name+": done at ") || r.Nothing
					if done := !s.Done.IsZero(); done != skipped || done && (now.Attempts != s.Attempts || !now.Done.Equal(s.Done)) {
						t.Errorf("stage %s was %+v, is %+v, said to be done: %v\n%s", s.Name, s, now, skipped, stderr)
					}
				}
				if !before.Stages[0].Done.IsZero() && (!os.SameFile(was, is) || !was.ModTime().Equal(is.ModTime())) {
					t.Error("the image was written again")
				}
				y.wantOnce(r.Run.Results.Publish.Version)
				changed := len(y.compute.Mutations())
				if again, _ := y.run(); !again.Nothing || again.Run.ID != r.Run.ID || len(y.compute.Mutations()) != changed {
					t.Errorf("once more: %+v", again)
				}
			})
		}
	}
}

// kill starts a release and kills it while it is in the stage, or as soon as the
// stage is done. It returns what is written down then.
func (y *releaseYard) kill(stage string, after bool) *release.Entry {
	y.t.Helper()
	cmd := y.command()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		y.t.Fatal(err)
	}
	reached := func() bool {
		e := y.journal()
		if e == nil {
			return false
		}
		i := slices.IndexFunc(e.Stages, func(s release.Stage) bool { return s.Name == stage })
		return after && !e.Stages[i].Done.IsZero() || !after && !e.Stages[i].Started.IsZero()
	}
	for end := time.Now().Add(2 * time.Minute); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			y.t.Fatalf("stage %s is not reached: %s", stage, &stderr)
		}
	}
	if stage == release.StageRollout && !after {
		time.Sleep(700 * time.Millisecond) // some hosts further
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		y.t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return y.journal()
}

// TestReleaseNext releases twice: the second image is built on the first, and is
// what a build from nothing is.
func TestReleaseNext(t *testing.T) {
	t.Parallel()
	y := newReleaseYard(t, nil)
	first, _ := y.run()
	y.wantOnce(first.Run.Results.Publish.Version)
	text := readBytes(t, filepath.Join(y.dir, "release.yaml"))
	y.write("release.yaml", string(text)+"format: squashfs\nkeep: 0\n")
	second, stderr := y.run("--version", "v2")
	if second.Run.Base != first.Run.Image || second.Run.Results.Publish.Version != "v2" || !strings.HasSuffix(second.Run.Image, ".sqsh") {
		t.Errorf("the second run is %+v: %s", second.Run, stderr)
	}
	for host, version := range y.hosts.Current() {
		if version != "v2" {
			t.Errorf("%s runs %q", host, version)
		}
	}
	want := []string{"journal.json", "release.lock", second.Run.Image, second.Run.Image + ".manifest.json"}
	if got := names(t, filepath.Join(y.dir, "releases")); !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
	if got, want := readBytes(t, filepath.Join(y.dir, "releases", second.Run.Image)), readBytes(t, buildExample(t)); !bytes.Equal(got, want) {
		t.Error("the image differs from one that is built alone")
	}
}

// TestReleasePaused: a rollout that pauses ends the release, with why and what to
// do; after that is done the release goes on.
func TestReleasePaused(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	sick := "" // the first host that gets the version, that time
	y := newReleaseYard(t, func(host, _ string, nth int) gcetest.Behaviour {
		mu.Lock()
		defer mu.Unlock()
		if sick == "" {
			sick = host
		}
		if sick == host && nth == 0 {
			return gcetest.Sick
		}
		return gcetest.Healthy
	})
	for range 2 { // paused is paused, however often it is tried
		out, err := y.command().CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitFailure {
			t.Fatalf("it ends with %v: %s", err, out)
		}
		for _, want := range []string{
			"bigdisk: rollout: the release stops here: the rollout is paused", sick + ": the host says: verify image: block 4711",
			"hint: look at bigdisk rollout status, then bigdisk rollout resume, and run bigdisk release --config ",
		} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("it does not say %q: %s", want, out)
			}
		}
	}
	if !y.hosts.Recreate(sick) {
		t.Fatalf("there is no host %q", sick)
	}
	for len(y.hosts.Current()) < 6 {
		time.Sleep(50 * time.Millisecond)
	}
	if out, err := y.bigdisk("rollout", "resume", "--config", filepath.Join(y.dir, "fleet.yaml")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, _ := y.run()
	for host, version := range y.hosts.Current() {
		if version != r.Run.Results.Publish.Version {
			t.Errorf("%s runs %q", host, version)
		}
	}
}

// TestUndone: what people ended while the release was at it is not begun again.
func TestUndone(t *testing.T) {
	past := func(version, kind, phase string) state.Past {
		return state.Past{ID: "p", Version: version, Kind: kind, Phase: phase, Ended: time.Now().Add(-time.Hour), Reason: "lacks python"} // by another clock
	}
	mark := past("v1", state.KindRollout, state.Done)
	mark.ID = "mark"
	for name, c := range map[string]struct {
		history []state.Past
		refused bool
	}{
		"nothing":      {nil, false},
		"before":       {[]state.Past{past("v2", state.KindRollout, state.Aborted), mark}, false},
		"aborted":      {[]state.Past{mark, past("v2", state.KindRollout, state.Aborted)}, true},
		"rolled back":  {[]state.Past{mark, past("v2", state.KindRollout, state.RolledBack), past("v1", state.KindRollback, state.Done)}, true},
		"another":      {[]state.Past{mark, past("v3", state.KindRollout, state.Aborted)}, false},
		"the rollback": {[]state.Past{mark, past("v2", state.KindRollback, state.Aborted)}, false},
		"long ago":     {[]state.Past{past("v2", state.KindRollout, state.Aborted)}, true}, // the mark is forgotten
	} {
		d := state.New("svc")
		d.History = c.history
		err := undone(d, "v2", "mark")
		if refused := err != nil; refused != c.refused {
			t.Errorf("%s: %v", name, err)
		}
		if c.refused && (!strings.Contains(err.Error(), "lacks python") || !strings.Contains(hintFor(err), "--abandon")) {
			t.Errorf("%s: %v, hint %s", name, err, hintFor(err))
		}
	}
}

// TestReleaseReadme runs the README's release, as it stands there but for where
// the configuration and the emulator's ports are.
func TestReleaseReadme(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	imagetest.Command(t, "cp", "-R", exampleDir, filepath.Join(dir, "example"))
	fleetFile := filepath.Join(dir, "example", "fleet.yaml")
	moved := strings.Replace(string(readBytes(t, fleetFile)), "127.0.0.1:4444", freeAddress(t), 1)
	if err := os.WriteFile(fleetFile, []byte(moved), 0o666); err != nil {
		t.Fatal(err)
	}
	const command = "go run ./cmd/emulator go run ./cmd/bigdisk release --config configs/example/release.yaml"
	if !strings.Contains(string(readBytes(t, "../../README.md")), "$ "+command+"\n") {
		t.Error("the README has another command")
	}
	text := strings.Replace(command, "./cmd/emulator", "./cmd/emulator --storage "+freeAddress(t)+" --config "+fleetFile, 1)
	text = strings.Replace(text, "configs/example/release.yaml", filepath.Join(dir, "example", "release.yaml"), 1)
	args := strings.Fields(text)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	for _, want := range []string{": released\nbuild: done in ", "\nverify: done in ", "\npublish: done in ", "\nrollout: done in ", "18 hosts, 0 failed"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("it does not print %q:\n%s", want, &stdout)
		}
	}
	if !strings.Contains(stderr.String(), "emulator: 18 hosts run ") || strings.Contains(stderr.String(), "a rule was broken") {
		t.Errorf("the emulator says\n%s", &stderr)
	}
}

// freeAddress is one that nobody listens on just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
