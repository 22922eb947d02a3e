package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/image"
	"bigdisk/image/atomicfile"
)

// world is what the stages of a test do: they count, and fail or die as they are
// told.
type world struct {
	t     *testing.T
	dir   string
	calls []string
	fail  map[string]error // by stage
	die   string           // a stage that panics when it has had its effect
	clock time.Time
	last  string // the version that publishing was told of

	mark, marked string // what was decided last, and what the rollout was told of that
}

// errKilled is what a process that dies panics with.
var errKilled = errors.New("killed")

func newWorld(t *testing.T) *world {
	return &world{t: t, dir: t.TempDir(), fail: map[string]error{}, clock: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (w *world) call(stage string) error {
	w.calls = append(w.calls, stage)
	return w.fail[stage]
}

func (w *world) after(stage string) {
	if w.die == stage {
		panic(errKilled)
	}
}

func (w *world) steps() Steps {
	return Steps{
		Check: func(context.Context) (*Checked, error) {
			defer w.after(StageCheck)
			return &Checked{Entries: 3}, w.call(StageCheck)
		},
		Build: func(_ context.Context, output, base string) (*Built, error) {
			defer w.after(StageBuild)
			if base != "" {
				if _, err := os.Stat(base); err != nil {
					w.t.Error(err)
				}
			}
			w.write(output)
			return &Built{Size: int64(len(output)), SHA256: "5a", Label: filepath.Base(base)}, w.call(StageBuild)
		},
		Verify: func(_ context.Context, image string) (*Verified, error) {
			defer w.after(StageVerify)
			if _, err := os.Stat(image); err != nil {
				w.t.Error(err)
			}
			return &Verified{}, w.call(StageVerify)
		},
		Publish: func(_ context.Context, image, last string) (*Published, error) {
			defer w.after(StagePublish)
			w.last = last
			return &Published{Version: "v-" + filepath.Base(image)}, w.call(StagePublish)
		},
		Mark: func(context.Context) (string, error) { return w.mark, w.fail["mark"] },
		Rollout: func(_ context.Context, version, mark string) (*RolledOut, error) {
			defer w.after(StageRollout)
			if !strings.HasPrefix(version, "v-svc-") {
				w.t.Errorf("rollout of %q", version)
			}
			w.marked = mark
			return &RolledOut{ID: "r"}, w.call(StageRollout)
		},
	}
}

// write makes an image and its manifest.
func (w *world) write(name string) {
	for _, n := range []string{name, image.ManifestName(name)} {
		if err := os.WriteFile(n, []byte(name), 0o666); err != nil {
			w.t.Fatal(err)
		}
	}
}

// options are those of a release of a lock file with this sum.
func (w *world) options(lock string) Options {
	return Options{
		Dir: w.dir, Service: "svc", Suffix: ".raw", BuildKey: strings.Repeat(lock, 12), UseBase: true, Keep: 1,
		Inputs: Inputs{Lock: lock, Build: "b", Fleet: "f", Stages: "s", Program: "p"}, Steps: w.steps(),
		Now: func() time.Time { w.clock = w.clock.Add(time.Second); return w.clock },
	}
}

// run releases, and tells whether it was killed meanwhile.
func (w *world) run(opts Options) (result *Result, err error, killed bool) {
	w.t.Helper()
	defer func() {
		if died := recover(); died != nil {
			if died != errKilled {
				panic(died)
			}
			killed = true
		}
	}()
	w.calls = nil
	result, err = Run(w.t.Context(), opts)
	return result, err, false
}

func (w *world) mustRun(opts Options) *Result {
	w.t.Helper()
	r, err, killed := w.run(opts)
	if err != nil || killed {
		w.t.Fatalf("%v, killed %v", err, killed)
	}
	return r
}

func (w *world) wantCalls(want ...string) {
	w.t.Helper()
	if !slices.Equal(w.calls, want) {
		w.t.Errorf("it did %q, want %q", w.calls, want)
	}
}

// wantImages checks which images are there, by their first letters.
func (w *world) wantImages(want ...string) {
	w.t.Helper()
	var got []string
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".raw"); ok {
			got = append(got, strings.TrimPrefix(name, "svc-")[:1])
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("there are images %q, want %q", got, want)
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t)
	r := w.mustRun(w.options("a"))
	w.wantCalls(stageNames...)
	if r.Nothing || r.Run.Outcome != Released || r.Run.Base != "" || r.Run.Image != "svc-aaaaaaaaaaaa.raw" {
		t.Errorf("the run is %+v", r.Run)
	}
	if again := w.mustRun(w.options("a")); !again.Nothing || again.Run.ID != r.Run.ID {
		t.Errorf("the same again is %+v", again)
	}
	w.wantCalls()

	r = w.mustRun(w.options("b"))
	if r.Run.Base != "svc-aaaaaaaaaaaa.raw" || r.Run.Results.Build.Label != r.Run.Base {
		t.Errorf("the base is %q", r.Run.Base)
	}
	w.wantImages("a", "b")
	if r = w.mustRun(w.options("c")); r.Run.Base != "svc-bbbbbbbbbbbb.raw" {
		t.Errorf("the base is %q", r.Run.Base)
	}
	w.wantImages("b", "c")

	opts := w.options("d")
	opts.UseBase, opts.Keep = false, 0
	if r = w.mustRun(opts); r.Run.Base != "" {
		t.Errorf("the base is %q", r.Run.Base)
	}
	w.wantImages("d")
}

// TestReuse: an image of the same inputs is not built again, whatever else
// changed, and stays as long as one release of it does.
func TestReuse(t *testing.T) {
	w := newWorld(t)
	w.mustRun(w.options("a"))
	opts := w.options("a")
	opts.Inputs.Fleet = "other"
	r := w.mustRun(opts)
	w.wantCalls(StageCheck, StageVerify, StagePublish, StageRollout)
	if r.Run.Results.Build.Reused == "" || r.Run.Base != "" {
		t.Errorf("it was built: %+v", r.Run)
	}
	w.mustRun(w.options("b"))
	w.mustRun(w.options("a")) // back again
	w.wantCalls(StageCheck, StageVerify, StagePublish, StageRollout)
	w.wantImages("a", "b")
	w.mustRun(w.options("c"))
	w.wantImages("a", "c")
}

// TestKilled kills a run in each stage after that had its effect, and before.
func TestKilled(t *testing.T) {
	for i, stage := range stageNames {
		t.Run(stage, func(t *testing.T) {
			w := newWorld(t)
			w.die = stage
			if _, _, killed := w.run(w.options("a")); !killed {
				t.Fatal("it lives")
			}
			w.wantCalls(stageNames[:i+1]...)
			w.die = ""
			r := w.mustRun(w.options("a"))
			w.wantCalls(stageNames[i:]...)
			if s := r.Run.stage(stage); s.Attempts != 2 || s.Seconds <= 0 {
				t.Errorf("the stage is %+v", s)
			}
			if r := w.mustRun(w.options("a")); !r.Nothing {
				t.Error("there is something left to do")
			}
		})
	}
}

// TestFails: a stage that fails ends the run with its error, and the next run
// goes on there.
func TestFails(t *testing.T) {
	for i, stage := range stageNames {
		w := newWorld(t)
		cause := errors.New("no luck")
		w.fail[stage] = cause
		r, err, _ := w.run(w.options("a"))
		if !errors.Is(err, cause) || !errors.Is(err, ErrStage) || !strings.HasPrefix(err.Error(), stage+": ") {
			t.Errorf("%s: %v", stage, err)
		}
		if s := r.Run.stage(stage); s.Error != "no luck" || !s.Done.IsZero() {
			t.Errorf("the stage is %+v", s)
		}
		if !strings.Contains(r.Run.Summary(), stage+": failed: no luck\n") {
			t.Errorf("the summary is\n%s", r.Run.Summary())
		}
		w.fail = nil
		w.mustRun(w.options("a"))
		w.wantCalls(stageNames[i:]...)
	}
}

// TestUnfinished: other inputs are an error until the run is abandoned, whose
// image then goes.
func TestUnfinished(t *testing.T) {
	w := newWorld(t)
	w.mustRun(w.options("a"))
	w.die = StagePublish
	w.run(w.options("b"))
	w.die = ""
	if err := os.WriteFile(atomicfile.TempName(filepath.Join(w.dir, "svc-bbbbbbbbbbbb.raw")), nil, 0o666); err != nil {
		t.Fatal(err)
	}

	other := w.options("c")
	other.Inputs.Program = "q"
	_, err, _ := w.run(other)
	if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "interrupted in stage publish: since then the lock file, bigdisk itself changed") {
		t.Errorf("other inputs: %v", err)
	}
	w.wantCalls()
	other.Abandon = true
	r := w.mustRun(other)
	w.wantCalls(stageNames...)
	w.wantImages("a", "c")
	if names, err := filepath.Glob(filepath.Join(w.dir, ".*")); err != nil || len(names) > 0 {
		t.Errorf("left is %q, %v", names, err)
	}
	if r.Run.Base != "svc-aaaaaaaaaaaa.raw" {
		t.Errorf("the base is %q", r.Run.Base)
	}
	w.mustRun(other) // with nothing to abandon
	w.wantCalls()
}

// TestImageGone: an image that is still needed is built again, one that is not
// needed is not.
func TestImageGone(t *testing.T) {
	for stage, want := range map[string][]string{
		StageVerify: {StageBuild, StageVerify, StagePublish, StageRollout}, StagePublish: {StageBuild, StageVerify, StagePublish, StageRollout},
		StageRollout: {StageRollout},
	} {
		w := newWorld(t)
		w.die = stage
		w.run(w.options("a"))
		w.die = ""
		if err := os.Remove(filepath.Join(w.dir, "svc-aaaaaaaaaaaa.raw")); err != nil {
			t.Fatal(err)
		}
		w.mustRun(w.options("a"))
		w.wantCalls(want...)
	}
}

// TestOnlyImageGone: where the image is all that a release makes, and it is gone,
// there is something to do; where it was published there is not.
func TestOnlyImageGone(t *testing.T) {
	for published, want := range map[bool][]string{true: nil, false: {StageBuild, StageVerify}} {
		w := newWorld(t)
		opts := w.options("a")
		if opts.Steps.Check = nil; !published {
			opts.Steps.Publish, opts.Steps.Rollout = nil, nil
		}
		w.mustRun(opts)
		if r := w.mustRun(opts); !r.Nothing {
			t.Errorf("published %t: the same again is %+v", published, r.Run)
		}
		if err := os.Remove(filepath.Join(w.dir, "svc-aaaaaaaaaaaa.raw")); err != nil {
			t.Fatal(err)
		}
		p, err := Plan(opts)
		if err != nil || p.Nothing != published {
			t.Errorf("published %t: the plan is %+v, %v", published, p, err)
		}
		r := w.mustRun(opts)
		w.wantCalls(want...)
		if r.Nothing != published {
			t.Errorf("published %t: %+v", published, r)
		}
	}
}

func TestBusy(t *testing.T) {
	w := newWorld(t)
	d, err := openDirectory(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err, _ := w.run(w.options("a")); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), w.dir) {
		t.Errorf("beside another run: %v", err)
	}
	d.close()
	w.mustRun(w.options("a"))
}

func TestPlan(t *testing.T) {
	w := newWorld(t)
	p, err := Plan(w.options("a"))
	if err != nil || p.Nothing || p.Image != "svc-aaaaaaaaaaaa.raw" || len(p.Run.Stages) != 5 {
		t.Errorf("%v: %+v", err, p)
	}
	if names, err := os.ReadDir(w.dir); err != nil || len(names) > 0 {
		t.Errorf("a plan left %v, %v", names, err)
	}
	w.mustRun(w.options("a"))
	w.mustRun(w.options("b"))
	p, err = Plan(w.options("c"))
	if err != nil || p.Base != "svc-bbbbbbbbbbbb.raw" || !slices.Equal(p.Remove, []string{"svc-aaaaaaaaaaaa.raw"}) {
		t.Errorf("%v: %+v", err, p)
	}
	if p, err = Plan(w.options("b")); err != nil || !p.Nothing {
		t.Errorf("%v: %+v", err, p)
	}
	w.wantImages("a", "b")
}

// TestStages: those without a function are left out.
func TestStages(t *testing.T) {
	w := newWorld(t)
	opts := w.options("a")
	opts.Steps.Check, opts.Steps.Verify, opts.Steps.Publish, opts.Steps.Rollout = nil, nil, nil, nil
	w.mustRun(opts)
	w.wantCalls(StageBuild)
	opts.Steps = w.steps()
	opts.Steps.Publish = nil
	if _, err, _ := w.run(opts); err == nil {
		t.Error("it rolls out what is not published")
	}
}

// TestMarks: publishing is told of the last release, and a rollout of what had
// been decided when the run first came to it, however often it is continued.
func TestMarks(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		lock, mark   string
		fail         string
		last, marked string
	}{
		{"a", "", StageRollout, "", noMark},
		{"a", "1", "", "", noMark},
		{"b", "2", "mark", "v-svc-aaaaaaaaaaaa.raw", noMark}, // as it was
		{"b", "3", StageRollout, "v-svc-aaaaaaaaaaaa.raw", "3"},
		{"b", "4", StageRollout, "v-svc-aaaaaaaaaaaa.raw", "3"},
		{"b", "5", "", "v-svc-aaaaaaaaaaaa.raw", "3"},
		{"c", "6", "", "v-svc-bbbbbbbbbbbb.raw", "6"},
	} {
		w.mark, w.fail = step.mark, map[string]error{step.fail: errors.New("no")}
		if _, err, _ := w.run(w.options(step.lock)); (err != nil) != (step.fail != "") {
			t.Errorf("%+v: %v", step, err)
		}
		if w.last != step.last || w.marked != step.marked {
			t.Errorf("%+v: publishing was told of %q, the rollout of %q", step, w.last, w.marked)
		}
	}
}

// TestManyRuns: the journal does not grow for ever.
func TestManyRuns(t *testing.T) {
	w := newWorld(t)
	for i := range MaxRuns + 20 {
		w.mustRun(w.options(string(rune('a' + i%26))))
	}
	j, err := readJournal(w.dir, "svc")
	if err != nil || len(j.Runs) > MaxRuns+2 {
		t.Errorf("%d runs, %v", len(j.Runs), err)
	}
	if _, err := readJournal(w.dir, "another"); err == nil || !strings.Contains(err.Error(), "service svc") {
		t.Errorf("the journal of another service: %v", err)
	}
}

func TestDecode(t *testing.T) {
	whole := `{"schema":1,"service":"s","runs":[{"id":"r","inputs":{"build":"b","stages":"s","program":"p"},"image":"s-1.raw","started":"2025-01-01T00:00:00Z",
		"stages":[{"name":"build"},{"name":"publish"}],"results":{}}]}`
	if _, err := Decode([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"schema":1`, `"schema":2`}, {`"id"`, `"di"`}, {"s-1.raw", "../s-1.raw"}, {"s-1.raw", "/etc/passwd"}, {"s-1.raw", ""},
		{`"name":"build"`, `"name":"publish"`}, {`"name":"publish"`, `"name":"rollout"`}, {`"name":"build"`, `"name":"build","done":"2025-01-01T00:00:00Z"`},
		{`"started"`, `"base":"..","started"`}, {`"started"`, `"outcome":"lost","started"`}, {`]}`, `,null]}`}, {`]}`, `]} {}`}, {`"stages":[`, `"stages":[{"name":"dance"},`},
	} {
		if _, err := Decode([]byte(strings.Replace(whole, change[0], change[1], 1))); err == nil || !errors.Is(err, ErrJournal) && change[0] != `"schema":1` {
			t.Errorf("with %s for %s: %v", change[1], change[0], err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schema":1,"service":"s","runs":[]}`))
	f.Add([]byte(`{"schema":1,"service":"s","runs":[{"id":"r","inputs":{"build":"b","stages":"s","program":"p"},"image":"s-1.raw","started":"2025-01-01T00:00:00Z",
		"stages":[{"name":"build","started":"2025-01-01T00:00:00Z","attempts":1,"done":"2025-01-01T00:00:01Z"}],"results":{"build":{"size":1}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := Decode(data)
		if err != nil {
			return
		}
		for _, e := range j.Runs {
			_ = e.Summary() + e.state()
			if strings.ContainsAny(e.Image+e.Base, "/\x00") {
				t.Errorf("image %q, base %q", e.Image, e.Base)
			}
		}
		_ = j.surplus(1)
		out, err := j.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(out); err != nil {
			t.Errorf("what it writes it does not read: %v", err)
		}
	})
}

func ExampleRun() {
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	opts := Options{
		Dir: dir, Service: "nixmodules", Suffix: ".raw", BuildKey: "0123456789abcdef", Inputs: Inputs{Build: "0123456789abcdef"},
		Steps: Steps{Build: func(_ context.Context, output, _ string) (*Built, error) {
			return &Built{Format: "ext4", Size: 3 << 20, SHA256: "5a5a"}, os.WriteFile(output, []byte("an image"), 0o644)
		}},
	}
	for range 2 {
		r, err := Run(context.Background(), opts)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.Run.Image, r.Run.Results.Build, r.Nothing)
	}
	// Output:
	// nixmodules-0123456789ab.raw ext4, 3.0 MiB, 0 modules, 0 store paths, sha256 5a5a false
	// nixmodules-0123456789ab.raw ext4, 3.0 MiB, 0 modules, 0 store paths, sha256 5a5a true
}
