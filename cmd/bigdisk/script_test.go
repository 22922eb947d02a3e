package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// exampleDir is the example's directory, as tests see it.
const exampleDir = "../../configs/example"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bigdisk": main})
}

// TestScripts runs the promises in testdata: one file a topic, in-process.
func TestScripts(t *testing.T) {
	example, err := filepath.Abs(exampleDir)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLE", example)
			env.Setenv("TMPDIR", env.Getenv("WORK")+"/.tmp")
			return nil
		},
		Condition: condition,
		Cmds:      scriptCommands(),
	})
}

// scriptCommands are those that scripts have besides testscript's own.
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"status":    scriptStatus,
		"jsonlines": scriptJSONLines,
		"samejson":  scriptJSONField,
		"onlyfiles": scriptOnlyFiles,
	}
}

// scriptStatus is "status N command…": the command must exit with N.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command args…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// condition answers [need:TOOL]: whether the tool is installed. In CI it has to
// be.
func condition(cond string) (bool, error) {
	tool, ok := strings.CutPrefix(cond, "need:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := exec.LookPath(tool)
	if err != nil && os.Getenv("CI") == "true" {
		return false, err
	}
	return err == nil, nil
}

// scriptJSONLines is "jsonlines stdout|stderr KEY…": every line is a JSON
// object that has all the keys, and there is at least one.
func scriptJSONLines(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.TrimSpace(ts.ReadFile(args[0]))
	if text == "" {
		ts.Fatalf("%s is empty", args[0])
	}
	for _, line := range strings.Split(text, "\n") {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("%q: %v", line, err)
		}
		for _, key := range args[1:] {
			if _, ok := object[key]; !ok {
				ts.Fatalf("%q has no %q", line, key)
			}
		}
	}
}

// scriptJSONField is "samejson FILE PATH VALUE": the field at the dotted path
// of a JSON file, printed as JSON, is VALUE.
func scriptJSONField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: samejson FILE PATH VALUE")
	}
	var at any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &at))
	for _, key := range strings.Split(args[1], ".") {
		switch node := at.(type) {
		case map[string]any:
			at = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(node) {
				ts.Fatalf("%s: no element %s", args[1], key)
			}
			at = node[i]
		default:
			at = nil
		}
	}
	got, err := json.Marshal(at)
	ts.Check(err)
	if same := string(got) == args[2]; same == neg {
		ts.Fatalf("%s in %s is %s, and %s was given", args[1], args[0], got, args[2])
	}
}

// scriptOnlyFiles is "onlyfiles DIR NAME…": the directory holds these names and
// nothing else, hidden or not.
func scriptOnlyFiles(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), strings.Join(args[1:], " "); got != want {
		ts.Fatalf("%s holds [%s], want [%s]", args[0], got, want)
	}
}
