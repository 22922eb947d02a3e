package environment_test

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/environment"
	"bigdisk/bundle/store"
)

const (
	aPath     = store.Path("/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19")
	otherPath = store.Path("/nix/store/1vrlhhzyjkizcqkjycb6x4a0g7vw0imq-replit-module-bun-0.6")
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		module string
		want   environment.Env // nil is for an error with says in it
		says   string
	}{
		"some":         {`{"id": "go", "env": {"PATH": "/a:/b", "GOROOT": "/go"}}`, environment.Env{"PATH": "/a:/b", "GOROOT": "/go"}, ""},
		"odd":          {`{"env": {"a b": "\"$x'\n", "ü": ""}}`, environment.Env{"a b": "\"$x'\n", "ü": ""}, ""},
		"another case": {`{"Env": {"PATH": "/a"}, "ENV": 1}`, environment.Env{}, ""},
		"without":      {`{"id": "go"}`, environment.Env{}, ""},
		"empty":        {`{"env": {}}`, environment.Env{}, ""},
		"null":         {`{"env": null}`, environment.Env{}, ""},
		"twice":        {`{"env": {"A": "1", "A": "2"}}`, environment.Env{"A": "2"}, ""},
		"a script":     {"#!/bin/sh\n", nil, "not a JSON object"},
		"a list":       {`[]`, nil, "not a JSON object"},
		"nothing":      {``, nil, "not a JSON object"},
		"null alone":   {`null`, nil, "not a JSON object"},
		"list":         {`{"env": ["A=1"]}`, nil, "env is not a JSON object"},
		"number":       {`{"env": {"A": 1}}`, nil, `"A", which is not text`},
		"no value":     {`{"env": {"A": null}}`, nil, `"A", which is not text`},
		"no name":      {`{"env": {"": "1"}}`, nil, `"" cannot be the name`},
		"equals sign":  {`{"env": {"A=B": "1"}}`, nil, `"A=B" cannot be the name`},
		"zero byte":    {`{"env": {"A": "x\u0000"}}`, nil, "zero byte"},
		"zero in name": {`{"env": {"A\u0000": "x"}}`, nil, "cannot be the name"},
		"not UTF-8":    {"{\"env\": {\"A\": \"\xff\"}}", nil, "not UTF-8"},
		"half a pair":  {`{"env": {"A": "\ud800"}}`, nil, `"A", which is not text`},
		"a whole pair": {`{"env": {"A": "\ud83d\ude00"}}`, environment.Env{"A": "😀"}, ""},
		"replacement":  {`{"env": {"A": "�", "B": "\uFFFD"}}`, environment.Env{"A": "�", "B": "�"}, ""},
		"longest":      {`{"env": {"A": "` + strings.Repeat("x", environment.MaxVariable-3) + `"}}`, environment.Env{"A": strings.Repeat("x", environment.MaxVariable-3)}, ""},
		"too long":     {`{"env": {"A": "` + strings.Repeat("x", environment.MaxVariable-2) + `"}}`, nil, `"A" is longer`},
		"large":        {`{"env": {"A": "` + strings.Repeat("x", 100_000) + `", "B": "` + strings.Repeat("x", 100_000) + `", "C": "` + strings.Repeat("x", 100_000) + `"}}`, nil, "over 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := environment.Parse([]byte(c.module))
			if c.want == nil {
				if !errors.Is(err, environment.ErrNone) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %q", err, c.says)
				}
				return
			}
			if err != nil || !maps.Equal(got, c.want) {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestFile(t *testing.T) {
	module := []byte(`{"env": {"PATH": "/a/bin", "HTML": "<&>"}}`)
	text, err := environment.New(aPath, module).Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19",
  "sha256": "e2e91cdb50b10c4183696d7af4ced865c08c43e9a00a98c70a75f98b60e9908b",
  "env": {
    "HTML": "<&>",
    "PATH": "/a/bin"
  }
}
`
	if string(text) != want {
		t.Errorf("the file is\n%s, want\n%s", text, want)
	}
	f, err := environment.Decode(text)
	if err != nil || f.Env["PATH"] != "/a/bin" {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := f.Check(aPath, module); err != nil {
		t.Error(err)
	}
	if err := f.Check(otherPath, module); !errors.Is(err, environment.ErrStale) || !strings.Contains(err.Error(), string(otherPath)) {
		t.Errorf("made from another path: %v", err)
	}
	if err := f.Check(aPath, append(module, ' ')); !errors.Is(err, environment.ErrStale) {
		t.Errorf("made from another content: %v", err)
	}
	for _, bad := range []*environment.File{environment.New(aPath, []byte("x")), environment.NoFile(aPath)} {
		text, err := bad.Encode()
		if err != nil {
			t.Fatal(err)
		}
		f, err := environment.Decode(text)
		if err != nil || f.Env != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := f.Check(aPath, []byte("x")); !errors.Is(err, environment.ErrNone) || !strings.Contains(err.Error(), "no environment: the module is not a") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, damage := range [][2]string{{"/a/bin", "/b/bin"}, {"HTML", "HTMX"}, {`"HTML": "<&>",`, ""}, {`"env"`, `"eNw"`}} {
		f, err := environment.Decode([]byte(strings.Replace(want, damage[0], damage[1], 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Check(aPath, module); !errors.Is(err, environment.ErrStale) {
			t.Errorf("%s for %s: %v", damage[1], damage[0], err)
		}
	}
	for _, text := range []string{"", "[]", "{}", want + "{}", `{"path": "/etc"}`, `{"path": "` + string(aPath) + `", "env": {"A": 1}}`, strings.Repeat(" ", environment.MaxFile+1)} {
		if f, err := environment.Decode([]byte(text)); err == nil {
			t.Errorf("%.60q is %+v", text, f)
		}
	}
}

// TestShell lets real shells read what is written for them.
func TestShell(t *testing.T) {
	env := environment.Env{
		"PATH": "/nix/store/x/bin", "A": "it's $HOME `id` \"x\" \\ !x #", "B": "a\nb\n", "C": "", "D": "  *  ~ ; exit 3", "E": "'", "_f9": "ü\t",
		"F": "$(exit 3)${HOME}`exit 3`", "G": "\r\n\\\n'\\''\"'", "H": "日本 🎉 \u2028", "I": "\x01\x1b[31m\x7f", "ZLAST": "-n",
		"a-b": "1", "9x": "1", "$(id)": "1", "x\ny": "1", "ü": "1", "OPTIND": "x", "UID": "x", "EUID": "x", "PPID": "x", "SHELLOPTS": "x", "BASHOPTS": "x", "BASH_VERSINFO": "x",
	}
	commands, skipped := env.Shell("PATH")
	if want := []string{"$(id)", "9x", "BASHOPTS", "BASH_VERSINFO", "EUID", "OPTIND", "PPID", "SHELLOPTS", "UID", "a-b", "x\ny", "ü"}; !slices.Equal(skipped, want) {
		t.Errorf("left out %q, want %q", skipped, want)
	}
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"bash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			continue
		}
		cmd := exec.Command(shell[0], append(shell[1:], "-euc", `PATH=/bin:/usr/bin; eval "$1"; /usr/bin/env -0`, "shell", string(commands))...)
		cmd.Env = []string{"B=old"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", shell, err)
		}
		got := make(map[string]string)
		for _, pair := range strings.Split(string(out), "\x00") {
			name, value, _ := strings.Cut(pair, "=")
			got[name] = value
		}
		for name, want := range env {
			if slices.Contains(skipped, name) {
				continue
			}
			if name == "PATH" {
				want += ":/bin:/usr/bin"
			}
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", shell, name, got[name], want)
			}
		}
	}
	commands, _ = env.Shell()
	cmd := exec.Command("sh", "-c", `eval "$1"; echo "$PATH"`, "sh", string(commands))
	if out, err := cmd.Output(); err != nil || string(out) != "/nix/store/x/bin\n" {
		t.Errorf("PATH is %q, %v", out, err)
	}
}

// TestLongest starts a program with the longest variable that there may be.
func TestLongest(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "echo ${#A}")
	cmd.Env = []string{"A=" + strings.Repeat("x", environment.MaxVariable-len("A=")-1)}
	if out, err := cmd.Output(); err != nil || string(out) != fmt.Sprintln(environment.MaxVariable-3) {
		t.Errorf("%s, %v", out, err)
	}
}

// FuzzEnvironment holds what modules say against what shells are told: whatever
// is in it, it comes back as it was, and nothing of it is run.
func FuzzEnvironment(f *testing.F) {
	f.Add([]byte(`{"env": {"PATH": "/a:/b", "X": "it's"}}`))
	f.Add([]byte(`{"env": {"a b": "\n", "": "1"}}`))
	f.Fuzz(func(t *testing.T, module []byte) {
		file := environment.New(aPath, module)
		text, err := file.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := environment.Decode(text)
		if err != nil || !maps.Equal(again.Env, file.Env) || again.Problem != file.Problem || (again.Env == nil) != (file.Env == nil) {
			t.Fatalf("%s is %+v, %v", text, again, err)
		}
		if err := again.Check(aPath, module); (err == nil) != (file.Env != nil) || err != nil && !errors.Is(err, environment.ErrNone) {
			t.Fatalf("%s: %v", text, err)
		}
		commands, skipped := file.Env.Shell()
		left := string(commands)
		for _, name := range slices.Sorted(maps.Keys(file.Env)) {
			rest, ok := strings.CutPrefix(left, "export "+name+"='")
			if ok == slices.Contains(skipped, name) {
				t.Fatalf("%q, without %q, has %q: %v", commands, skipped, name, ok)
			}
			if ok {
				left = rest
				for {
					i := strings.IndexByte(left, '\'')
					if i < 0 {
						t.Fatalf("%q: a quote is open", commands)
					}
					left = left[i+1:]
					if escaped, ok := strings.CutPrefix(left, `\''`); ok {
						left = escaped
						continue
					}
					break
				}
				if left, ok = strings.CutPrefix(left, "\n"); !ok {
					t.Fatalf("%q: something follows the value of %s", commands, name)
				}
			}
		}
		if left != "" {
			t.Fatalf("%q ends with %q", commands, left)
		}
	})
}

func Example() {
	file := environment.New(aPath, []byte(`{"id": "go-1.19", "env": {"PATH": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go/bin", "NOTE": "it's"}}`))
	commands, _ := file.Env.Shell("PATH")
	fmt.Printf("%s", commands)
	// Output:
	// export NOTE='it'\''s'
	// export PATH='/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-go/bin'"${PATH:+:$PATH}"
}
