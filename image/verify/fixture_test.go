package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/imagetest"
	"bigdisk/image/internal/filesum"
)

// The store paths of the fixture: app refers to lib, and lib to itself.
const (
	libPath  = "/nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-lib-1.0"
	appPath  = "/nix/store/2gxzhm6806vvizda48sy77ib1k7rjgv9-app-1.0"
	filePath = "/nix/store/3sdlz3vkx30k5r7fznx09ka57y3gqdi1-readme"
	noPath   = "/nix/store/4sdlz3vkx30k5r7fznx09ka57y3gqdi1-absent"
)

var formats = []string{"squashfs", "ext4"}

// fixture is a small store in a directory, which other tools make images of.
type fixture struct {
	t   testing.TB
	dir string
	// late holds what to do just before the image is made.
	late []func()
}

// newFixture makes a store that nothing is wrong with.
func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, dir: filepath.Join(t.TempDir(), "root")}
	t.Cleanup(f.unlock)
	f.file(libPath+"/lib/libfoo.so", imagetest.Noise(1, 300<<10)+libPath, false)
	f.file(libPath+"/lib/empty", "", false)
	f.file(libPath+"/share/big.txt", imagetest.Text(2, 900<<10), false)
	f.file(appPath+"/bin/app", "#!"+libPath+"/lib/ld.so\n", true)
	f.link(appPath+"/lib", libPath+"/lib")
	f.link(appPath+"/long", strings.Repeat("../x", 40))
	for i := range 300 {
		f.file(fmt.Sprintf("%s/share/doc/a-name-that-is-rather-long-%03d", appPath, i), fmt.Sprint(i), i%2 == 0)
	}
	f.file(filePath, "read me\n", false)
	for _, d := range lowerDirs {
		f.mkdir("/" + d)
	}
	f.file("/"+schemaPath, "10", false)
	f.file("/"+modulesPath, `{"app:v1": {"commit": "c0ffee", "path": "`+appPath+`"}}`, false)
	f.database()
	return f
}

func (f *fixture) at(path string) string { return filepath.Join(f.dir, path) }

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) mkdir(path string) {
	f.t.Helper()
	f.must(os.MkdirAll(f.at(path), 0o755))
}

func (f *fixture) file(path, data string, executable bool) {
	f.t.Helper()
	f.mkdir(filepath.Dir(path))
	mode := os.FileMode(0o444)
	if executable {
		mode = 0o555
	}
	os.Remove(f.at(path))
	f.must(os.WriteFile(f.at(path), []byte(data), mode))
	f.must(os.Chmod(f.at(path), mode))
}

func (f *fixture) link(path, target string) {
	f.t.Helper()
	f.mkdir(filepath.Dir(path))
	f.must(os.Symlink(target, f.at(path)))
}

// database registers what is in the store.
func (f *fixture) database() {
	f.t.Helper()
	f.sql(`create table ValidPaths (id integer primary key autoincrement not null, path text unique not null, hash text not null,
		registrationTime integer not null, deriver text, narSize integer, ultimate integer, sigs text, ca text);
		create table Refs (referrer integer not null, reference integer not null, primary key (referrer, reference),
		foreign key (referrer) references ValidPaths(id) on delete cascade, foreign key (reference) references ValidPaths(id) on delete restrict);
		create index IndexReference on Refs(reference);
		create table SchemaMigrations (migration text primary key not null);`)
	for i, p := range []string{libPath, appPath, filePath} {
		hash, size := f.nar(p)
		f.sql(fmt.Sprintf("insert into ValidPaths (id, path, hash, registrationTime, narSize) values (%d, '%s', 'sha256:%s', 1, %d)", i+1, p, hash.Base16(), size))
	}
	f.sql("insert into Refs values (1, 1), (2, 1)")
}

// nar returns hash and size of a path's NAR, by the serialiser that this
// package does not use.
func (f *fixture) nar(path string) (store.Hash, int64) {
	f.t.Helper()
	h := sha256.New()
	n := &countingWriter{}
	f.must(nar.Dump(context.Background(), nar2{h, n}, f.at(path)))
	return store.Hash(h.Sum(nil)), n.n
}

type countingWriter struct{ n int64 }

type nar2 struct {
	h interface{ Write([]byte) (int, error) }
	n *countingWriter
}

func (w nar2) Write(p []byte) (int, error) {
	w.n.n += int64(len(p))
	return w.h.Write(p)
}

// sql changes the database.
func (f *fixture) sql(script string) {
	f.t.Helper()
	name := f.at(databasePath)
	f.mkdir(filepath.Dir("/" + databasePath))
	os.Chmod(name, 0o644)
	conn, err := sqlite.OpenConn(name, sqlite.OpenReadWrite, sqlite.OpenCreate)
	f.must(err)
	defer func() {
		f.must(conn.Close())
		f.must(os.Chmod(name, 0o444))
	}()
	f.must(sqlitex.ExecuteScript(conn, script, nil))
}

// wal puts the database into WAL mode.
func (f *fixture) wal() {
	f.t.Helper()
	name := f.at(databasePath)
	f.must(os.Chmod(name, 0o644))
	conn, err := sqlite.OpenConn(name, sqlite.OpenReadWrite)
	f.must(err)
	f.must(sqlitex.ExecuteTransient(conn, "pragma journal_mode = wal", nil))
	f.must(conn.Close())
	f.must(os.Chmod(name, 0o444))
}

// canonical gives everything the modes and times of a Nix store.
func (f *fixture) canonical() {
	f.t.Helper()
	one := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	var all []string
	f.must(filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o555)
		}
		all = append(all, p)
		return err
	}))
	for _, p := range slices.Backward(all) {
		f.must(unix.UtimesNanoAt(unix.AT_FDCWD, p, one, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// unlock lets the temporary directory be removed by a user who is not root.
func (f *fixture) unlock() {
	filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(p, 0o755)
		}
		return nil
	})
}

// image makes an image of the store with other people's tools.
func (f *fixture) image(format string) string {
	f.t.Helper()
	f.canonical()
	for _, do := range f.late {
		do()
	}
	name := filepath.Join(f.t.TempDir(), "disk."+format)
	if format == "squashfs" {
		imagetest.NeedTools(f.t, "mksquashfs")
		imagetest.Command(f.t, "mksquashfs", f.dir, name, "-comp", "zstd", "-b", "64K", "-no-xattrs", "-quiet", "-no-progress", "-mkfs-time", "1")
		return name
	}
	imagetest.NeedTools(f.t, "mke2fs", "debugfs")
	cmd := exec.Command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,metadata_csum,64bit", "-m", "0", "-L", "test", "-d", f.dir, name, "8M")
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("mke2fs: %v: %s", err, out)
	}
	debugfs := exec.Command("debugfs", "-w", "-f", "/dev/stdin", name)
	debugfs.Stdin = strings.NewReader(fmt.Sprintf("sif / mode 040555\nsif / uid %d\nsif / gid %d\n", os.Getuid(), os.Getgid()))
	debugfs.Env = cmd.Env
	if out, err := debugfs.CombinedOutput(); err != nil {
		f.t.Fatalf("debugfs: %v: %s", err, out)
	}
	return name
}

// manifest describes the image as the writer of ours would.
func (f *fixture) manifest(name, format string) *image.Manifest {
	f.t.Helper()
	data, err := os.ReadFile(name)
	f.must(err)
	m := &image.Manifest{
		Version: image.ManifestVersion,
		Image:   image.ManifestImage{Format: format, Size: int64(len(data)), Label: "test"},
		Options: image.ManifestOptions{BlockSize: 65536, Compression: "zstd:default", Owner: fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())},
		Modules: []image.ManifestModule{{ID: "app:v1", Commit: "c0ffee", Path: appPath}},
		Totals:  f.totals(),
	}
	if format == "ext4" {
		m.Options.BlockSize, m.Options.Compression = 4096, ""
		if len(data) < 512<<20 {
			m.Options.BlockSize = 0 // mke2fs takes 1 KiB for a small disk
		}
	}
	// Where mksquashfs and mke2fs put things is not known: all is metadata.
	m.Image.Metadata = image.ManifestMetadata{Extents: []image.Extent{{Length: int64(len(data))}}, SHA256: sha256.Sum256(data)}
	for _, p := range []string{libPath, appPath, filePath} {
		hash, size := f.nar(p)
		sums := f.sums(p)
		m.Paths = append(m.Paths, image.ManifestPath{Path: store.Path(p), NarHash: hash, NarSize: size, Files: f.files(p), DataSum: sums.Sum(), Sums: sums})
	}
	m.Image.SHA256 = m.Digest()
	return m
}

// sums are those of the files that are not empty.
func (f *fixture) sums(path string) (sums image.FileSums) {
	h := filesum.New()
	filepath.WalkDir(f.at(path), func(p string, d fs.DirEntry, err error) error {
		f.must(err)
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(p)
		f.must(err)
		if len(data) > 0 {
			h.Write(data)
			sums = append(sums, h.End(int64(len(data))))
		}
		return nil
	})
	return sums
}

func (f *fixture) files(path string) (n int64) {
	filepath.WalkDir(f.at(path), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}

func (f *fixture) totals() (t image.ManifestTotals) {
	t.StorePaths = 3
	filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || p == f.dir:
		case d.IsDir():
			t.Directories++
		case d.Type().IsRegular():
			t.Files++
			if i, err := d.Info(); err == nil {
				t.Bytes += i.Size()
			}
		default:
			t.Symlinks++
		}
		return nil
	})
	return t
}

// check verifies and returns the kinds of what was found.
func check(t testing.TB, o Options) (*Report, []Kind) {
	t.Helper()
	o.ScratchDir = t.TempDir()
	r, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	for _, f := range r.Findings {
		kinds = append(kinds, f.Kind)
	}
	slices.Sort(kinds)
	return r, slices.Compact(kinds)
}

func dump(r *Report) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	if err := e.Encode(r.Findings); err != nil {
		return err.Error()
	}
	return b.String()
}
