package host

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/gcp/guest"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/read"
	"bigdisk/pipeline/host/modenv"
)

func TestMountRightDisks(t *testing.T) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t)
			h.attach(kind, "v1")
			r := h.mount()
			if r.Version != "v1" || r.Current != "v1" || !r.Switched || r.Path != filepath.Join(h.MountRoot, "nix/v1") {
				t.Errorf("%+v", r)
			}
			h.wantReport("v1", guest.OK, "", "v1")
			if len(h.told) != 2 || h.told[0].Health != guest.Pending {
				t.Errorf("it said %+v", h.told)
			}
			if again := h.mount(); again.Switched || again.Current != "v1" {
				t.Errorf("again: %+v", again)
			}
			if all, err := readMounts(); err != nil || count(all, h.MountRoot) != 1 {
				t.Errorf("%d mounts, %v", count(all, h.MountRoot), err)
			}
			h.Full = true
			h.mount()
		})
	}
}

func count(all []mountPoint, below string) (n int) {
	for _, m := range all {
		if strings.HasPrefix(m.Path, below+"/") {
			n++
		}
	}
	return n
}

// TestMountBlockDevice mounts from a block device larger than the image, as
// Compute Engine's are, bare and partitioned.
func TestMountBlockDevice(t *testing.T) {
	for _, kind := range []string{"v2.raw", "v2.sqsh", "gpt.raw"} {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t)
			name := filepath.Join(t.TempDir(), "disk")
			imagetest.Command(t, "cp", "--sparse=always", imageOf(t, kind), name)
			imagetest.Command(t, "truncate", "--size=+64M", name)
			loop, err := attachLoop(name, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer loop.Close()
			if err := os.Symlink(loop.Name(), h.device("v2")); err != nil {
				t.Fatal(err)
			}
			m, err := image.ReadManifest(imageOf(t, kind) + ".manifest.json")
			if err != nil {
				t.Fatal(err)
			}
			h.Manifest = func(context.Context, Device) (*image.Manifest, error) { return m, nil }
			h.mount()
			at, err := mountAt(filepath.Join(h.MountRoot, "nix/v2"))
			if err != nil || at == nil || (kind != "gpt.raw" && loopFile(at.Source) != name) || !slices.Contains(at.Options, "nodev") || !slices.Contains(at.Options, "nosuid") {
				t.Errorf("mounted is %+v, %v", at, err)
			}
		})
	}
}

// TestMountRefuses puts a bad v2 on a host where v1 is current.
func TestMountRefuses(t *testing.T) {
	type change func(t *testing.T, h *testHost, name string)
	edit := func(f func(m *image.Manifest)) change {
		return func(t *testing.T, _ *testHost, name string) { editManifest(t, name, f) }
	}
	for name, c := range map[string]struct {
		kinds  string
		change change
		says   string
	}{
		"label":            {"v2.raw tree.raw gpt.raw", edit(func(m *image.Manifest) { m.Image.Label = "other" }), `its label is "bigdisk-`},
		"given label":      {"v2.raw v2.sqsh", func(_ *testing.T, h *testHost, _ string) { h.Label = "other" }, `not "other"`},
		"format":           {"v2.raw", manifestOf("v2.sqsh"), "it has ext4, but its manifest says squashfs"},
		"other image":      {"v2.sqsh", manifestOf("later.sqsh"), "it has 4 modules, but its manifest 2"},
		"store paths":      {"v2.sqsh v2.raw", edit(func(m *image.Manifest) { m.Paths = m.Paths[1:]; m.Totals.StorePaths-- }), "its database has 11 store paths, but its manifest 10"},
		"shorter":          {"v2.sqsh v2.raw", edit(func(m *image.Manifest) { m.Image.Size += 4096 }), "bytes, but its manifest says"},
		"partition":        {"v2.raw", edit(func(m *image.Manifest) { m.Image.Part = &image.Extent{Offset: 1 << 20, Length: 1 << 20} }), "its filesystem starts at byte 0"},
		"module":           {"v2.sqsh v2.raw", edit(func(m *image.Manifest) { m.Modules[1].Commit = strings.Repeat("0", 40) }), "in its manifest"},
		"modules":          {"v2.sqsh", edit(func(m *image.Manifest) { m.Modules = m.Modules[1:] }), "it has 4 modules, but its manifest 3"},
		"NAR hash":         {"v2.sqsh v2.raw", edit(func(m *image.Manifest) { m.Paths[3].NarHash[0] ^= 1 }), "its NAR hash is sha256:"},
		"no manifest":      {"v2.sqsh", func(_ *testing.T, h *testHost, _ string) { h.Manifest = noManifest }, "no such file"},
		"root hash":        {"tree.raw tree.sqsh gpt.raw", edit(func(m *image.Manifest) { m.Verity.RootHash[9] ^= 1 }), "its root hash is"},
		"salt":             {"tree.raw", edit(func(m *image.Manifest) { m.Verity.Salt = strings.Repeat("00", 32) }), "another salt or UUID"},
		"given root hash":  {"tree.raw", func(_ *testing.T, h *testHost, _ string) { h.RootHash = new(image.HexSHA256) }, "its manifest says that its root hash is"},
		"tree":             {"tree.raw tree.sqsh gpt.raw", flipTree, "does not match its dm-verity hash tree"},
		"no tree":          {"v2.raw", func(_ *testing.T, h *testHost, _ string) { h.Manifest, h.RootHash = nil, new(image.HexSHA256) }, "verity superblock at"},
		"superblock":       {"v2.raw v2.sqsh", overwrite("", 0, 4096), "neither squashfs nor ext4"},
		"half":             {"v2.sqsh", cut, "the disk is refused"},
		"database header":  {"v2.raw", overwrite(databasePath, 0, 32), "the disk's database"},
		"database page":    {"v2.raw", overwrite(databasePath, 3*4096, 512), "the disk's database"},
		"database row":     {"v2.raw", overwriteText(databasePath, "sha256:", "sha512:"), "not a SHA-256 hash"},
		"database is gone": {"v2.raw", overwriteText("", "\x09\x01db.sqlite", "\x09\x01db.sqlitf"), "bad message"},
		"schema":           {"v2.raw", overwrite(schemaPath, 0, 2), "its schema is"},
		"store path":       {"v2.raw", overwriteText("", "greet the world", "greet the wurld"), "its NAR hashes to"},
		"compressed":       {"v2.sqsh", flipData, "its NAR hashes to"},
		"full: store path": {"v2.raw", fullOnly(overwriteText("", "greet the world", "greet the wurld")), "errors: "},
	} {
		for _, kind := range strings.Fields(c.kinds) {
			t.Run(name+"/"+kind, func(t *testing.T) {
				h := newHost(t)
				h.attach("v1"+filepath.Ext(kind), "v1")
				h.mount()
				c.change(t, h, h.attachCopy(kind, "v2"))
				r, err := Mount(t.Context(), h.Options)
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "google-nix-v2: ") {
					t.Fatalf("%+v, %v; want %q", r, err, c.says)
				}
				if r.Version != "v2" || r.Current != "v1" || r.Switched || r.Error != err.Error() {
					t.Errorf("%+v", r)
				}
				h.wantCurrent("v1")
				h.wantReport("v2", guest.Failed, c.says, "v1")
				if all, err := readMounts(); err != nil || count(all, h.MountRoot) != 1 {
					t.Errorf("%d mounts, %v", count(all, h.MountRoot), err)
				}
			})
		}
	}
}

func noManifest(_ context.Context, d Device) (*image.Manifest, error) {
	if d.Version == "v1" {
		return nil, nil
	}
	return image.ReadManifest("/nowhere")
}

func fullOnly(c func(*testing.T, *testHost, string)) func(*testing.T, *testHost, string) {
	return func(t *testing.T, h *testHost, name string) {
		c(t, h, name)
		h.Full = true
	}
}

func editManifest(t *testing.T, name string, f func(*image.Manifest)) {
	t.Helper()
	name += ".manifest.json"
	m, err := image.ReadManifest(name)
	if err != nil {
		t.Fatal(err)
	}
	f(m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// manifestOf gives a disk the manifest of another.
func manifestOf(kind string) func(*testing.T, *testHost, string) {
	return func(t *testing.T, _ *testHost, name string) {
		imagetest.Command(t, "cp", imageOf(t, kind)+".manifest.json", name+".manifest.json")
	}
}

// flipTree changes a bit in the middle of the tree's first level.
func flipTree(t *testing.T, _ *testHost, name string) {
	m, err := image.ReadManifest(name + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	at := m.Verity.Offset + 4096 + 7
	if m.Image.Part != nil {
		at += m.Image.Part.Offset
	}
	write(t, name, at, func(b byte) byte { return b ^ 1 }, 1)
}

// flipData changes a byte of the largest store path.
func flipData(t *testing.T, _ *testHost, name string) {
	m, err := image.ReadManifest(name + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var most image.Extent
	for _, p := range m.Paths {
		for _, e := range p.Data {
			if e.Length > most.Length {
				most = e
			}
		}
	}
	write(t, name, most.Offset+most.Length/2, func(b byte) byte { return b ^ 0x55 }, 16)
}

// cut leaves half of the image, and no manifest.
func cut(t *testing.T, h *testHost, name string) {
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, fi.Size()/2); err != nil {
		t.Fatal(err)
	}
	h.Manifest = nil
}

// overwrite fills bytes of a file in an image with zeros; "" is the image.
func overwrite(path string, offset, n int64) func(*testing.T, *testHost, string) {
	return func(t *testing.T, _ *testHost, name string) {
		at := offset
		if path != "" {
			at += placeOf(t, name, path)
		}
		write(t, name, at, func(byte) byte { return 0 }, n)
	}
}

// placeOf finds where a file's data starts in an ext4 image.
func placeOf(t *testing.T, name, path string) int64 {
	t.Helper()
	im, err := read.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	var text strings.Builder
	if err := im.Copy(t.Context(), &text, path, 1<<30); err != nil {
		t.Fatal(err)
	}
	const block = 4096
	return search(t, name, (text.String() + strings.Repeat("\x00", -text.Len()&(block-1)))[:block])
}

// search finds the only place where an image has some bytes.
func search(t *testing.T, name, text string) int64 {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), text)
	if at < 0 {
		t.Fatalf("%s has no %.40q", name, text)
	}
	return int64(at)
}

// overwriteText changes the first place where an image, or a file in it, has a
// text.
func overwriteText(path, from, to string) func(*testing.T, *testHost, string) {
	return func(t *testing.T, _ *testHost, name string) {
		start := int64(0)
		if path != "" {
			start = placeOf(t, name, path)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := strings.Index(string(data[start:]), from)
		if at < 0 {
			t.Fatalf("no %q in %s", from, path)
		}
		i := 0
		write(t, name, start+int64(at), func(byte) byte { i++; return to[i-1] }, int64(len(to)))
	}
}

func write(t *testing.T, name string, at int64, change func(byte) byte, n int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = change(b[i])
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestMountFallsBack has a bad newest disk where nothing is current yet.
func TestMountFallsBack(t *testing.T) {
	h := newHost(t)
	h.attach("v1.sqsh", "v1")
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v2"))
	r, err := Mount(t.Context(), h.Options)
	if !errors.Is(err, ErrRefused) && err == nil || r.Version != "v2" || r.Current != "v1" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantCurrent("v1")
	h.wantReport("v2", guest.Failed, "google-nix-v2: ", "v1")

	h = newHost(t)
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v2"))
	if r, err = Mount(t.Context(), h.Options); err == nil || r.Current != "" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantCurrent("")
	h.wantReport("v2", guest.Failed, "google-nix-v2: ", "")
}

func TestMountOrder(t *testing.T) {
	h := newHost(t)
	want := func(version string) {
		t.Helper()
		if r := h.mount(); r.Current != version {
			t.Errorf("current is %s, not %s", r.Current, version)
		}
	}
	h.attachCopy("v1.sqsh", "z-first")
	want("z-first")
	h.attachCopy("v2.sqsh", "a-second")
	want("a-second")
	h.attachCopy("v1.sqsh", "m-third")
	want("m-third")
	h.detach("m-third")
	want("a-second") // it goes back when the newest is gone
	h.detach("z-first")
	h.attachCopy("v1.sqsh", "z-first")
	want("z-first") // attached anew, it is the newest
	h.Version = "a-second"
	want("a-second") // what was asked for
	h.Version = ""
	want("z-first")

	// After a boot the kernel has other numbers, and nothing is mounted.
	unmountBelow(t, h.MountRoot)
	l := layout{filepath.Join(h.MountRoot, "nix")}
	s, err := l.loadState()
	if err != nil {
		t.Fatal(err)
	}
	s.Boot = "before"
	if err := l.saveState(s); err != nil {
		t.Fatal(err)
	}
	touch(t, h.device("a-second"))
	want("z-first")

	h.Version = "none"
	r, err := Mount(t.Context(), h.Options)
	if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "google-nix-a-second, google-nix-z-first") || r.Current != "z-first" {
		t.Errorf("%+v, %v", r, err)
	}
	h.wantReport("none", guest.Failed, "no such disk is attached", "z-first")
}

func touch(t *testing.T, name string) {
	t.Helper()
	imagetest.Command(t, "touch", name)
}

// TestMountAgain attaches another disk under the same name: what is mounted is
// of the old one, and is replaced once the new one has passed.
func TestMountAgain(t *testing.T) {
	h := newHost(t)
	h.attachCopy("v1.sqsh", "v1")
	h.mount()
	h.detach("v1")
	overwrite("", 0, 4096)(t, h, h.attachCopy("v2.sqsh", "v1"))
	if _, err := Mount(t.Context(), h.Options); err == nil {
		t.Error("a damaged disk is taken")
	}
	h.wantCurrent("v1")
	h.detach("v1")
	h.attachCopy("v2.sqsh", "v1")
	h.mount()
	if _, err := modenv.Read(filepath.Join(h.MountRoot, "nix/current"), "hello-1:v2-20240502-603953c"); err != nil {
		t.Errorf("the old disk is still to be seen: %v", err)
	}
}

func TestMountKeeps(t *testing.T) {
	h := newHost(t)
	mounted := func() string {
		l := layout{filepath.Join(h.MountRoot, "nix")}
		all, err := l.mounted()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	for _, step := range []struct{ version, want string }{{"v1", "v1"}, {"v2", "v1 v2"}, {"v3", "v2 v3"}} {
		h.attachCopy("v1.sqsh", step.version)
		h.mount()
		if got := mounted(); got != step.want {
			t.Errorf("after %s: %q are mounted, want %q", step.version, got, step.want)
		}
	}
	if _, err := os.Stat(filepath.Join(h.MountRoot, "nix/v1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of v1: %v", err)
	}
	used, err := os.Open(filepath.Join(h.MountRoot, "nix/v2/nix/store"))
	if err != nil {
		t.Fatal(err)
	}
	h.Keep = 0
	h.mount()
	if got := mounted(); got != "v2 v3" {
		t.Errorf("%q are mounted though v2 is in use", got)
	}
	used.Close()
	h.mount()
	if got := mounted(); got != "v3" {
		t.Errorf("%q are mounted, want v3", got)
	}
}

func TestMountUsage(t *testing.T) {
	h := newHost(t)
	for _, service := range []string{"", "a/b", "..", "current"} {
		o := h.Options
		o.Service = service
		if _, err := Mount(t.Context(), o); err == nil {
			t.Errorf("%q is a service", service)
		}
	}
	for _, version := range []string{"../x", "current", ".x", strings.Repeat("x", 300)} {
		o := h.Options
		o.Version = version
		if _, err := Mount(t.Context(), o); err == nil {
			t.Errorf("%q is a version", version)
		}
	}
	if r, err := Mount(t.Context(), h.Options); !errors.Is(err, ErrNoDevice) || r.Current != "" {
		t.Errorf("%+v, %v", r, err)
	}
	h.attach("v1.sqsh", "v1")
	l := layout{filepath.Join(h.MountRoot, "nix")}
	lock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), h.Options); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	lock.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Mount(ctx, h.Options); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	h.wantCurrent("")
	if n := len(h.told); n > 0 {
		t.Errorf("it said %+v", h.told[:n])
	}
}

// TestDatabaseOfOthers has databases that are none of Nix's.
func TestDatabaseOfOthers(t *testing.T) {
	for name, c := range map[string]struct{ sql, says string }{
		"empty":   {"create table x (a)", "no table"},
		"view":    {"create table Refs (a); create view ValidPaths as select 1 as id", "which a Nix database has not"},
		"virtual": {"create table Refs (a); create table ValidPaths (id, path, hash, narSize); create virtual table x using fts5(a)", "which a Nix database has not"},
		"path":    {"create table Refs (a); create table ValidPaths (id integer primary key, path, hash, narSize); insert into ValidPaths values (1, '/etc', 'x', 1)", "/etc"},
		"size":    {"create table Refs (a); create table ValidPaths (id integer primary key, path, hash, narSize); insert into ValidPaths values (1, '/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-x', 'sha256:" + strings.Repeat("0", 64) + "', 0)", "narSize is 0"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(databasePath)), 0o755); err != nil {
				t.Fatal(err)
			}
			conn, err := sqlite.OpenConn(filepath.Join(root, databasePath), sqlite.OpenReadWrite|sqlite.OpenCreate)
			if err != nil {
				t.Fatal(err)
			}
			if err := sqlitex.ExecuteScript(conn, c.sql+";", nil); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if err := os.WriteFile(filepath.Join(root, schemaPath), []byte(schemaVersion), 0o644); err != nil {
				t.Fatal(err)
			}
			o := Options{Sample: 3}
			if err := o.checkMounted(t.Context(), root, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

func TestParseMounts(t *testing.T) {
	text := "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/ro\\134ot ro,errors=continue\n37 35 0:5 / / rw - tmpfs none rw\n"
	all, err := parseMounts([]byte(text))
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if m := all[0]; m.Device != "98:0" || m.Path != "/mnt 2" || m.Type != "ext3" || m.Source != `/dev/ro\ot` || !m.readOnly() || m.Options[1] != "noatime" {
		t.Errorf("%+v", m)
	}
	if all[1].readOnly() {
		t.Errorf("%+v", all[1])
	}
	for _, bad := range []string{"x\n", "36 35 98:0 / - ext3 a b\n", "36 35 98:0 / /x rw - ext3\n"} {
		if m, err := parseMounts([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, m)
		}
	}
	if all, err := readMounts(); err != nil || len(all) == 0 {
		t.Errorf("this machine has %d mounts, %v", len(all), err)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Add([]byte("37 35 0:5 / / rw - tmpfs none rw\n\\777"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseMounts(text)
		if err != nil {
			return
		}
		if lines := strings.Count(strings.TrimSuffix(string(text), "\n"), "\n") + 1; len(text) > 0 && len(all) > lines {
			t.Errorf("%d mounts in %d lines", len(all), lines)
		}
	})
}

// TestLoopGoesAway makes sure that a loop device lives as long as its mount.
func TestLoopGoesAway(t *testing.T) {
	h := newHost(t)
	name := h.attachCopy("v1.sqsh", "v1")
	h.mount()
	at, err := mountAt(filepath.Join(h.MountRoot, "nix/v1"))
	if err != nil {
		t.Fatal(err)
	}
	if loopFile(at.Source) != name {
		t.Errorf("%s is of %q", at.Source, loopFile(at.Source))
	}
	f, err := os.OpenFile(at.Source, os.O_RDWR, 0)
	if err == nil {
		if _, err := f.Write([]byte{1}); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			t.Errorf("the device can be written to: %v", err)
		}
		f.Close()
	}
	if err := unmountAll(at.Path, false); err != nil {
		t.Fatal(err)
	}
	if loopFile(at.Source) == name {
		t.Errorf("%s is still there", at.Source)
	}
}
