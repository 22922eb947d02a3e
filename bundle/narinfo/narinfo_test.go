package narinfo_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"bigdisk/bundle/narinfo"
	"bigdisk/bundle/store"
)

// full is a narinfo as Nix writes it, with every field but CA.
const full = `StorePath: /nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-gcc-4-12.2.0-3
URL: nar/061b62ns1vb5y6qmf323cng796l9lk8czinb5war7zyj1jazlw0s.nar.zst
Compression: zstd
FileHash: sha256:061b62ns1vb5y6qmf323cng796l9lk8czinb5war7zyj1jazlw0s
FileSize: 4297
NarHash: sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2
NarSize: 12488
References: 6gczybvncafvjdllyzp2c5sr4i1cpnyp-cpp-4-12.2.0-3 r3vcbgiircynkf888bgz8cnxk7pcqbkg-gcc-12-12.2.0-14+deb12u1
Deriver: xsca0v7i90vwli7za1bwxvhmp45n46bb-gcc-4-12.2.0-3.drv
Sig: a-1:AAAA
Sig: b-1:BBBB
`

// minimal has what Nix insists on.
const minimal = `StorePath: /nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-x
URL: nar/x.nar
NarHash: sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2
NarSize: 12488
`

func mustHash(t *testing.T, s string) store.Hash {
	t.Helper()
	h, err := store.ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestParse(t *testing.T) {
	n, err := narinfo.Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &narinfo.NarInfo{
		Info: store.PathInfo{
			Path:    "/nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-gcc-4-12.2.0-3",
			NarHash: mustHash(t, "sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2"),
			NarSize: 12488,
			References: []store.Path{"/nix/store/6gczybvncafvjdllyzp2c5sr4i1cpnyp-cpp-4-12.2.0-3",
				"/nix/store/r3vcbgiircynkf888bgz8cnxk7pcqbkg-gcc-12-12.2.0-14+deb12u1"},
			Deriver: "/nix/store/xsca0v7i90vwli7za1bwxvhmp45n46bb-gcc-4-12.2.0-3.drv",
			Sigs:    []string{"a-1:AAAA", "b-1:BBBB"},
		},
		URL:         "nar/061b62ns1vb5y6qmf323cng796l9lk8czinb5war7zyj1jazlw0s.nar.zst",
		Compression: "zstd",
		FileHash:    mustHash(t, "sha256:061b62ns1vb5y6qmf323cng796l9lk8czinb5war7zyj1jazlw0s"),
		FileSize:    4297,
	}
	if !reflect.DeepEqual(n, want) {
		t.Errorf("read %+v\nwant %+v", n, want)
	}
	if n.String() != full {
		t.Errorf("written back:\n%s", n)
	}
}

// What Nix accepts in other forms than it writes.
func TestParseLenient(t *testing.T) {
	tests := []struct {
		name, text string
		check      func(*narinfo.NarInfo) bool
	}{
		{"no compression is bzip2", minimal, func(n *narinfo.NarInfo) bool { return n.Compression == "bzip2" }},
		{"empty compression is bzip2", minimal + "Compression: \n", func(n *narinfo.NarInfo) bool { return n.Compression == "bzip2" }},
		{"no file hash", minimal, func(n *narinfo.NarInfo) bool { return n.FileHash.IsZero() && n.FileSize == 0 }},
		{"unknown deriver", minimal + "Deriver: unknown-deriver\n", func(n *narinfo.NarInfo) bool { return n.Info.Deriver == "" }},
		{"unknown field", minimal + "Provenance: {\"a\": 1}\nProvenance: again\n", func(*narinfo.NarInfo) bool { return true }},
		{"no references", minimal + "References: \n", func(n *narinfo.NarInfo) bool { return len(n.Info.References) == 0 }},
		{"no space", minimal + "References:\n", func(n *narinfo.NarInfo) bool { return len(n.Info.References) == 0 }},
		{"unsorted references", minimal + "References:  6gczybvncafvjdllyzp2c5sr4i1cpnyp-b 01dbilj8m4y27iyln0r3lnqgj15xr1lq-x 6gczybvncafvjdllyzp2c5sr4i1cpnyp-b \n",
			func(n *narinfo.NarInfo) bool {
				return len(n.Info.References) == 2 && n.Info.References[0] == n.Info.Path
			}},
		{"signatures are a set", minimal + "Sig: b:1\nSig: a:1\nSig: b:1\n",
			func(n *narinfo.NarInfo) bool { return reflect.DeepEqual(n.Info.Sigs, []string{"a:1", "b:1"}) }},
		{"SRI hash", strings.Replace(minimal, "sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2",
			"sha256-4saz6XJQU+JdHakQ6HNsmJAEmzTXBO18ZtdvG57CixA=", 1), func(n *narinfo.NarInfo) bool { return !n.Info.NarHash.IsZero() }},
		{"CA and System", minimal + "CA: fixed:r:sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2\nSystem: x86_64-linux\n",
			func(n *narinfo.NarInfo) bool {
				return strings.HasPrefix(n.Info.CA, "fixed:r:") && n.System == "x86_64-linux"
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n, err := narinfo.Parse([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if !test.check(n) {
				t.Errorf("%+v", n)
			}
			again := new(narinfo.NarInfo)
			if err := again.UnmarshalText([]byte(n.String())); err != nil || !reflect.DeepEqual(again, n) {
				t.Errorf("written and read again: %+v, %v", again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	without := func(field string) string {
		var kept []string
		for line := range strings.Lines(minimal) {
			if !strings.HasPrefix(line, field+":") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	tests := []struct{ name, text, want string }{
		{"empty", "", "StorePath is missing"},
		{"a web page", "<html>\n<title>404</title>\n", "line 1"},
		{"no StorePath", without("StorePath"), "StorePath is missing"},
		{"no NarHash", without("NarHash"), "NarHash is missing"},
		{"no NarSize", without("NarSize"), "NarSize is missing"},
		{"no URL", without("URL"), "URL is missing"},
		{"empty URL", without("URL") + "URL: \n", "URL is missing"},
		{"zero NarSize", without("NarSize") + "NarSize: 0\n", "NarSize is missing or zero"},
		{"negative NarSize", without("NarSize") + "NarSize: -1\n", "line 4: NarSize"},
		{"huge NarSize", without("NarSize") + "NarSize: 9223372036854775808\n", "line 4: NarSize"},
		{"odd NarSize", without("NarSize") + "NarSize: 1_000\n", "line 4: NarSize"},
		{"cut off", strings.TrimSuffix(minimal, "\n"), "line 4 does not end in a newline"},
		{"CRLF", strings.ReplaceAll(minimal, "\n", "\r\n"), "line 1: StorePath"},
		{"no colon", minimal + "hello\n", "line 5"},
		{"no space", minimal + "Compression:xz\n", "line 5"},
		{"another store", strings.Replace(minimal, "/nix/store", "/gnu/store", 1), "line 1: StorePath"},
		{"hostile store path", strings.Replace(minimal, "lq-x", "lq-../../etc", 1), "line 1: StorePath"},
		{"SHA-1", strings.Replace(minimal, "sha256:1s563", "sha1:1s563", 1), "line 3: NarHash"},
		{"short hash", without("NarHash") + "NarHash: sha256:1s56\n", "line 4: NarHash"},
		{"bad reference", minimal + "References: 6gczybvncafvjdllyzp2c5sr4i1cpnyp-b nonsense\n", "line 5: References"},
		{"absolute reference", minimal + "References: /nix/store/6gczybvncafvjdllyzp2c5sr4i1cpnyp-b\n", "line 5: References"},
		{"reference with a slash", minimal + "References: 6gczybvncafvjdllyzp2c5sr4i1cpnyp-b/../c\n", "line 5: References"},
		{"bad deriver", minimal + "Deriver: nonsense\n", "line 5: Deriver"},
		{"control character", minimal + "Compression: \x1b[2J\n", "line 5: Compression"},
		{"too long", minimal + "Sig: " + strings.Repeat("x", narinfo.MaxSize), "over 8388608 bytes"},
	}
	for _, field := range []string{"StorePath: /nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-x", "URL: x", "NarSize: 1",
		"NarHash: sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2"} {
		tests = append(tests, struct{ name, text, want string }{"twice " + field, minimal + field + "\n", "comes twice"})
	}
	for _, field := range []string{"Compression: xz", "FileHash: sha256:1s563diy29phzzdbklmhb0771zd065s3hjrav6kkji4akwdb9vj2", "FileSize: 1",
		"References: 6gczybvncafvjdllyzp2c5sr4i1cpnyp-b", "Deriver: unknown-deriver", "CA: text:x", "System: x"} {
		tests = append(tests, struct{ name, text, want string }{"twice " + field, minimal + field + "\n" + field + "\n", "line 6"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := narinfo.Parse([]byte(test.text))
			if !errors.Is(err, narinfo.ErrFormat) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// FuzzParse holds that what is accepted is written and read again unchanged.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(minimal))
	f.Add([]byte(minimal + "Deriver: unknown-deriver\nReferences: \nSig: a:b\nCA: text:sha256:0\n"))
	f.Add([]byte("StorePath: x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := narinfo.Parse(data)
		if err != nil {
			return
		}
		again, err := narinfo.Parse([]byte(n.String()))
		if err != nil || !reflect.DeepEqual(n, again) {
			t.Fatalf("%+v became %+v: %v", n, again, err)
		}
		if n.Info.NarSize <= 0 || n.FileSize < 0 || n.URL == "" || n.Compression == "" {
			t.Fatalf("accepted %+v", n)
		}
	})
}

// many is a narinfo with count references.
func many(count int) []byte {
	var b strings.Builder
	b.WriteString(minimal + "References:")
	for i := range count {
		fmt.Fprintf(&b, " %032d-some-package-1.%d", i, i)
	}
	b.WriteByte('\n')
	return []byte(b.String())
}

func TestManyReferences(t *testing.T) {
	n, err := narinfo.Parse(many(50_000))
	if err != nil || len(n.Info.References) != 50_000 {
		t.Fatal(err)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, data := range map[string][]byte{"typical": []byte(full), "10k-references": many(10_000)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := narinfo.Parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func Example() {
	n, err := narinfo.Parse([]byte(full))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n.Info.Path.Name(), n.Compression, n.FileSize, n.Info.NarSize, len(n.Info.References))
	// Output: gcc-4-12.2.0-3 zstd 4297 12488 2
}
