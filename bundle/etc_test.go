package bundle

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/store"
)

// anEntry is a locked entry: "ID:TAG", and a letter that tells its path from others.
func anEntry(t testing.TB, key string, letter byte) lock.Entry {
	t.Helper()
	id, tag, err := lock.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := lock.ParseCommit(tag.Short + strings.Repeat("0", 40-lock.ShortLen))
	if err != nil {
		t.Fatal(err)
	}
	path, err := store.ParseBase(strings.Repeat(string(letter), store.DigestLen) + "-module")
	if err != nil {
		t.Fatal(err)
	}
	return lock.Entry{ID: id, Tag: tag, Commit: commit, Path: path}
}

func TestEtcGenerated(t *testing.T) {
	entries := []lock.Entry{
		anEntry(t, "go-1.19:v1-20230522-c48c43c", '1'),
		anEntry(t, "bun:v9-20240101-aaaaaaa", '2'),
		anEntry(t, "bun:v10-20240201-bbbbbbb", '3'),
		anEntry(t, "bun:v2-20230601-ccccccc", '4'),
	}
	files, err := Etc(EtcInput{Entries: entries, Modules: map[store.Path]ModuleInfo{
		entries[2].Path: {Name: "Bun <new>", Description: "a runtime"},
		entries[1].Path: {Name: "Bun, old"},
	}, Environments: map[store.Path][]byte{entries[0].Path: []byte("{1}"), entries[2].Path: []byte("{3}")}})
	if err != nil {
		t.Fatal(err)
	}
	modules, err := lock.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	want := []EtcFile{
		{"active-modules.json", []byte(`{"bun":{"commit":"bbbbbbb000000000000000000000000000000000","description":"a runtime","name":"Bun <new>",` +
			`"path":"/nix/store/33333333333333333333333333333333-module","tag":"v10-20240201-bbbbbbb",` +
			`"tags":["v10-20240201-bbbbbbb","v9-20240101-aaaaaaa","v2-20230601-ccccccc"],"version":10},` +
			`"go-1.19":{"commit":"c48c43c000000000000000000000000000000000","description":"","name":"go-1.19",` +
			`"path":"/nix/store/11111111111111111111111111111111-module","tag":"v1-20230522-c48c43c",` +
			`"tags":["v1-20230522-c48c43c"],"version":1}}` + "\n")},
		{"auto-upgrade.json", []byte("{}\n")},
		{"env/bun:v10-20240201-bbbbbbb.json", []byte("{3}")},
		{"env/go-1.19:v1-20230522-c48c43c.json", []byte("{1}")},
		{"modules.json", modules},
		{"recommend-upgrade.json", []byte("{}\n")},
	}
	wantEtc(t, files, want)
}

func TestEtcGiven(t *testing.T) {
	in := EtcInput{AutoUpgrade: []byte("{ \"a\":\n1}"), RecommendUpgrade: []byte("{}"), ActiveModules: []byte("{\"b\": {}}\n\n")}
	files, err := Etc(in)
	if err != nil {
		t.Fatal(err)
	}
	wantEtc(t, files, []EtcFile{
		{"active-modules.json", in.ActiveModules},
		{"auto-upgrade.json", in.AutoUpgrade},
		{"modules.json", []byte("{}")},
		{"recommend-upgrade.json", in.RecommendUpgrade},
	})
}

func wantEtc(t *testing.T, got, want []EtcFile) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d files, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Name != want[i].Name || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("got %s:\n%s\nwant %s:\n%s", got[i].Name, got[i].Data, want[i].Name, want[i].Data)
		}
	}
}

// TestActiveModulesTie has two entries with one number and one date.
func TestActiveModulesTie(t *testing.T) {
	entries := []lock.Entry{
		anEntry(t, "bun:v1-20240101-aaaaaaa", '1'),
		anEntry(t, "bun:v1-20240101-bbbbbbb", '2'),
	}
	got, err := ActiveModules(entries, nil)
	if err != nil || !bytes.Contains(got, []byte(`"tag":"v1-20240101-bbbbbbb"`)) {
		t.Errorf("the later of two alike is not the newest: %s, %v", got, err)
	}
}

func TestParseModuleInfo(t *testing.T) {
	tests := []struct {
		name, data string
		want       ModuleInfo
	}{
		{"module", `{"id":"go","name":"Go Tools","description":"Go","env":{"PATH":"/x"}}`, ModuleInfo{"Go Tools", "Go"}},
		{"no name", `{"description":"Go"}`, ModuleInfo{"", "Go"}},
		{"a script", "#!/bin/sh\n", ModuleInfo{}},
		{"a list", `[1]`, ModuleInfo{}},
		{"a number for a name", `{"name":1,"description":"Go"}`, ModuleInfo{}},
		{"nothing", "", ModuleInfo{}},
		{"too long", `{"name":"` + strings.Repeat("x", maxModuleText+1) + `"}`, ModuleInfo{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := ParseModuleInfo([]byte(test.data)); got != test.want {
				t.Errorf("got %.100v, want %v", got, test.want)
			}
		})
	}
}

func TestReadObject(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := "{\n \"a\": {\"to\": \"b\"} }\n"
	got, err := ReadObject(write("good.json", good))
	if err != nil || string(got) != good {
		t.Errorf("got %q, %v, want the file as it is", got, err)
	}
	huge := write("huge.json", "{}")
	if err := os.Truncate(huge, MaxEtcFile+1); err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		write("list.json", "[]"):         "not a JSON object",
		write("null.json", "null"):       "not a JSON object",
		write("empty.json", ""):          "not a JSON object",
		write("cut.json", `{"a": `):      "not a JSON object",
		write("two.json", "{} {}"):       "not a JSON object",
		huge:                             "bytes long",
		filepath.Join(dir, "none.json"):  "no such file",
		write("yaml.json", "a: b\nc: d"): "not a JSON object",
	}
	for name, want := range bad {
		if _, err := ReadObject(name); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want the name and %q", name, err, want)
		}
	}
}
