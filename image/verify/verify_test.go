package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/verity"
)

func TestSound(t *testing.T) {
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			f := newFixture(t)
			name := f.image(format)
			for _, m := range []*image.Manifest{nil, f.manifest(name, format)} {
				r, kinds := check(t, Options{Image: name, Manifest: m, Jobs: 3})
				if len(kinds) > 0 || !r.OK() {
					t.Errorf("with manifest %v: %s", m != nil, dump(r))
				}
				if r.StorePaths != 3 || r.Files != f.totals().Files || r.Bytes != f.totals().Bytes {
					t.Errorf("report %+v, want %+v", r, f.totals())
				}
			}
		})
	}
}

// disagreements has one entry for each way in which things can disagree.
var disagreements = []struct {
	name string
	// break_ changes the store before, late after modes and times were set.
	break_, late func(f *fixture)
	manifest     func(m *image.Manifest)
	// want are the kinds that must be found, and no other; path is what one of
	// the findings must name.
	want []Kind
	path string
	// warn means that nothing is an error.
	warn bool
}{
	{name: "missing path", break_: func(f *fixture) { f.must(os.RemoveAll(f.at(filePath))) },
		want: []Kind{PathNotOnDisk}, path: filePath},
	{name: "extra path", break_: func(f *fixture) { f.file(noPath, "x", false) },
		want: []Kind{PathNotInDatabase}, path: noPath},
	{name: "extra name", break_: func(f *fixture) { f.file("/nix/store/tmp.lock", "x", false) },
		want: []Kind{NotStorePath}, path: "/nix/store/tmp.lock"},
	{name: "wrong mode of a file", late: func(f *fixture) { f.must(os.Chmod(f.at(libPath+"/lib/libfoo.so"), 0o644)) },
		want: []Kind{WrongMode}, path: libPath},
	{name: "set-user-ID", late: func(f *fixture) { f.must(os.Chmod(f.at(appPath+"/bin/app"), 0o555|os.ModeSetuid)) },
		want: []Kind{WrongMode}, path: appPath},
	{name: "wrong mode of a directory", late: func(f *fixture) { f.must(os.Chmod(f.at(appPath+"/share/doc"), 0o755)) },
		want: []Kind{WrongMode}, path: appPath},
	{name: "executable bit lost", late: func(f *fixture) { f.must(os.Chmod(f.at(appPath+"/bin/app"), 0o444)) },
		want: []Kind{NarHash, NarSize}, path: appPath},
	{name: "wrong time", late: func(f *fixture) {
		f.must(os.Chtimes(f.at(libPath+"/lib/empty"), time.Unix(5, 0), time.Unix(5, 0)))
	}, want: []Kind{WrongTime}, path: libPath},
	{name: "FIFO", break_: func(f *fixture) { f.must(syscall.Mkfifo(f.at(libPath+"/lib/pipe"), 0o444)) },
		want: []Kind{WrongFileType}, path: libPath},
	{name: "changed byte", break_: func(f *fixture) { f.file(filePath, "reed me\n", false) },
		want: []Kind{NarHash}, path: filePath},
	{name: "changed size", break_: func(f *fixture) { f.file(filePath, "read me twice, please\n", false) },
		want: []Kind{NarHash, NarSize}, path: filePath},
	{name: "wrong NAR size in the database", break_: func(f *fixture) { f.sql("update ValidPaths set narSize = 1000 where id = 3") },
		want: []Kind{NarSize}, path: filePath},
	{name: "wrong NAR hash in the database", break_: func(f *fixture) {
		f.sql("update ValidPaths set hash = (select hash from ValidPaths where id = 1) where id = 3")
	}, want: []Kind{NarHash}, path: filePath},
	{name: "missing Refs row", break_: func(f *fixture) { f.sql("delete from Refs where referrer = 2") },
		want: []Kind{MissingReference}, path: appPath},
	{name: "Refs row to nowhere", break_: func(f *fixture) { f.sql("pragma foreign_keys = off; insert into Refs values (3, 99)") },
		want: []Kind{DanglingReference}, path: filePath},
	{name: "Refs row from nowhere", break_: func(f *fixture) { f.sql("pragma foreign_keys = off; insert into Refs values (99, 1)") },
		want: []Kind{DanglingReference}, path: "/" + databasePath},
	{name: "reference to an absent path", break_: func(f *fixture) {
		f.sql("insert into ValidPaths (id, path, hash, registrationTime, narSize) select 4, '" + noPath + "', hash, 1, 120 from ValidPaths where id = 3; insert into Refs values (3, 4)")
	}, want: []Kind{PathNotOnDisk}, path: noPath},
	{name: "circle", break_: func(f *fixture) { f.sql("insert into Refs values (1, 2)") },
		want: []Kind{ReferenceCycle}, path: libPath},
	{name: "no database", break_: func(f *fixture) { f.must(os.Remove(f.at(databasePath))) },
		want: []Kind{DatabaseMissing, LowerStore}, path: "/" + databasePath},
	{name: "database is not one", break_: func(f *fixture) { f.file("/"+databasePath, strings.Repeat("not a database", 999), false) },
		want: []Kind{DatabaseDamaged, LowerStore}, path: "/" + databasePath},
	{name: "damaged database", break_: func(f *fixture) {
		b, err := os.ReadFile(f.at(databasePath))
		f.must(err)
		clear(b[len(b)-4096:])
		f.file("/"+databasePath, string(b), false)
	}, want: []Kind{DatabaseDamaged}, path: "/" + databasePath},
	{name: "no table", break_: func(f *fixture) { f.sql("drop table Refs") },
		want: []Kind{DatabaseSchema}, path: "/" + databasePath},
	{name: "view", break_: func(f *fixture) { f.sql("alter table Refs rename to r; create view Refs as select * from r") },
		want: []Kind{DatabaseSchema}, path: "/" + databasePath},
	{name: "bad path in a row", break_: func(f *fixture) {
		f.sql("insert into ValidPaths (path, hash, registrationTime, narSize) values ('/nix/store/x', 'sha256:0', 1, 1)")
	}, want: []Kind{DatabaseRow}, path: "/nix/store/x"},
	{name: "what is no content address in a row", break_: func(f *fixture) { f.sql("update ValidPaths set ca = 'xxxx' where id = 3") },
		want: []Kind{DatabaseRow}, path: filePath},
	{name: "another path's content address in a row", break_: func(f *fixture) {
		f.sql("update ValidPaths set ca = 'fixed:r:sha256:0wc7f1y7ngq622vf4k02ipcbi5ra569wk2ca0dfh5gcz0sqpwiy8' where id = 3")
	}, want: []Kind{DatabaseRow}, path: filePath},
	{name: "bad deriver in a row", break_: func(f *fixture) { f.sql("update ValidPaths set deriver = 'x.drv' where id = 3") },
		want: []Kind{DatabaseRow, PathNotInDatabase}, path: filePath},
	{name: "bad hash in a row", break_: func(f *fixture) { f.sql("update ValidPaths set hash = 'md5:0' where id = 3") },
		want: []Kind{DatabaseRow, PathNotInDatabase}, path: filePath},
	{name: "database that only root can read", late: func(f *fixture) { f.must(os.Chmod(f.at(databasePath), 0o400)) },
		want: []Kind{LowerStore}, path: "/" + databasePath, warn: true},
	{name: "WAL", break_: func(f *fixture) { f.wal() },
		want: []Kind{LowerStore}, path: "/" + databasePath, warn: true},
	{name: "no SchemaMigrations", break_: func(f *fixture) { f.sql("drop table SchemaMigrations") },
		want: []Kind{LowerStore}, path: "/" + databasePath, warn: true},
	{name: "wrong schema", break_: func(f *fixture) { f.file("/"+schemaPath, "10\n", false) },
		want: []Kind{LowerStore}, path: "/" + schemaPath, warn: true},
	{name: "no directory for roots", break_: func(f *fixture) { f.must(os.Remove(f.at("/nix/var/nix/temproots"))) },
		want: []Kind{LowerStore}, path: "/nix/var/nix/temproots", warn: true},
	{name: "dangling symlink", break_: func(f *fixture) {
		f.link(noPath, noPath[:len(noPath)-6]+"gone")
		hash, size := f.nar(noPath)
		f.sql(fmt.Sprintf("insert into ValidPaths (path, hash, registrationTime, narSize) values ('%s', 'sha256:%s', 1, %d)", noPath, hash.Base16(), size))
	}, want: []Kind{DanglingSymlink}, path: noPath, warn: true},
	{name: "modules.json is not JSON", break_: func(f *fixture) { f.file("/"+modulesPath, "{", false) },
		want: []Kind{BadModules}, path: "/" + modulesPath},
	{name: "module that is not there", break_: func(f *fixture) {
		f.file("/"+modulesPath, `{"x:v1": {"commit": "0", "path": "`+noPath+`"}}`, false)
	}, want: []Kind{ModulePathNotOnDisk}, path: noPath},
	{name: "module with a bad path", break_: func(f *fixture) {
		f.file("/"+modulesPath, `{"x:v1": {"commit": "0", "path": "/bin/sh"}}`, false)
	}, want: []Kind{BadModules}, path: "/" + modulesPath},

	{name: "stale hash", manifest: func(m *image.Manifest) { m.Image.Metadata.SHA256[0] ^= 1 },
		want: []Kind{StaleHash}},
	{name: "stale size", manifest: func(m *image.Manifest) { m.Image.Size++ },
		want: []Kind{StaleSize}},
	{name: "manifest of another format", manifest: func(m *image.Manifest) { m.Image.Format = "xfs" },
		want: []Kind{StaleFacts}},
	{name: "manifest counts", manifest: func(m *image.Manifest) { m.Totals.Files++ },
		want: []Kind{StaleFacts}},
	{name: "manifest counts a directory more", manifest: func(m *image.Manifest) { m.Totals.Directories++ },
		want: []Kind{StaleFacts}},
	{name: "manifest counts a directory less", manifest: func(m *image.Manifest) { m.Totals.Directories-- },
		want: []Kind{StaleFacts}},
	{name: "path only on disk", manifest: func(m *image.Manifest) { m.Paths = m.Paths[:2] },
		want: []Kind{PathNotInManifest}, path: filePath},
	{name: "path only in the manifest", manifest: func(m *image.Manifest) {
		m.Paths = append(m.Paths, image.ManifestPath{Path: noPath, NarHash: m.Paths[0].NarHash, NarSize: 1})
	}, want: []Kind{ManifestPathNotOnDisk}, path: noPath},
	{name: "manifest's NAR hash", manifest: func(m *image.Manifest) { m.Paths[0].NarHash[0] ^= 1 },
		want: []Kind{ManifestNarHash}, path: libPath},
	{name: "manifest's NAR size", manifest: func(m *image.Manifest) { m.Paths[0].NarSize++ },
		want: []Kind{ManifestNarSize}, path: libPath},
	{name: "manifest's files", manifest: func(m *image.Manifest) { m.Paths[0].Files++ },
		want: []Kind{ManifestFiles}, path: libPath},
	{name: "manifest without sums", manifest: func(m *image.Manifest) {
		setSums(m, func(*image.ManifestPath) image.FileSums { return nil })
	}, want: []Kind{ManifestSum}, path: libPath},
	{name: "manifest's sums", manifest: func(m *image.Manifest) {
		setSums(m, func(p *image.ManifestPath) image.FileSums { return make(image.FileSums, p.Files) })
	}, want: []Kind{ManifestSum}, path: libPath},
	{name: "manifest with too many sums", manifest: func(m *image.Manifest) {
		setSums(m, func(p *image.ManifestPath) image.FileSums { return make(image.FileSums, p.Files+1) })
	}, want: []Kind{ManifestSum}, path: filePath},
	{name: "module only in the manifest", manifest: func(m *image.Manifest) {
		m.Modules = append(m.Modules, image.ManifestModule{ID: "y:v1", Path: libPath})
	}, want: []Kind{ManifestModules}, path: libPath},
	{name: "module only on the disk", manifest: func(m *image.Manifest) { m.Modules = nil },
		want: []Kind{ManifestModules}, path: appPath},
	{name: "module at another commit", manifest: func(m *image.Manifest) { m.Modules[0].Commit = "decaf" },
		want: []Kind{ManifestModules}, path: appPath},
	{name: "owner", manifest: func(m *image.Manifest) { m.Options.Owner = "4242:4242" },
		want: []Kind{WrongOwner}, path: appPath},
	{name: "no owner", manifest: func(m *image.Manifest) { m.Options.Owner = "root" },
		want: []Kind{StaleFacts}},
	{name: "partition", manifest: func(m *image.Manifest) { m.Image.Part = &image.Extent{Offset: 1 << 20, Length: 1} },
		want: []Kind{StaleFacts}},
	{name: "mode outside the store", late: func(f *fixture) { f.must(os.Chmod(f.at("etc"), 0o755)) }, manifest: func(*image.Manifest) {},
		want: []Kind{WrongMode}, path: "/etc"},
	{name: "not a lower store", break_: func(f *fixture) { f.must(os.Remove(f.at("/nix/var/nix/temproots"))) }, manifest: func(*image.Manifest) {},
		want: []Kind{LowerStore}, path: "/nix/var/nix/temproots"},
	{name: "no hash tree", manifest: func(m *image.Manifest) { m.Verity = &image.ManifestVerity{Offset: 4096} },
		want: []Kind{Verity}},
}

// setSums gives every path other sums of its files, and the sum of these.
func setSums(m *image.Manifest, sums func(p *image.ManifestPath) image.FileSums) {
	for i := range m.Paths {
		p := &m.Paths[i]
		p.Sums = sums(p)
		p.DataSum = p.Sums.Sum()
	}
}

// TestDataSum wants the sum of a squashfs path's data to be looked at also where
// other paths have all of the data.
func TestDataSum(t *testing.T) {
	f := newFixture(t)
	name := f.image("squashfs")
	for _, sum := range []*image.DataSum{nil, {1}} {
		m := f.manifest(name, "squashfs")
		m.Paths[0].DataSum = sum
		if r, kinds := check(t, Options{Image: name, Manifest: m, NoSecondReader: true}); !slices.Equal(kinds, []Kind{StaleHash}) {
			t.Errorf("with %v, found %q: %s", sum, kinds, dump(r))
		}
	}
}

func TestDisagreements(t *testing.T) {
	for i, c := range disagreements {
		format := formats[i%len(formats)] // what is checked does not depend on it
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if c.break_ != nil {
				c.break_(f)
			}
			if c.late != nil {
				f.late = append(f.late, func() { c.late(f) })
			}
			o := Options{Image: f.image(format), Jobs: 2, NoSecondReader: true}
			if c.manifest != nil {
				o.Manifest = f.manifest(o.Image, format)
				c.manifest(o.Manifest)
			}
			r, kinds := check(t, o)
			if !slices.Equal(kinds, c.want) {
				t.Errorf("found %q, want %q: %s", kinds, c.want, dump(r))
			}
			if r.OK() != c.warn {
				t.Errorf("OK is %v: %s", r.OK(), dump(r))
			}
			if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Path == c.path }) {
				t.Errorf("no finding names %q: %s", c.path, dump(r))
			}
		})
	}
}

// TestEveryKindIsTested makes sure that no kind of finding is without a test.
func TestEveryKindIsTested(t *testing.T) {
	elsewhere := []Kind{Unreadable, ReadersDisagree, WrongLinks, BadSymlink}
	all := []Kind{
		Unreadable, StaleSize, StaleHash, StaleFacts, Verity, ReadersDisagree, NotStorePath, WrongMode, WrongOwner, WrongTime,
		WrongLinks, WrongFileType, BadSymlink, DanglingSymlink, LowerStore, PathNotOnDisk, PathNotInDatabase, PathNotInManifest,
		ManifestPathNotOnDisk, NarHash, NarSize, ManifestNarHash, ManifestNarSize, ManifestFiles, ManifestSum, MissingReference, DanglingReference,
		ReferenceCycle, DatabaseMissing, DatabaseDamaged, DatabaseSchema, DatabaseRow, BadModules, ModulePathNotOnDisk, ManifestModules,
	}
	for _, k := range all {
		tested := slices.Contains(elsewhere, k)
		for _, c := range disagreements {
			tested = tested || slices.Contains(c.want, k)
		}
		if !tested {
			t.Errorf("nothing tests %q", k)
		}
	}
}

func TestVerity(t *testing.T) {
	f := newFixture(t)
	name := f.image("ext4")
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	info, err := file.Stat()
	f.must(err)
	tree, err := verity.Append(context.Background(), file, info.Size(), verity.Options{Workers: 2})
	f.must(err)
	m := f.manifest(name, "ext4")
	m.Verity = &image.ManifestVerity{RootHash: tree.RootHash, Offset: tree.Offset, Salt: tree.SaltHex(), UUID: tree.UUIDString()}
	if r, kinds := check(t, Options{Image: name, Manifest: m}); len(kinds) > 0 {
		t.Errorf("a sound tree: %s", dump(r))
	}
	m.Verity.RootHash[3] ^= 1
	if r, kinds := check(t, Options{Image: name, Manifest: m}); !slices.Equal(kinds, []Kind{Verity}) {
		t.Errorf("another root hash: %s", dump(r))
	}
	m.Verity.RootHash[3] ^= 1
	m.Verity.Salt = "00"
	if r, kinds := check(t, Options{Image: name, Manifest: m}); !slices.Equal(kinds, []Kind{Verity}) {
		t.Errorf("another salt: %s", dump(r))
	}
}

func TestWrongLinks(t *testing.T) {
	imagetest.NeedTools(t, "debugfs")
	f := newFixture(t)
	f.must(os.Link(f.at(filePath), f.at(noPath)))
	f.sql("insert into ValidPaths (path, hash, registrationTime, narSize) select '" + noPath + "', hash, 1, narSize from ValidPaths where id = 3")
	name := f.image("ext4")
	if r, kinds := check(t, Options{Image: name}); len(kinds) > 0 {
		t.Fatalf("hard links: %s", dump(r))
	}
	imagetest.Command(t, "debugfs", "-w", "-R", "sif "+filePath+" links_count 7", name)
	r, kinds := check(t, Options{Image: name})
	if !slices.Equal(kinds, []Kind{WrongLinks}) || r.Findings[0].Path != filePath {
		t.Errorf("found %s", dump(r))
	}
}

func TestBadSymlink(t *testing.T) {
	f := newFixture(t)
	f.link(noPath, "target-with-a-null")
	name := f.image("squashfs")
	// mksquashfs compresses inodes; store them as they are to find the target.
	imagetest.Command(t, "mksquashfs", f.dir, name, "-noappend", "-comp", "gzip", "-noI", "-no-xattrs", "-quiet", "-no-progress")
	b, err := os.ReadFile(name)
	f.must(err)
	at := strings.Index(string(b), "target-with-a-null")
	if at < 0 {
		t.Fatal("the target is not in the image")
	}
	b[at+6] = 0
	f.must(os.WriteFile(name, b, 0o600))
	if r, kinds := check(t, Options{Image: name}); !slices.Contains(kinds, BadSymlink) {
		t.Errorf("found %s", dump(r))
	}
}

func TestProgressAddsUp(t *testing.T) {
	f := newFixture(t)
	name := f.image("squashfs")
	m := f.manifest(name, "squashfs")
	var stages []*testCounter
	var lock = make(chan struct{}, 1)
	_, err := Verify(context.Background(), Options{Image: name, Manifest: m, Jobs: 3, Stage: func(what string, total int64) Counter {
		lock <- struct{}{}
		defer func() { <-lock }()
		c := &testCounter{name: what, total: total}
		stages = append(stages, c)
		return c
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 {
		t.Fatalf("%d stages", len(stages))
	}
	for _, s := range stages {
		if s.finished.Load() != 1 || s.done.Load() == 0 || s.done.Load() > s.total {
			t.Errorf("%s: %d of %d, finished %d times", s.name, s.done.Load(), s.total, s.finished.Load())
		}
	}
}

type testCounter struct {
	name           string
	total          int64
	done, finished atomic.Int64
}

func (c *testCounter) Add(n int64) { c.done.Add(n) }
func (c *testCounter) Finish()     { c.finished.Add(1) }

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Verify(context.Background(), Options{Image: filepath.Join(dir, "absent")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent image: %v", err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("text", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), Options{Image: text}); err == nil {
		t.Error("a text file was verified")
	}
	f := newFixture(t)
	image := f.image("squashfs")
	if r, err := Verify(context.Background(), Options{Image: image, ScratchDir: filepath.Join(dir, "absent")}); err == nil {
		t.Errorf("without a scratch directory the image is told to be wrong: %s", dump(r))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, Options{Image: image}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMaxBytes(t *testing.T) {
	f := newFixture(t)
	r, kinds := check(t, Options{Image: f.image("ext4"), MaxBytes: 100 << 10})
	if !slices.Contains(kinds, Unreadable) {
		t.Errorf("found %s", dump(r))
	}
}

func TestBlockDevice(t *testing.T) {
	imagetest.NeedRoot(t, "set up a loop device")
	imagetest.NeedTools(t, "losetup")
	f := newFixture(t)
	name := f.image("ext4")
	m := f.manifest(name, "ext4")
	f.must(os.Truncate(name, m.Image.Size+1<<20)) // a disk may be larger
	loop := strings.TrimSpace(imagetest.Command(t, "losetup", "-f", "--show", "-r", name))
	defer imagetest.Command(t, "losetup", "-d", loop)
	if r, kinds := check(t, Options{Image: loop, Manifest: m}); len(kinds) > 0 {
		t.Errorf("found %s", dump(r))
	}
}

func TestScanner(t *testing.T) {
	digest := store.Path(libPath).Digest()
	for _, c := range []struct {
		pieces []string
		want   int
	}{
		{[]string{digest}, 1},
		{[]string{"/nix/store/" + digest + "-lib"}, 1},
		{[]string{"e" + digest[1:]}, 0},
		{[]string{digest[:31]}, 0},
		{[]string{digest[:5], digest[5:]}, 1},
		{[]string{digest[:31], digest[31:]}, 1},
		{[]string{"xu" + digest[:1], digest[1:2], digest[2:30], digest[30:] + "-"}, 1},
		{[]string{strings.Repeat("E", 100) + digest, digest}, 2},
		{strings.Split(strings.Repeat("E", 40)+digest+"/", ""), 1},
	} {
		n := 0
		s := scanner{found: func(b []byte) {
			if string(b) == digest {
				n++
			}
		}}
		for _, p := range c.pieces {
			s.scan([]byte(p))
		}
		if n != c.want {
			t.Errorf("%q: found %d, want %d", c.pieces, n, c.want)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for name, data := range map[string]string{"noise": imagetest.Noise(1, 1<<20), "text": imagetest.Text(1, 1<<20)} {
		b.Run(name, func(b *testing.B) {
			p := []byte(data)
			s := scanner{found: func([]byte) {}}
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				s.scan(p)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, format := range formats {
		b.Run(format, func(b *testing.B) {
			f := newFixture(b)
			name := f.image(format)
			b.SetBytes(f.totals().Bytes)
			for b.Loop() {
				if r, err := Verify(context.Background(), Options{Image: name, NoSecondReader: true}); err != nil || !r.OK() {
					b.Fatal(err, r)
				}
			}
		})
	}
}
