package configs

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"github.com/rhysd/actionlint"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

// TestGitHubWorkflow has actionlint read the workflow, which knows the syntax,
// the types of expressions and the inputs of the actions.
func TestGitHubWorkflow(t *testing.T) {
	text := read(t, "github/release.yml")
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	problems, err := linter.Lint("release.yml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%d:%d: %s", p.Line, p.Column, p.Message)
	}
	workflow, broken := actionlint.Parse(text)
	if len(broken) > 0 {
		t.Fatal(broken[0])
	}
	if runs := runsOf(workflow.Jobs["release"]); !slices.ContainsFunc(runs, func(run string) bool { return strings.HasPrefix(run, "bigdisk release --config ") }) {
		t.Errorf("it runs %q", runs)
	}
	// What the linter is worth: it finds a misspelt input.
	bad := strings.Replace(string(text), "fetch-depth", "fetch-deep", 1)
	if problems, err := linter.Lint("release.yml", []byte(bad), nil); err != nil || len(problems) == 0 {
		t.Errorf("a misspelt input is taken: %v", err)
	}
}

// runsOf are the scripts of a job.
func runsOf(job *actionlint.Job) (runs []string) {
	for _, s := range job.Steps {
		if run, ok := s.Exec.(*actionlint.ExecRun); ok {
			runs = append(runs, run.Run.Value)
		}
	}
	return runs
}

// TestCloudBuild reads the build as the service does.
func TestCloudBuild(t *testing.T) {
	data, err := yaml.YAMLToJSONStrict(read(t, "cloud-build/cloudbuild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var build cloudbuildpb.Build
	if err := protojson.Unmarshal(data, &build); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range build.Steps {
		ids = append(ids, s.Id)
		for _, part := range strings.Split(s.Name+strings.Join(s.Args, " "), "${")[1:] {
			name, _, _ := strings.Cut(part, "}")
			if _, ok := build.Substitutions[name]; !ok {
				t.Errorf("step %s uses %s, which is not among the substitutions", s.Id, name)
			}
		}
	}
	if want := []string{"history", "fetch", "release", "keep"}; !slices.Equal(ids, want) {
		t.Errorf("the steps are %q, want %q", ids, want)
	}
	if args := strings.Join(build.Steps[2].Args, " "); !strings.Contains(args, "bigdisk release --config release.yaml") {
		t.Errorf("it runs %q", args)
	}
}

// TestDockerfile: it builds with this module's Go, the program that there is, and
// what it leaves in the image is what the jobs call.
func TestDockerfile(t *testing.T) {
	text := string(read(t, "Dockerfile"))
	module := string(read(t, "../go.mod"))
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(module)
	if version == nil || !strings.Contains(text, "FROM golang:"+version[1]+"-") {
		t.Errorf("it does not build with the Go of go.mod, %q", version)
	}
	build := regexp.MustCompile(`go build .*-o (/\S+/) (.*)\n`).FindStringSubmatch(text)
	if build == nil {
		t.Fatal("it builds nothing")
	}
	programs := strings.Fields(build[2])
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join("..", p, "main.go")); err != nil {
			t.Error(err)
		}
	}
	if !slices.Contains(programs, "./cmd/bigdisk") {
		t.Errorf("it builds %q, and not the program that the jobs call", programs)
	}
	if !strings.Contains(text, "COPY --from=build "+build[1]+" /usr/local/bin/\nENTRYPOINT [\"/usr/local/bin/bigdisk\"]") {
		t.Errorf("it leaves %s nowhere that it is looked for", build[1])
	}
}
