package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"bigdisk/pipeline/release"
)

// TestReleaseConfigIsExplained: configs/release.yaml is taken, has every key, and
// what is commented out in it is the default.
func TestReleaseConfigIsExplained(t *testing.T) {
	const file = "../../configs/release.yaml"
	given, err := loadRelease(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(readBytes(t, file))
	fields := reflect.TypeFor[releaseConfig]()
	for i := range fields.NumField() {
		key := fields.Field(i).Tag.Get("yaml")
		if key != "" && !regexp.MustCompile(`(?m)^(# )?`+key+`:`).MatchString(text) {
			t.Errorf("it does not explain %s", key)
		}
	}
	full := regexp.MustCompile(`(?m)^# ([a-zA-Z]+: \S+)$`).ReplaceAllString(text, "$1")
	dir := t.TempDir()
	for name, data := range map[string][]byte{"release.yaml": []byte(full), "fleet.yaml": readBytes(t, "../../configs/fleet.yaml")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	defaults, err := loadRelease(filepath.Join(dir, "release.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(full, "\n# ") >= strings.Count(text, "\n# ") || defaults.Keep != 3 {
		t.Error("nothing was commented out")
	}
	for _, c := range []*releaseConfig{given, defaults} {
		c.file, c.Directory, c.Fleet, c.Lock, c.Format = "", "", "", "", ""
		c.build, c.flags, c.Build = nil, nil, buildPart{}
	}
	if !reflect.DeepEqual(given, defaults) {
		t.Errorf("it comes to %+v, and with what is commented out to %+v", given, defaults)
	}
}

// releaseInputs are those of a release.yaml with these flags of the build.
func releaseInputs(t *testing.T, dir, flags string) (in release.Inputs, key string) {
	t.Helper()
	file := filepath.Join(dir, "release.yaml")
	text := "directory: r\nlock: lock.json\npublish: none\nrollout: false\nbuild: {" + flags + "}\n"
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	c, err := loadRelease(file)
	if err != nil {
		t.Fatal(err)
	}
	in, key, err = c.inputs("")
	if err != nil {
		t.Fatal(err)
	}
	return in, key
}

// TestReleaseInputs: what the image depends on makes another release, and what it
// does not depend on, the directory among it, does not.
func TestReleaseInputs(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, elsewhere} {
		for _, name := range []string{"lock.json", "map.yaml"} {
			if err := os.WriteFile(filepath.Join(d, name), []byte("{}"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	in, key := releaseInputs(t, dir, "from: [store], mapping: map.yaml")
	for _, same := range []string{
		"from: [store], mapping: map.yaml, jobs: 3", "from: [store], mapping: map.yaml, cache: c", "mapping: map.yaml, from: [store], format: ext4",
	} {
		if got, gotKey := releaseInputs(t, elsewhere, same); got != in || gotKey != key {
			t.Errorf("with %s it is another release: %v", same, in.Differences(got))
		}
	}
	for _, other := range []string{"from: [stores], mapping: map.yaml", "from: [store]", "from: [store], mapping: map.yaml, format: squashfs", "from: [store], mapping: map.yaml, owner: 1:2"} {
		if got, gotKey := releaseInputs(t, dir, other); got == in || gotKey == key {
			t.Errorf("with %s it is the same release", other)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "map.yaml"), []byte("{ }"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got, gotKey := releaseInputs(t, dir, "from: [store], mapping: map.yaml"); got == in || gotKey == key {
		t.Error("with another mapping it is the same release")
	}
}

// TestProgramOf: a program that was built from nobody knows what is told from
// others by its sum.
func TestProgramOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	const sum = ", sum 2d711642b726b044"
	for version, want := range map[string]string{
		"v1.2.3, go1.26":                                          "",
		"(devel), revision abc of today, go1.26":                  "",
		"v0.0.0-2026-abc, revision abc of today, go1.26":          "",
		"(devel), go1.26":                                         sum,
		"(unknown)":                                               sum,
		"(devel), revision abc (modified) of today, go1.26":       sum,
		"v0.0.0-2026-abc+dirty, revision abc (modified) of today": sum,
	} {
		if got := programOf(version, file); got != version+want {
			t.Errorf("%s is %s", version, got)
		}
	}
	if got := programOf("(devel)", filepath.Join(file, "none")); got != "(devel)" {
		t.Errorf("without a file it is %s", got)
	}
}

// TestJobsRun: the commands that configurations to start from have are commands
// that there are, with flags that there are.
func TestJobsRun(t *testing.T) {
	for file, want := range map[string]string{
		"github/release.yml": "release", "cloud-build/cloudbuild.yaml": "release", "kubernetes/pack.yaml": "pack", "cloud-batch/pack.json": "pack",
		"systemd/bigdisk-host@.service": "host mount", "systemd/bigdisk-overlay@.service": "host overlay",
	} {
		text := string(readBytes(t, filepath.Join("../../configs", file)))
		var args []string
		switch filepath.Dir(file) {
		case "kubernetes":
			list := regexp.MustCompile(`(?s)args:\n(.*?)resources:`).FindStringSubmatch(text)[1]
			args = strings.Fields(strings.ReplaceAll(list, "- ", ""))
		case "cloud-batch":
			list := regexp.MustCompile(`"commands": \[(.*)\]`).FindStringSubmatch(text)[1]
			args = strings.Split(strings.ReplaceAll(list, `"`, ""), ", ")
		default:
			line := regexp.MustCompile(`(?:run: |'|/)bigdisk ((?:release|host) .*)`).FindStringSubmatch(text)[1]
			line = regexp.MustCompile(`\$ABANDON| \|\|.*| >.*|\$OPTIONS.*`).ReplaceAllString(line, "")
			args = strings.Fields(line)
		}
		root := newRoot()
		cmd, flags, err := root.Find(args)
		if err != nil || cmd.CommandPath() != "bigdisk "+want {
			t.Errorf("%s runs %q: %v, %v", file, args, cmd.CommandPath(), err)
			continue
		}
		if err := cmd.ParseFlags(flags); err != nil || cmd.Flags().NArg() > 0 {
			t.Errorf("%s runs %q: %v, and %q is left", file, args, err, cmd.Flags().Args())
		}
	}
}
