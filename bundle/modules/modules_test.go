package modules_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/store"
)

// locked is a lock file of versions "ID:vN", all of one commit.
func locked(t testing.TB, versions ...string) *lock.File {
	t.Helper()
	f := new(lock.File)
	for i, v := range versions {
		id, tag, err := lock.ParseKey(v + "-20240301-0000000")
		if err != nil {
			t.Fatal(err)
		}
		f.Entries = append(f.Entries, lock.Entry{ID: id, Tag: tag, Path: store.Path(fmt.Sprintf("%s/%032d-m", store.Dir, i)), Line: i})
	}
	return f
}

// full completes versions in a text: "a:v1" to "a:v1-20240301-0000000".
func full(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		n := 0
		if strings.HasPrefix(text[i:], ":v") {
			for n = 2; i+n < len(text) && '0' <= text[i+n] && text[i+n] <= '9'; n++ {
			}
		}
		if n > 2 {
			b.WriteString(text[i:i+n] + "-20240301-0000000")
			i += n
			continue
		}
		b.WriteByte(text[i])
		i++
	}
	return b.String()
}

// flat shows a map in one line.
func flat(m map[string]modules.Upgrade) string {
	var lines []string
	for from, u := range m {
		line := from + ">" + u.To
		if u.Changelog != "" {
			line += "(" + u.Changelog + ")"
		}
		lines = append(lines, strings.ReplaceAll(line, "-20240301-0000000", ""))
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

func TestMaps(t *testing.T) {
	f := locked(t, "a:v1", "a:v2", "a:v3", "b:v1", "b:v10", "b:v9", "c:v1")
	for name, c := range map[string]struct{ mapping, auto, recommend string }{
		"nothing":                              {"", "", ""},
		"empty":                                {"{}", "", ""},
		"json":                                 {`{"a:v1": {"to": "a:v2", "auto": true}, "a:v2": {"to": "b:v1", "auto": false, "changelog": "b \u0026 \"more\""}}`, "a:v1>a:v2", `a:v2>b:v1(b & "more")`},
		"yaml":                                 {"\"a:v1\": {to: \"a:v2\", auto: true}\n# why\n'a:v2':\n  to: b:v1\n  changelog: |\n    one\n    two\n", "a:v1>a:v2", "a:v2>b:v1(one\ntwo\n)"},
		"linear":                               {"linear: b", "b:v1>b:v9 b:v9>b:v10", ""},
		"linears":                              {"linear: [b, c, a]", "a:v1>a:v2 a:v2>a:v3 b:v1>b:v9 b:v9>b:v10", ""},
		"step":                                 {`{"step": ["a:v1", "c:v1", "b:v1"]}`, "a:v1>c:v1 c:v1>b:v1", ""},
		"steps":                                {"step:\n- [a:v1, a:v3]\n- [b:v1, b:v10]\n", "a:v1>a:v3 b:v1>b:v10", ""},
		"short step":                           {"step: [a:v1]", "", ""},
		"list":                                 {"- step: [a:v1, a:v3]\n- step: [a:v3, b:v1]\n- \"b:v1\": {to: c:v1}\n- linear: c", "a:v1>a:v3 a:v3>b:v1", "b:v1>c:v1"},
		"written":                              {"linear: a\n\"a:v2\": {to: \"a:v3\", auto: true, changelog: \"better\"}", "a:v1>a:v2 a:v2>a:v3(better)", ""},
		"reverted":                             {"step: [a:v1, a:v3]\n\"a:v2\": {to: a:v1, auto: true}", "a:v1>a:v3 a:v2>a:v1", ""},
		"alias":                                {"old: {to: a:v1, auto: true}\nolder: {to: old, auto: true}\nlinear: a", "a:v1>a:v2 a:v2>a:v3 old>a:v1 older>old", ""},
		"same twice":                           {"linear: [a, a]\nstep: [a:v1, a:v2]", "a:v1>a:v2 a:v2>a:v3", ""},
		"a module called linear, another step": {"linear: {to: a:v1}\nstep: {to: a:v1}", "", "linear>a:v1 step>a:v1"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := modules.ParseMapping([]byte(full(c.mapping)))
			if err != nil {
				t.Fatal(err)
			}
			maps, err := m.Maps(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := flat(maps.Auto); got != c.auto {
				t.Errorf("auto: %s, want %s", got, c.auto)
			}
			if got := flat(maps.Recommend); got != c.recommend {
				t.Errorf("recommend: %s, want %s", got, c.recommend)
			}
			for _, upgrades := range []map[string]modules.Upgrade{maps.Auto, maps.Recommend} {
				text, err := modules.Encode(upgrades)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := modules.ParseMap(text); err != nil || !reflect.DeepEqual(again, upgrades) {
					t.Errorf("%v read again is %v, %v", upgrades, again, err)
				}
			}
		})
	}
}

func TestMapsRefuse(t *testing.T) {
	f := locked(t, "a:v1", "a:v2", "a:v3", "b:v1")
	for name, c := range map[string]struct {
		mapping, says string
		is            error
	}{
		"unknown from":   {"\n\"a:v9\": {to: a:v1}", "line 2: a:v9 is not in the lock file", modules.ErrUnknown},
		"unknown to":     {`"a:v1": {to: c:v1}`, "a:v1 is upgraded to c:v1, which is not in the lock file", modules.ErrUnknown},
		"unknown linear": {"linear: c", `module "c" is not in the lock file`, modules.ErrUnknown},
		"unknown step":   {"step: [a:v1, a:v7]", "which is not in the lock file", modules.ErrUnknown},
		"nowhere":        {"old: {to: older, auto: true}", "old is upgraded to older, which ends there", modules.ErrUnknown},
		"not auto":       {"old: {to: older, auto: true}\nolder: {to: a:v1}", "line 1: old is upgraded automatically to older, which ends there", modules.ErrUnknown},
		"itself":         {`"a:v1": {to: a:v1, auto: true}`, "circle: a:v1 → a:v1", modules.ErrCycle},
		"circle":         {"step: [a:v1, a:v2, a:v3, a:v1]", "circle: a:v1 → a:v2 → a:v3 → a:v1", modules.ErrCycle},
		"mixed circle":   {"\"b:v1\": {to: a:v1}\nlinear: a\n\"a:v3\": {to: a:v2}", "circle: a:v2 → a:v3 → a:v2", modules.ErrCycle},
		"disagree":       {"linear: a\nstep: [a:v1, a:v3]", "line 2: a:v1 is upgraded to a:v3 here, and to a:v2 in line 1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := modules.ParseMapping([]byte(full(c.mapping)))
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Maps(f)
			if err == nil || !strings.Contains(err.Error(), full(c.says)) || !errors.Is(err, modules.ErrMapping) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, want %q", err, full(c.says))
			}
		})
	}
}

func TestParseMappingRefuses(t *testing.T) {
	for name, c := range map[string]struct{ mapping, says string }{
		"text":           {"hello", "not text"},
		"number":         {"7", "something else"},
		"not an object":  {"a: b", "{to: VERSION, auto: BOOL, changelog: TEXT} is wanted, not text"},
		"no to":          {"\n\na: {auto: true}", `line 3: "a": it does not say to what`},
		"auto":           {`{"a": {"to": "b", "auto": 1}}`, "auto has to be true or false, not something else"},
		"to":             {`{"a": {"to": ["b"]}}`, "to has to be text, not a list"},
		"field":          {"a: {to: b, form: c}", `unknown field "form"`},
		"key":            {"a b: {to: b}", "module ID"},
		"tag":            {"\"a:v0-20240301-0000000\": {to: b}", "tag"},
		"to what":        {"a: {to: \"b:1\"}", "to: malformed lock file"},
		"twice":          {"{\"a\": {\"to\": \"b\"},\n\"a\": {\"to\": \"c\"}}", `line 2: "a" comes twice`},
		"twice in yaml":  {"a: {to: b}\na: {to: c}", "a"},
		"twice in parts": {"- a: {to: b}\n- a: {to: c}", `line 2: "a" comes twice`},
		"linear":         {"linear: [[a]]", "a name is wanted, not a list"},
		"linear version": {"linear: \"a:v1-20240301-0000000\"", "module ID"},
		"linear number":  {"linear: 7", "names are wanted"},
		"step":           {"step: [a, {b: c}]", "a name is wanted, not a mapping"},
		"steps":          {"step: [[a], b]", "side by side"},
		"alias":          {"a: &x {to: b}\nb: *x", "something else"},
		"documents":      {"a: {to: b}\n---\nb: {to: c}", "more than one"},
		"syntax":         {"a: {to: b", ""},
		"deep":           {strings.Repeat("[", 100) + strings.Repeat("]", 100), "too deep"},
		"deep yaml":      {"- # yaml\n" + strings.Repeat("  ", 1) + strings.Repeat("- ", 100) + "a", "too deep"},
		"null":           {"a: ~", "something else"},
		"open":           {strings.Repeat("{a: ", 4000), "more than 32 brackets are open: write it as JSON"},
		"line":           {"a: " + strings.Repeat("x", 20_000), "a line of more than 16384 bytes"},
		"size":           {strings.Repeat("# x\n", 300_000), "write it as JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := modules.ParseMapping([]byte(c.mapping))
			if !errors.Is(err, modules.ErrMapping) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
	for _, text := range []string{"", "[]", "a: b", "a: {to: b}", `{"a:1": {"to": "b"}}`, `{"a": {}}`, `{"a": {"to": "b"}} {}`} {
		if m, err := modules.ParseMap([]byte(text)); !errors.Is(err, modules.ErrMapping) {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
}

func TestResolve(t *testing.T) {
	f := locked(t, "a:v1", "a:v2", "a:v3", "b:v1", "b:v2", "c:v1")
	m, err := modules.ParseMapping([]byte(full("old: {to: a:v1, auto: true}\nlinear: [a, b]\n\"a:v3\": {to: b:v1, changelog: \"use b\"}")))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := m.Maps(f)
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"old":  "old>a:v1>a:v2>a:v3 then a:v3>b:v1>b:v2",
		"a:v2": "a:v2>a:v3 then a:v3>b:v1>b:v2",
		"a":    "a:v3 then a:v3>b:v1>b:v2",
		"b:v2": "b:v2",
		"b":    "b:v2",
		"c":    "c:v1",
	} {
		r, err := maps.Resolve(f, full(asked))
		if err != nil {
			t.Errorf("%s: %v", asked, err)
			continue
		}
		got := chain(r.Auto, r.Version.ID)
		if r.Recommended != nil {
			got += " then " + chain(r.Recommend, r.Recommended.ID)
		}
		if got != full(want) || r.Version.Path == "" {
			t.Errorf("%s: %s, want %s", asked, got, want)
		}
	}
	for _, asked := range []string{"none", full("a:v9"), "a b"} {
		if r, err := maps.Resolve(f, asked); err == nil {
			t.Errorf("%s: %v", asked, r)
		}
	}
	bad := &modules.Maps{Auto: map[string]modules.Upgrade{full("a:v1"): {To: full("a:v2")}, full("a:v2"): {To: full("a:v1")}, full("a:v3"): {To: "x"}}}
	if _, err := bad.Resolve(f, full("a:v1")); !errors.Is(err, modules.ErrCycle) || !strings.Contains(err.Error(), full("a:v1 → a:v2 → a:v1")) {
		t.Errorf("%v", err)
	}
	if _, err := bad.Resolve(f, full("a:v3")); !errors.Is(err, modules.ErrUnknown) || !strings.Contains(err.Error(), full("a:v3 is upgraded to x, which is not in the lock file")) {
		t.Errorf("%v", err)
	}
}

func chain(steps []modules.Step, end string) string {
	var names []string
	for _, s := range steps {
		names = append(names, s.From)
	}
	return strings.Join(append(names, end), ">")
}

func TestTerminal(t *testing.T) {
	f := locked(t, "a:v1", "b:v1", "a:v2", "a:v3", "a:v4", "c:v1", "c:v2")
	auto := map[string]modules.Upgrade{
		full("a:v1"): {To: full("a:v2")}, full("a:v2"): {To: full("a:v3")}, full("a:v3"): {To: full("c:v2")}, full("c:v1"): {To: full("c:v2")}, "old": {To: full("a:v1")},
	}
	var got []string
	for _, e := range modules.Terminal(f.Entries, auto) {
		got = append(got, e.Key())
	}
	if want := strings.Fields(full("b:v1 a:v3 a:v4 c:v1 c:v2")); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := modules.Terminal(f.Entries, nil); len(got) != len(f.Entries) {
		t.Errorf("%d without a map", len(got))
	}
}

// TestLarge makes maps of 50,000 versions in one chain, which takes a moment
// if it takes linear time.
func TestLarge(t *testing.T) {
	const n = 50_000
	var versions []string
	for i := range n {
		versions = append(versions, fmt.Sprintf("a:v%d", i+1))
	}
	f := locked(t, versions...)
	start := time.Now()
	m, err := modules.ParseMapping([]byte("linear: a"))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := m.Maps(f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := maps.Resolve(f, full("a:v1"))
	if err != nil || r.Version.ID != full(fmt.Sprintf("a:v%d", n)) {
		t.Fatalf("%v, %v", r, err)
	}
	if got := len(modules.Terminal(f.Entries, maps.Auto)); got != 2 {
		t.Errorf("%d terminal versions", got)
	}
	text, err := modules.Encode(maps.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := modules.ParseMapping(text); err != nil {
		t.Error(err)
	} else if _, err := again.Maps(f); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestReadFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "map.json")
	if err := os.WriteFile(name, []byte(`{"a": 1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := modules.ReadMapping(name); !errors.Is(err, modules.ErrMapping) || !strings.HasPrefix(err.Error(), name+": ") {
		t.Errorf("%v", err)
	}
	if _, err := modules.ReadMap(name); !errors.Is(err, modules.ErrMapping) || !strings.HasPrefix(err.Error(), name+": ") {
		t.Errorf("%v", err)
	}
	if _, err := modules.ReadMap(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.Truncate(name, modules.MaxMappingSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := modules.ReadMapping(name); !errors.Is(err, modules.ErrMapping) {
		t.Errorf("%v", err)
	}
}

// FuzzMapping holds the parser to its errors, and what it takes to what can be
// followed.
func FuzzMapping(f *testing.F) {
	for _, seed := range []string{
		"linear: [a, b]\nstep: [[a:v1, a:v2], [b:v1, a:v1]]\n", "a: {to: \"a:v1\", auto: true}\n\"a:v1\": {to: \"a:v2\", changelog: |\n  x\n  }",
		`{"a:v1": {"to": "b:v1", "auto": true, "changelog": "x"}, "linear": "a"}`, "- a: &x {to: b}\n- *x\n", "? a\n: b", "\"\\u0000\": [", "%YAML 1.2\n---\n!!map {a: b}",
	} {
		f.Add(full(seed))
	}
	lockFile := locked(f, "a:v1", "a:v2", "a:v3", "b:v1")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := modules.ParseMapping([]byte(text))
		if err != nil {
			if !errors.Is(err, modules.ErrMapping) {
				t.Errorf("%v", err)
			}
			return
		}
		maps, err := m.Maps(lockFile)
		if err != nil {
			if !errors.Is(err, modules.ErrMapping) {
				t.Errorf("%v", err)
			}
			return
		}
		for from := range maps.Auto {
			if _, err := maps.Resolve(lockFile, from); err != nil {
				t.Errorf("%s: %v", from, err)
			}
		}
	})
}

func BenchmarkMaps(b *testing.B) {
	var versions []string
	for i := range 10_000 {
		versions = append(versions, fmt.Sprintf("a:v%d", i+1))
	}
	f := locked(b, versions...)
	m, err := modules.ParseMapping([]byte("linear: a"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := m.Maps(f); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleMapping_Maps() {
	f, err := lock.Parse(strings.NewReader(`{
  "go-1.19:v1-20230525-c48c43c": {
    "commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b",
    "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19"
  }
}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := modules.ParseMapping([]byte(`go: {to: "go-1.19:v1-20230525-c48c43c", auto: true}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	maps, err := m.Maps(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := modules.Encode(maps.Auto)
	fmt.Printf("%s", text)
	// Output:
	// {
	//   "go": {
	//     "to": "go-1.19:v1-20230525-c48c43c"
	//   }
	// }
}
