package lock_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/lock"
)

func TestMarshal(t *testing.T) {
	f := parse(t, small)
	if got, err := lock.Marshal(f.Entries); err != nil || string(got) != small {
		t.Errorf("%v\n%s", err, got)
	}
	if got, err := lock.Marshal(nil); err != nil || string(got) != "{}" {
		t.Errorf("no entries: %q, %v", got, err)
	}
	bad := f.Entries[0]
	bad.ID = "a b"
	if _, err := lock.Marshal([]lock.Entry{bad}); !errors.Is(err, lock.ErrFormat) {
		t.Errorf("a bad ID is written: %v", err)
	}
}

func more(t *testing.T) []lock.Entry {
	return parse(t, `{"zig-0.11:v2-20240101-0b7a606": {"commit": "0b7a60667d2c29f2686211e952924a9693916a20",
	"path": "/nix/store/7kphn968bd4hxal2pfsr1kwvz3kmqdnx-z"}, "a:v1-20240101-0b7a606": {"commit": "0b7a60667d2c29f2686211e952924a9693916a20",
	"path": "/nix/store/7kphn968bd4hxal2pfsr1kwvz3kmqdnx-a"}}`).Entries
}

// Appending leaves every byte before and after the new entries, and the new
// entries look like the old.
func TestAppend(t *testing.T) {
	tabs := strings.NewReplacer("    ", "\t\t", "  ", "\t").Replace(small)
	oneLine := strings.Join(strings.Fields(small), "")
	for name, text := range map[string]string{
		"as nixmodules": small, "final newline": small + "\n", "tabs": tabs, "one line": oneLine,
		"json.dumps":  strings.NewReplacer(":{", ": {", ",", ", ", `":"`, `": "`).Replace(oneLine),
		"four spaces": strings.ReplaceAll(small, "  ", "    ") + "\n\n",
		"CRLF":        strings.ReplaceAll(small, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			f := parse(t, text)
			var out bytes.Buffer
			if err := f.Append(&out, strings.NewReader(text), more(t)); err != nil {
				t.Fatal(err)
			}
			got := out.String()
			end := strings.LastIndex(strings.TrimRight(text, " \r\n}"), `"`) // of the last path
			if !strings.HasPrefix(got, text[:end]) {
				t.Fatalf("the start has changed:\n%s", got)
			}
			// Cut the new entries out at the comma, and the old text is left.
			whole := parse(t, got)
			if want := append(slices.Clone(keys(f.Entries)), "zig-0.11:v2-20240101-0b7a606", "a:v1-20240101-0b7a606"); !slices.Equal(keys(whole.Entries), want) {
				t.Errorf("keys %v", keys(whole.Entries))
			}
			added := len(got) - len(text)
			at := strings.Index(got[end:], "}") + end + 1
			if got[:at]+got[at+added:] != text {
				t.Errorf("old text has changed:\n%s", got)
			}
			style := func(s string) string {
				return strings.Map(func(r rune) rune {
					if strings.ContainsRune(" \t\r\n{},", r) {
						return r
					}
					return -1
				}, s)
			}
			// The white space of an old entry, its comma first, must be that of a new one.
			second := text[strings.Index(text, "}")+1:]
			second = second[:strings.Index(second, "}")+1]
			if want := style(second) + style(second); style(got[at:at+added]) != want {
				t.Errorf("new entries %q, like %q", got[at:at+added], second)
			}
		})
	}
}

func TestAppendToEmpty(t *testing.T) {
	want, err := lock.Marshal(more(t))
	if err != nil {
		t.Fatal(err)
	}
	for text, end := range map[string]string{"{}": "", "{}\n": "\n", "{\n}\n": "\n"} {
		var out bytes.Buffer
		if err := parse(t, text).Append(&out, strings.NewReader(text), more(t)); err != nil || out.String() != string(want)+end {
			t.Errorf("%q became %q: %v", text, out.String(), err)
		}
		out.Reset()
		if err := parse(t, text).Append(&out, strings.NewReader(text), nil); err != nil || out.String() != text {
			t.Errorf("%q became %q with nothing appended: %v", text, out.String(), err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	f := parse(t, small)
	bad := more(t)
	bad[0].Tag.Short = "1234567"
	noPath := more(t)
	noPath[0].Path = ""
	tests := []struct {
		name, old string
		entries   []lock.Entry
		want      string
	}{
		{"key that is there", small, f.Entries[1:2], "in line 6"},
		{"key twice", small, append(more(t), more(t)...), "appended twice"},
		{"tag of another commit", small, bad, "the tag ends in 1234567"},
		{"no path", small, noPath, "no store path"},
		{"old is shorter", small[:len(small)-1], more(t), lock.ErrChanged.Error()},
		{"old is empty", "", more(t), lock.ErrChanged.Error()},
		{"old is longer", small + "\n", more(t), lock.ErrChanged.Error()},
		{"old differs", strings.Replace(small, "c48c", "c48d", 1), more(t), lock.ErrChanged.Error()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := f.Append(&bytes.Buffer{}, strings.NewReader(test.old), test.entries)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// FuzzParse holds that what is accepted is what it seems, however it is read
// and written again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("{}"))
	f.Add([]byte(strings.Join(strings.Fields(small), "")))
	f.Add([]byte(strings.Replace(small, "go", `\u0067o`, 1)))
	f.Add([]byte(small[:200]))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := lock.Parse(bytes.NewReader(data))
		theirs, theirErr := decode(data)
		if err != nil {
			return
		}
		if theirErr != nil {
			t.Fatalf("encoding/json says %v", theirErr)
		}
		if len(theirs) != len(file.Entries) {
			t.Fatalf("%d entries, encoding/json finds %d", len(file.Entries), len(theirs))
		}
		for _, e := range file.Entries {
			if got := theirs[e.Key()]; got.Commit != e.Commit.String() || got.Path != e.Path.String() {
				t.Fatalf("%+v, encoding/json finds %+v", e, got)
			}
		}
		text, err := lock.Marshal(file.Entries)
		if err != nil {
			t.Fatal(err)
		}
		again, err := lock.Parse(bytes.NewReader(text))
		if err != nil || !slices.Equal(keys(again.Entries), keys(file.Entries)) {
			t.Fatalf("written and read again: %v", err)
		}
		checkAppend(t, file, data)
	})
}

func checkAppend(t *testing.T, file *lock.File, data []byte) {
	var out bytes.Buffer
	if err := file.Append(&out, bytes.NewReader(data), more(t)); err != nil {
		if slices.Contains(keys(file.Entries), more(t)[0].Key()) || slices.Contains(keys(file.Entries), more(t)[1].Key()) {
			return
		}
		t.Fatal(err)
	}
	longer, err := lock.Parse(&out)
	if err != nil || !slices.Equal(keys(longer.Entries), append(keys(file.Entries), keys(more(t))...)) {
		t.Fatalf("appended: %v", err)
	}
	if n := len(file.Entries); n > 0 && !reflect.DeepEqual(longer.Entries[:n], file.Entries) {
		t.Fatalf("%+v became %+v", file.Entries, longer.Entries[:n])
	}
}
