package image

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"bigdisk/bundle/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// aManifest has every field set.
func aManifest(t testing.TB) *Manifest {
	t.Helper()
	digest := func(c byte) (h [32]byte) { return [32]byte(bytes.Repeat([]byte{c}, 32)) }
	path := func(c byte, name string) store.Path {
		p, err := store.ParsePath("/nix/store/" + strings.Repeat(string(c), 32) + "-" + name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	glibc, mod, tool := path('0', "glibc-2.36"), path('1', "module-go-1.19"), path('2', "hello+tool_2.?=x")
	m := &Manifest{
		Version: ManifestVersion,
		Image: ManifestImage{Format: "squashfs", Size: 1 << 20, Label: "bigdisk-1234567", Part: &Extent{4096, 1<<20 - 4096},
			Metadata: ManifestMetadata{Extents: []Extent{{4096, 96}, {21000, 4000}}, SHA256: digest(0x77)}},
		Options: ManifestOptions{Compression: "zstd:default", BlockSize: 262144, Owner: "0:0", Partition: "gpt", Writable: true, Layout: 1},
		Lock:    &ManifestLock{SHA256: digest(0xcd)},
		Modules: []ManifestModule{{ID: "go-1.19:v1-20230522-c48c43c", Commit: strings.Repeat("c", 40), Path: mod}},
		Roots:   []store.Path{tool},
		Missing: []ManifestMissing{{
			ManifestModule{ID: "bun-0.6:v1-20230607-15011da", Commit: strings.Repeat("1", 40), Path: path('3', "module-bun")}, "no store has it"}},
		Totals: ManifestTotals{StorePaths: 3, Files: 12, Directories: 5, Symlinks: 1, Bytes: 40000, UniqueBytes: 30000},
		Verity: &ManifestVerity{RootHash: digest(0xef), Offset: 1 << 19, Salt: "00ff", UUID: "12345678-1234-1234-1234-123456789abc"},
		Paths: []ManifestPath{
			{Path: glibc, NarHash: digest(1), NarSize: 30000, Files: 10, Data: []Extent{{8192, 9000}, {20000, 100}}},
			{Path: mod, NarHash: digest(2), NarSize: 600, Files: 1, Data: []Extent{{17192, 300}}, DataSum: (*DataSum)(new(digest(0x99))), Sums: FileSums{{1, 2, 3}}},
			{Path: tool, NarHash: digest(3), NarSize: 600},
		},
	}
	m.Image.SHA256 = m.Digest()
	return m
}

func encode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestManifestGolden(t *testing.T) {
	const golden = "testdata/manifest.json"
	got := encode(t, aManifest(t))
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the format has changed; got\n%s\nwant\n%s", got, want)
	}
}

// TestManifestRoundTrip also fails when a field is added to the struct but not
// to the encoder or the decoder: every field must be set and come back.
func TestManifestRoundTrip(t *testing.T) {
	want := aManifest(t)
	for i, v := 0, reflect.ValueOf(*want); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves %s unset", v.Type().Field(i).Name)
		}
	}
	got, err := DecodeManifest(iotest.OneByteReader(bytes.NewReader(encode(t, want))))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	least := &Manifest{
		Version: want.Version, Image: ManifestImage{Format: "ext4", Size: 4096, Metadata: ManifestMetadata{Extents: []Extent{{0, 4096}}}},
		Options: ManifestOptions{BlockSize: 4096, Owner: "0:0"},
	}
	least.Image.SHA256 = least.Digest()
	if got, err = DecodeManifest(bytes.NewReader(encode(t, least))); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, least) {
		t.Errorf("got\n%+v\nwant\n%+v", got, least)
	}
}

func TestManifestSkipsNewFields(t *testing.T) {
	want := aManifest(t)
	b := strings.Replace(string(encode(t, want)), `"image": {`, `"later": {"a": [1, {"b": null}], "c": "d"}, "image": {"more": [1], `, 1)
	got, err := DecodeManifest(strings.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// TestManifestRefuses changes one thing of a good manifest at a time.
func TestManifestRefuses(t *testing.T) {
	glibc, sum := string(aManifest(t).Paths[0].Path), aManifest(t).Image.SHA256.String()
	tests := []struct{ name, old, new, want string }{
		{"other version", `"version": 2`, `"version": 1`, "version 1: this bigdisk reads version 2"},
		{"version not first", `"version": 2,`, ``, `the first field is "image"`},
		{"repeated field", `"options":`, `"image": {}, "options":`, `field "image" is there twice`},
		{"missing field", `"totals":`, `"sums":`, `no field "totals"`},
		{"wrong type", `"size":1048576`, `"size":"big"`, "image: json: cannot unmarshal string"},
		{"fraction", `"size":1048576`, `"size":1.5`, "image: json: cannot unmarshal number 1.5"},
		{"too big for 64 bits", `"size":1048576`, `"size":99999999999999999999`, "image: json: cannot unmarshal number"},
		{"another hash", `"sha256":"` + sum, `"sha256":"` + strings.Repeat("7", 64), "what the manifest says of the image makes " + sum},
		{"another size", `"size":1048576`, `"size":1048577`, "image: sha256 is " + sum},
		{"another metadata hash", `"sha256":"7777`, `"sha256":"7778`, "image: sha256 is " + sum},
		{"other metadata", `"length":4000`, `"length":4001`, "image: sha256 is " + sum},
		{"no metadata", `"extents":[{"offset":4096,"length":96},{"offset":21000,"length":4000}]`, `"extents":[]`, "image: no metadata"},
		{"another NAR hash", `"narHash":"sha256:008`, `"narHash":"sha256:009`, "image: sha256 is " + sum},
		{"another sum", `"blake3":"99`, `"blake3":"98`, "image: sha256 is " + sum},
		{"no size", `"size":1048576`, `"size":0`, "image: size 0 is not positive"},
		{"unknown format", `"squashfs"`, `"erofs"`, `image: format "erofs"`},
		{"short hash", `"sha256":"` + sum[:2], `"sha256":"`, "image: a SHA-256 has 64 hexadecimal digits, not 62"},
		{"partition outside", `"offset":4096`, `"offset":4097`, "image: partition: 1044480 bytes at offset 4097"},
		{"block size", `"blockSize":262144`, `"blockSize":-1`, "options: block size -1"},
		{"count", `"storePaths":3`, `"storePaths":4`, "totals: storePaths is 4, but there are 3 paths"},
		{"negative total", `"symlinks":1`, `"symlinks":-1`, "totals: -1 is negative"},
		{"bad path", glibc, "/nix/store/../etc", "paths: element 0: not a store path"},
		{"unsorted", glibc, "/nix/store/" + strings.Repeat("9", 32) + "-x", "paths: element 1"},
		{"twice", glibc, string(aManifest(t).Paths[1].Path), "there twice"},
		{"bad NAR hash", `"narHash":"sha256:`, `"narHash":"sha1:`, "paths: element 0: not a SHA-256 hash"},
		{"negative NAR", `"narSize":30000`, `"narSize":-3`, "paths: " + glibc + ": a NAR of -3 bytes"},
		{"negative files", `"files":10`, `"files":-10`, "with -10 files"},
		{"negative offset", `"offset":8192`, `"offset":-8192`, "paths: " + glibc + ": data: 9000 bytes at offset -8192"},
		{"overflow", `"length":9000`, `"length":9223372036854775807`, "do not lie in the image"},
		{"empty extent", `"length":9000`, `"length":0`, "0 bytes at offset 8192"},
		{"sums", `"files":1,`, `"files":0,`, "1 sums of 0 files"},
		{"half a sum", `"sums":"AQID`, `"sums":"`, "file sums of 17 bytes"},
		{"no base 64", `"sums":"AQID`, `"sums":"A!ID`, "file sums"},
		{"ext4 without sums", `"squashfs"`, `"ext4"`, "blake3 is not that of its sums"},
		{"metadata", `"offset":21000`, `"offset":2100000`, "metadata: 4000 bytes at offset 2100000"},
		{"overlap", `"length":9000`, `"length":9001`, "overlap at offset 17192"},
		{"module not there", `"path":"/nix/store/1`, `"path":"/nix/store/4`, "is not among the paths"},
		{"root not there", "\n    \"/nix/store/2", "\n    \"/nix/store/5", "roots: "},
		{"one ID twice", "bun-0.6:v1-20230607-15011da", "go-1.19:v1-20230522-c48c43c", "there twice"},
		{"verity", `"offset":524288`, `"offset":1048576`, "verity: offset 1048576"},
		{"null path", "{\"path\":\"" + glibc, "null, {\"path\":\"" + glibc, "paths: element 0: not a store path"},
		{"list is an object", `"modules": [`, `"modules": {`, "modules: "},
		{"trailing", "]\n}\n", "]\n}\n{}", "something follows the manifest"},
		{"cut off", "  ]\n}\n", "", "unexpected EOF"},
		{"deep", `"image": {`, `"x": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `, "image": {`, "nested over 64 deep"},
	}
	good := string(encode(t, aManifest(t)))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(good, test.old, test.new, 1)
			if bad == good {
				t.Fatalf("%q is not in the manifest", test.old)
			}
			_, err := DecodeManifest(strings.NewReader(bad))
			if !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestManifestEncodeRefuses(t *testing.T) {
	m := aManifest(t)
	m.Paths[0], m.Paths[1] = m.Paths[1], m.Paths[0]
	var b bytes.Buffer
	if err := m.Encode(&b); err == nil || b.Len() > 0 {
		t.Errorf("unsorted paths were written: %v, %d bytes", err, b.Len())
	}
	full := errors.New("disk full")
	if err := aManifest(t).Encode(failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// endless is a JSON string that never ends.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

func TestManifestBoundsMemory(t *testing.T) {
	for _, start := range []string{`{"version": 2, "later": "`, `{"version": 2, "image": "`, `{"version": 2, "modules": ["`, `{"`} {
		e := new(endless)
		_, err := DecodeManifest(io.MultiReader(strings.NewReader(start), e))
		if !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), "a value is longer than") {
			t.Errorf("%s…: got %v", start, err)
		}
		if e.read > 4*maxManifestElement {
			t.Errorf("%s…: read %d bytes before it gave up", start, e.read)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	good := encode(f, aManifest(f))
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"version":2,"image":{},"options":{},"modules":[],"totals":{},"paths":[]}`))
	f.Add([]byte(`{"version":2,"later":[[{"a":1e400}]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := DecodeManifest(bytes.NewReader(encode(t, m)))
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if !bytes.Equal(encode(t, m), encode(t, again)) {
			t.Fatal("encoding is not stable")
		}
	})
}

func benchManifest(b *testing.B, n int) *Manifest {
	m := aManifest(b)
	m.Modules, m.Roots, m.Image.Size = nil, nil, 1<<40
	m.Paths = make([]ManifestPath, n)
	for i := range m.Paths {
		m.Paths[i] = ManifestPath{
			Path: store.Path(fmt.Sprintf("/nix/store/%032d-package-%d", i, i)), NarHash: store.Hash{1, byte(i)},
			NarSize: 1000, Files: 5, Data: []Extent{{int64(i) * 1000, 900}},
		}
	}
	m.Totals.StorePaths = int64(n)
	m.Image.SHA256 = m.Digest()
	return m
}

func BenchmarkManifestEncode(b *testing.B) {
	m := benchManifest(b, 10000)
	b.SetBytes(int64(len(encode(b, m))))
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Encode(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkManifestDecode(b *testing.B) {
	data := encode(b, benchManifest(b, 10000))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeManifest(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
