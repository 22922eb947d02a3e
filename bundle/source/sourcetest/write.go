package sourcetest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/narinfo"
	"bigdisk/bundle/store"
)

// Key signs the paths of a cache. The same name gives the same key.
type Key struct {
	name string
	key  ed25519.PrivateKey
}

// NewKey returns the key of that name.
func NewKey(name string) Key {
	seed := sha256.Sum256([]byte(name))
	return Key{name, ed25519.NewKeyFromSeed(seed[:])}
}

// Sign returns a signature of what info says now.
func (k Key) Sign(info *store.PathInfo) string {
	return k.name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(k.key, []byte(info.Fingerprint())))
}

// Keys returns the public key as what is trusted.
func (k Key) Keys(t testing.TB) store.Keys {
	t.Helper()
	public := k.key.Public().(ed25519.PublicKey)
	key, err := store.ParsePublicKey(k.name + ":" + base64.StdEncoding.EncodeToString(public))
	if err != nil {
		t.Fatal(err)
	}
	return store.Keys{key}
}

// Compress packs an archive. It can do "none", "zstd", "xz" and "gzip".
func Compress(t testing.TB, compression string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch compression {
	case "none":
		return data
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	case "xz":
		w, err = xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&b)
	case "gzip":
		w = gzip.NewWriter(&b)
	default:
		t.Fatalf("no compression %q here", compression)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// WriteCache makes a signed binary cache of m's paths in dir.
func (m *Memory) WriteCache(t testing.TB, dir, compression string, key Key) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "nix-cache-info"), []byte("StoreDir: /nix/store\nPriority: 30\n"))
	for _, p := range m.Paths() {
		n, packed := m.NarInfo(t, p, compression, key)
		writeFile(t, filepath.Join(dir, n.URL), packed)
		writeFile(t, filepath.Join(dir, p.Digest()+".narinfo"), []byte(n.String()))
	}
}

// NarInfo returns a path's narinfo and packed archive, as a cache has them. The
// caller must not change the archive.
func (m *Memory) NarInfo(t testing.TB, p store.Path, compression string, key Key) (*narinfo.NarInfo, []byte) {
	t.Helper()
	it := m.items[p]
	packed := it.packed[compression]
	if packed == nil {
		packed = Compress(t, compression, it.nar)
		it.packed[compression] = packed
	}
	n := &narinfo.NarInfo{Info: *it.info, Compression: compression, FileHash: sha256.Sum256(packed), FileSize: int64(len(packed))}
	n.URL = "nar/" + n.FileHash.Base32() + ".nar." + compression
	n.Info.Sigs = append(slices.Clone(n.Info.Sigs), key.Sign(&n.Info))
	return n, packed
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// storeSchema is what Nix's src/libstore/schema.sql has of use here.
const storeSchema = `
CREATE TABLE ValidPaths (id integer primary key autoincrement not null, path text unique not null,
	hash text not null, registrationTime integer not null, deriver text, narSize integer,
	ultimate integer, sigs text, ca text);
CREATE TABLE Refs (referrer integer not null, reference integer not null, primary key (referrer, reference),
	foreign key (referrer) references ValidPaths(id) on delete cascade,
	foreign key (reference) references ValidPaths(id) on delete restrict);
CREATE INDEX IndexReferrer ON Refs(referrer);
CREATE INDEX IndexReference ON Refs(reference);`

// WriteStore makes a Nix store of m's paths below root: its files and its
// database.
func (m *Memory) WriteStore(t testing.TB, root string) {
	t.Helper()
	db := filepath.Join(root, "nix/var/nix/db")
	if err := os.MkdirAll(db, 0o755); err != nil {
		t.Fatal(err)
	}
	conn, err := sqlite.OpenConn(filepath.Join(db, "db.sqlite"), sqlite.OpenReadWrite, sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	insert(t, conn, "PRAGMA synchronous = off")
	if err := sqlitex.ExecuteScript(conn, storeSchema, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Paths() {
		m.register(t, conn, p)
		tree, err := ReadAll(m.open(t, p))
		if err != nil {
			t.Fatal(err)
		}
		WriteTree(t, filepath.Join(root, string(p)), tree)
	}
	for _, p := range m.Paths() {
		for _, r := range m.items[p].info.References {
			insert(t, conn, `INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, string(p), string(r))
		}
	}
}

func (m *Memory) open(t testing.TB, p store.Path) store.Contents {
	t.Helper()
	c, err := m.Open(t.Context(), m.items[p].info)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *Memory) register(t testing.TB, conn *sqlite.Conn, p store.Path) {
	t.Helper()
	info := m.items[p].info
	insert(t, conn, `INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize, sigs, ca) VALUES (?, ?, 1, ?, ?, ?, ?)`,
		string(p), "sha256:"+info.NarHash.Base16(), null(string(info.Deriver)), info.NarSize, null(strings.Join(info.Sigs, " ")), null(info.CA))
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func insert(t testing.TB, conn *sqlite.Conn, query string, args ...any) {
	t.Helper()
	if err := sqlitex.Execute(conn, query, &sqlitex.ExecOptions{Args: args}); err != nil {
		t.Fatal(err)
	}
}

// WriteTree makes a tree at that place on disk.
func WriteTree(t testing.TB, at string, tree []File) {
	t.Helper()
	for _, f := range tree {
		name := filepath.Join(at, f.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case f.Kind == store.Directory:
			err = os.Mkdir(name, 0o755)
		case f.Kind == store.Symlink:
			err = os.Symlink(f.Target, name)
		case f.Executable:
			err = os.WriteFile(name, f.Data, 0o755)
		default:
			err = os.WriteFile(name, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
