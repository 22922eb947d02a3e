package host

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/gcp/guest"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/read"
)

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
		"other image":      {"v2.sqsh", manifestOf("later.sqsh"), "its metadata has the SHA-256"},
		"store paths":      {"v2.sqsh v2.raw", edit(func(m *image.Manifest) { m.Paths = m.Paths[1:]; m.Totals.StorePaths-- }), "its database has 11 store paths, but its manifest 10"},
		"shorter":          {"v2.sqsh", edit(func(m *image.Manifest) { m.Image.Size += 4096 }), "bytes, but its manifest says"},
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
		"database header":  {"v2.raw", unsummed(overwrite(databasePath, 0, 32)), "the disk's database"},
		"database page":    {"v2.raw", unsummed(overwrite(databasePath, 3*4096, 512)), "the disk's database"},
		"database row":     {"v2.raw", unsummed(overwriteText(databasePath, "sha256:", "sha512:")), "not a SHA-256 hash"},
		"database is gone": {"v2.raw", unsummed(overwriteText("", "\x09\x01db.sqlite", "\x09\x01db.sqlitf")), "bad message"},
		"schema":           {"v2.raw", unsummed(overwrite(schemaPath, 0, 2)), "its schema is"},
		"store path":       {"v2.raw", unsummed(overwriteText("", "greet the world", "greet the wurld")), "its NAR hashes to"},
		"metadata":         {"v2.raw", overwrite(databasePath, 3*4096, 512), "its metadata has the SHA-256"},
		"compressed":       {"v2.sqsh", unsummed(flipData), "its NAR hashes to"},
		"full: store path": {"v2.raw", unsummed(fullOnly(overwriteText("", "greet the world", "greet the wurld"))), "errors: "},
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

// unsummed makes the manifest say of the metadata what it is after the change,
// which would show that first.
func unsummed(c func(*testing.T, *testHost, string)) func(*testing.T, *testHost, string) {
	return func(t *testing.T, h *testHost, name string) {
		c(t, h, name)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		editManifest(t, name, func(m *image.Manifest) {
			meta := &m.Image.Metadata
			if meta.SHA256, err = image.HashExtents(t.Context(), f, meta.Extents, func(int64) {}); err != nil {
				t.Fatal(err)
			}
		})
	}
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
	m.Image.SHA256 = m.Digest()
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
