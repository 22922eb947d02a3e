package lock_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"bigdisk/bundle/lock"
)

// small is a lock file as the nixmodules repository writes it.
const small = `{
  "go-1.19:v1-20230525-c48c43c": {
    "commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b",
    "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19"
  },
  "g++-12:v1-20240229-15011da": {
    "commit": "15011da597d303361babfa8823d9223145498e0d",
    "path": "/nix/store/1vrlhhzyjkizcqkjycb6x4a0g7vw0imq-replit-module-g++-12"
  },
  "go-1.19:v10-20230608-10cb54c": {
    "commit": "10cb54cf8097d2c22a6677875ed532230c2bfb26",
    "path": "/nix/store/kww9dw2cik8zv9adk5vhgj93nrwx9nz5-replit-module-go-1.19"
  },
  "go-1.19:v9-20230607-0b7a606": {
    "commit": "0b7a60667d2c29f2686211e952924a9693916a20",
    "path": "/nix/store/7kphn968bd4hxal2pfsr1kwvz3kmqdnx-replit-module-go-1.19"
  }
}`

func parse(t testing.TB, text string) *lock.File {
	t.Helper()
	f, err := lock.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func keys(entries []lock.Entry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Key())
	}
	return all
}

func TestParse(t *testing.T) {
	for _, r := range []io.Reader{strings.NewReader(small), iotest.OneByteReader(strings.NewReader(small)),
		iotest.DataErrReader(strings.NewReader(small))} {
		f, err := lock.Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		if f.SHA256 != sha256.Sum256([]byte(small)) || f.Size != int64(len(small)) {
			t.Errorf("hash %x of %d bytes", f.SHA256, f.Size)
		}
		if len(f.Entries) != 4 {
			t.Fatalf("%d entries", len(f.Entries))
		}
		commit, err := lock.ParseCommit("15011da597d303361babfa8823d9223145498e0d")
		if err != nil {
			t.Fatal(err)
		}
		want := lock.Entry{ID: "g++-12", Tag: lock.Tag{Version: 1, Date: 20240229, Short: "15011da"}, Commit: commit,
			Path: "/nix/store/1vrlhhzyjkizcqkjycb6x4a0g7vw0imq-replit-module-g++-12", Line: 6}
		if f.Entries[1] != want {
			t.Errorf("read %+v, want %+v", f.Entries[1], want)
		}
	}
}

// Other ways to write the same JSON are the same lock file.
func TestParseOtherJSON(t *testing.T) {
	want := parse(t, small).Entries
	for name, text := range map[string]string{
		"on one line":   strings.Join(strings.Fields(small), ""),
		"tabs and CRLF": strings.NewReplacer("  ", "\t", "\n", "\r\n").Replace(small),
		"final newline": small + "\n",
		"spaces":        strings.NewReplacer(":{", " : {", ",", " ,\n").Replace(strings.Join(strings.Fields(small), "")),
		"escapes":       strings.NewReplacer("go-1.19:v9", `go\u002d1.19:v9`, "/nix/store", `\/nix\/store`).Replace(small),
		"path first": strings.Replace(small, `"commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b",
    "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19"`,
			`"path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19",
    "commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if text == small {
				t.Fatal("nothing was replaced")
			}
			got := parse(t, text).Entries
			for i := range got {
				got[i].Line = want[i].Line
			}
			if !slices.Equal(got, want) {
				t.Errorf("read %+v, want %+v", got, want)
			}
		})
	}
	if f := parse(t, " {\n} "); len(f.Entries) != 0 {
		t.Error("an empty lock file has entries")
	}
}

func TestParseRefuses(t *testing.T) {
	const goodKey, goodCommit = "go-1.19:v1-20230525-c48c43c", "c48c43c6c698223ed3ce2abc5a2d708735a77d5b"
	const goodPath = "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-m"
	entry := func(key, commit, path string) string {
		return fmt.Sprintf("{\n%q: {\n\"commit\": %q,\n\"path\": %q\n}\n}", key, commit, path)
	}
	object := func(fields string) string { return fmt.Sprintf("{\n%q: {%s}\n}", goodKey, fields) }
	fields := fmt.Sprintf("\"commit\": %q, \"path\": %q", goodCommit, goodPath)
	good := object(fields)
	type test struct {
		name, text string
		line       int
		key, want  string
	}
	tests := []test{
		{"empty", "", 1, "", `the file ends before '{'`},
		{"not JSON", "modules:\n", 1, "", "'m' instead of '{'"},
		{"array", "[]", 1, "", "'[' instead of '{'"},
		{"byte order mark", "\ufeff" + good, 1, "", "instead of '{'"},
		{"comment", "{\n// none\n}", 2, "", "an entry's key"},
		{"trailing comma", strings.Replace(good, "}\n}", "},\n}", 1), 3, "", "an entry's key"},
		{"no comma", "{\n" + good[2:len(good)-2] + good[2:], 2, "", `"," or "}"`},
		{"trailing text", good + "\n{}", 4, "", "the end of the file"},
		{"open string", "{\n\"abc", 2, "", "ends in a string"},
		{"open escape", "{\n\"abc\\", 2, "", "ends in a string"},
		{"bad escape", "{\n\"abc\\x\": {}}", 2, "", "not a JSON string"},
		{"newline in a string", "{\n\"abc\n\": {}}", 2, "", "control character"},
		{"endless string", "{\n\"" + strings.Repeat("x", 5000), 2, "", "a string of more than 4096 bytes"},
		{"number for an entry", "{\n\"" + goodKey + "\": 1}", 2, goodKey, "'1' instead of '{'"},
		{"null for a commit", object(`"commit": null, "path": "x"`), 2, goodKey, "instead of a string"},
		{"no fields", object(""), 2, goodKey, "the field commit is missing"},
		{"no commit", object(`"path": "` + goodPath + `"`), 2, goodKey, "the field commit is missing"},
		{"no path", object(`"commit": "` + goodCommit + `"`), 2, goodKey, "the field path is missing"},
		{"unknown field", object(fields + `, "hash": "x"`), 2, goodKey, `unknown field "hash"`},
		{"field in other case", object(`"Commit": "` + goodCommit + `"`), 2, goodKey, `unknown field "Commit"`},
		{"commit twice", object(fields + ",\n\"commit\": \"" + goodCommit + `"`), 3, goodKey, "the field commit comes twice"},
		{"path twice", object(fields + ",\n\"path\": \"" + goodPath + `"`), 3, goodKey, "the field path comes twice"},
		{"trailing comma in an entry", object(fields + ","), 2, goodKey, "a field's name"},
		{"key twice", good[:len(good)-2] + "," + good[1:], 3, goodKey, "the key stands in line 2 already"},
		{"key twice, escaped", good[:len(good)-2] + "," + strings.Replace(good[1:], "go", `\u0067o`, 1), 3, goodKey, "the key stands in line 2 already"},
		{"short commit", entry(goodKey, goodCommit[:39], goodPath), 3, goodKey, "is not a commit"},
		{"long commit", entry(goodKey, goodCommit+"0", goodPath), 3, goodKey, "is not a commit"},
		{"upper-case commit", entry(goodKey, strings.ToUpper(goodCommit), goodPath), 3, goodKey, "is not a commit"},
		{"other commit", entry(goodKey, strings.Repeat("0", 40), goodPath), 2, goodKey, "the tag ends in c48c43c, but the commit starts with 0000000"},
		{"other store", entry(goodKey, goodCommit, "/gnu/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-m"), 4, goodKey, "not a store path"},
		{"below a store path", entry(goodKey, goodCommit, goodPath+"/bin"), 4, goodKey, "not a store path"},
		{"dots for a path", entry(goodKey, goodCommit, "/nix/store/../../etc/passwd"), 4, goodKey, "not a store path"},
		{"empty path", entry(goodKey, goodCommit, ""), 4, goodKey, "not a store path"},
	}
	for _, key := range []string{"", ":", "go-1.19", "go-1.19:", ":v1-20230525-c48c43c", "go 1.19:v1-20230525-c48c43c",
		"../x:v1-20230525-c48c43c", "-x:v1-20230525-c48c43c", ".x:v1-20230525-c48c43c", "a/b:v1-20230525-c48c43c",
		"é:v1-20230525-c48c43c", "a:b:v1-20230525-c48c43c", strings.Repeat("x", 201) + ":v1-20230525-c48c43c",
		"go:1-20230525-c48c43c", "go:V1-20230525-c48c43c", "go:v-20230525-c48c43c", "go:v0-20230525-c48c43c",
		"go:v01-20230525-c48c43c", "go:v+1-20230525-c48c43c", "go:v1.0-20230525-c48c43c", "go:v9999999999-20230525-c48c43c",
		"go:v1-2023525-c48c43c", "go:v1-20230532-c48c43c", "go:v1-20231301-c48c43c", "go:v1-20230229-c48c43c",
		"go:v1-19000229-c48c43c", "go:v1-20230431-c48c43c", "go:v1-20230500-c48c43c", "go:v1-20230005-c48c43c", "go:v1-0230525a-c48c43c",
		"go:v1-20230525", "go:v1-20230525-", "go:v1-20230525-c48c43", "go:v1-20230525-c48c43c6", "go:v1-20230525-C48C43C",
		"go:v1-20230525-c48c43g", "go:v1-20230525-c48c43c-x", "go:v1-20230525-c48c43c ", "go:v1--c48c43c"} {
		tests = append(tests, test{"key " + key, entry(key, goodCommit, goodPath), 2, key, ""})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := lock.Parse(strings.NewReader(test.text))
			at := new(lock.Error)
			if !errors.As(err, &at) || !errors.Is(err, lock.ErrFormat) {
				t.Fatalf("error %v", err)
			}
			if at.Line != test.line || at.Key != test.key || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v: line %d, key %q; want line %d, key %q, %q", err, at.Line, at.Key, test.line, test.key, test.want)
			}
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestParseTruncated(t *testing.T) {
	for n := range small {
		if _, err := lock.Parse(strings.NewReader(small[:n])); !errors.Is(err, lock.ErrFormat) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	broken := errors.New("the disk is gone")
	for n := range len(small) + 1 {
		r := io.MultiReader(strings.NewReader(small[:n]), iotest.ErrReader(broken))
		if _, err := lock.Parse(r); !errors.Is(err, broken) || errors.Is(err, lock.ErrFormat) {
			t.Fatalf("broken at %d: %v", n, err)
		}
	}
}

// synthetic writes a lock file of n entries, fifty versions of each module.
func synthetic(n int) []byte {
	var b bytes.Buffer
	b.WriteString("{")
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  \"module-%d.%d:v%d-202305%02d-%07x\": {\n    \"commit\": \"%07x%033x\",\n    \"path\": \"/nix/store/%032d-replit-module-%d\"\n  }",
			i/50, i/50%7, i%50+1, i%28+1, i, i, i, i, i/50)
	}
	b.WriteString("\n}")
	return b.Bytes()
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := synthetic(n)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := lock.Parse(bytes.NewReader(data))
				if err != nil || len(f.Entries) != n {
					b.Fatal(len(f.Entries), err)
				}
			}
		})
	}
}

func Example() {
	f, err := lock.Parse(strings.NewReader(small))
	if err != nil {
		fmt.Println(err)
		return
	}
	entries, err := f.Select(lock.Selection{Modules: []string{"go-1.19"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range entries {
		fmt.Println(e.ID, e.Tag.Version, e.Tag.Date, e.Path)
	}
	_, err = f.Select(lock.Selection{Modules: []string{"go-1.20"}})
	fmt.Println(err)
	// Output:
	// go-1.19 10 20230608 /nix/store/kww9dw2cik8zv9adk5vhgj93nrwx9nz5-replit-module-go-1.19
	// module "go-1.20" is not in the lock file; did you mean "go-1.19"?
}
