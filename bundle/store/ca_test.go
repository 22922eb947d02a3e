package store_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

func TestParseCA(t *testing.T) {
	for _, s := range []string{"text:sha256:" + hello32, "fixed:sha256:" + hello32, "fixed:r:sha256:" + hello32} {
		if ca, err := store.ParseCA(s); err != nil || ca.String() != s {
			t.Errorf("%q is read as %v, %v", s, ca, err)
		}
	}
	for _, s := range []string{"", "text", "text:", "sha256:" + hello32, "fixed:sha1:x", "fixed:r:sha512:x", "fixed:git:sha1:x", "text:r:sha256:" + hello32,
		"fixed:R:sha256:" + hello32, "fixed:r:r:sha256:" + hello32, "fixed:sha256:x",
		"fixed:r:sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="} {
		if ca, err := store.ParseCA(s); !errors.Is(err, store.ErrBadCA) {
			t.Errorf("%q is taken for %v: %v", s, ca, err)
		}
	}
}

// An address vouches for nothing but the path, hash and references it goes
// with. The path is one that Nix made.
func TestCertified(t *testing.T) {
	hash, err := store.ParseHash("sha256:0wc7f1y7ngq622vf4k02ipcbi5ra569wk2ca0dfh5gcz0sqpwiy8")
	if err != nil {
		t.Fatal(err)
	}
	made := func() *store.PathInfo {
		return &store.PathInfo{Path: "/nix/store/qa2279csn27j8bgymb0x0c4wyv381vjk-tree", NarHash: hash, NarSize: 480, CA: "fixed:r:" + hash.String()}
	}
	if _, ok := made().Certified(); !ok {
		t.Fatalf("%+v is not certified", made())
	}
	for name, change := range map[string]func(*store.PathInfo){
		"another name":      func(i *store.PathInfo) { i.Path += "x" },
		"another path":      func(i *store.PathInfo) { i.Path = "/nix/store/" + digestA + "-tree" },
		"another NAR hash":  func(i *store.PathInfo) { i.NarHash[0]++ },
		"a reference":       func(i *store.PathInfo) { i.References = []store.Path{"/nix/store/" + digestA + "-a"} },
		"a self reference":  func(i *store.PathInfo) { i.References = []store.Path{i.Path} },
		"another address":   func(i *store.PathInfo) { i.CA = "fixed:r:sha256:" + hello32 },
		"flat":              func(i *store.PathInfo) { i.CA = "fixed:" + hash.String() },
		"text":              func(i *store.PathInfo) { i.CA = "text:" + hash.String() },
		"no address":        func(i *store.PathInfo) { i.CA = "" },
		"unreadable":        func(i *store.PathInfo) { i.CA = "fixed:r:sha256:" },
		"flat with a ref":   func(i *store.PathInfo) { i.CA, i.References = "fixed:"+hash.String(), []store.Path{i.Path} },
		"text with its own": func(i *store.PathInfo) { i.CA, i.References = "text:"+hash.String(), []store.Path{i.Path} },
	} {
		i := made()
		change(i)
		if ca, ok := i.Certified(); ok {
			t.Errorf("%s: certified by %v", name, ca)
		}
	}
}

// contents are entries with the bytes of the first.
type contents struct {
	entries []store.Entry
	data    io.Reader
	closed  bool
}

func (c *contents) Next() (*store.Entry, error) {
	if len(c.entries) == 0 {
		return nil, io.EOF
	}
	e := c.entries[0]
	c.entries = c.entries[1:]
	return &e, nil
}

func (c *contents) Read(p []byte) (int, error) { return c.data.Read(p) }

func (c *contents) Close() error {
	c.closed = true
	return nil
}

func TestCACheck(t *testing.T) {
	file := store.Entry{Kind: store.Regular, Size: 5}
	run := file
	run.Executable = true
	flat := store.CA{Method: store.CAFlat, Hash: sha256.Sum256([]byte("hello"))}
	tests := []struct {
		name    string
		data    string
		entries []store.Entry
		want    error
	}{
		{"right", "hello", []store.Entry{file}, io.EOF},
		{"wrong", "hullo", []store.Entry{file}, store.ErrContents},
		{"executable", "hello", []store.Entry{run}, store.ErrContents},
		{"directory", "", []store.Entry{{Kind: store.Directory}}, store.ErrContents},
		{"symlink", "", []store.Entry{{Kind: store.Symlink, Target: "hello"}}, store.ErrContents},
		{"two files", "hello", []store.Entry{file, file}, store.ErrContents},
		{"nothing", "", nil, store.ErrContents},
	}
	for _, test := range tests {
		for _, read := range []bool{true, false} {
			for _, method := range []store.CAMethod{store.CAFlat, store.CAText} {
				in := &contents{entries: test.entries, data: strings.NewReader(test.data)}
				c := store.CA{Method: method, Hash: flat.Hash}.Check(in)
				if got := drain(c, read); !errors.Is(got, test.want) {
					t.Errorf("%s, read %v: %v, want %v", test.name, read, got, test.want)
				}
				if _, again := c.Next(); !errors.Is(again, test.want) {
					t.Errorf("%s: then %v", test.name, again)
				}
				if err := c.Close(); err != nil || !in.closed {
					t.Errorf("%s: not closed: %v", test.name, err)
				}
			}
		}
	}
	in := &contents{}
	if c := (store.CA{Method: store.CANar}).Check(in); c != store.Contents(in) {
		t.Error("a tree is not checked by its NAR hash alone")
	}
}

// drain takes all entries, with or without reading them, and returns the error
// at the end.
func drain(c store.Contents, read bool) error {
	for {
		if _, err := c.Next(); err != nil {
			return err
		}
		if read {
			if _, err := io.Copy(io.Discard, c); err != nil {
				return err
			}
		}
	}
}

// A failure to read is not taken for wrong contents.
func TestCACheckReadError(t *testing.T) {
	broken := errors.New("the line is dead")
	pipe, w := io.Pipe()
	w.CloseWithError(broken)
	c := store.CA{Method: store.CAFlat}.Check(&contents{entries: []store.Entry{{Kind: store.Regular, Size: 5}}, data: pipe})
	if err := drain(c, false); !errors.Is(err, broken) || errors.Is(err, store.ErrContents) {
		t.Error(err)
	}
}

// The path that Nix's nix-store --add-fixed sha1 has given a file, and its address.
const (
	sha1Flat   = "/nix/store/38clv6a2grhiakmlcsvqjb7s19p4xkz8-flat.txt"
	sha1FlatCA = "fixed:sha1:pplp5izjnj9j7sbk2hwv7dkbswqf61yj"
)

// A content address has to be one of the path's, whatever hash it is with. The
// paths are ones that Nix made.
func TestCheckCA(t *testing.T) {
	const source = "/nix/store/qa2279csn27j8bgymb0x0c4wyv381vjk-tree"
	for _, test := range []struct {
		path store.Path
		ca   string
		refs []store.Path
		ok   bool
	}{
		{source, "", nil, true},
		{source, "fixed:r:sha256:0wc7f1y7ngq622vf4k02ipcbi5ra569wk2ca0dfh5gcz0sqpwiy8", nil, true},
		{source, "fixed:r:sha256:0wc7f1y7ngq622vf4k02ipcbi5ra569wk2ca0dfh5gcz0sqpwiy8", []store.Path{source}, false},
		{source, "fixed:r:sha256:" + hello32, nil, false},
		{source, "xxxx", nil, false},
		{source, "text:sha1:kcn60a7r4a5i9xxhw6fqyagqzxr6zpcx", nil, false},
		{sha1Flat, sha1FlatCA, nil, true},
		{sha1Flat, sha1FlatCA, []store.Path{source}, false},
		{sha1Flat, "fixed:r:" + sha1FlatCA[len("fixed:"):], nil, false},
		{"/nix/store/mxps3005v1f3rs0mgpicb23kay71wbm7-flat.txt", "fixed:r:md5:54vg2nb78w7l3im4v9qlsw5am6", nil, true},
		{"/nix/store/s88n6lfca5jqvsqpnqwqfbf1sq3il8w0-flat.txt", "fixed:r:sha512:" +
			"2qd7nq5xzr6jah0kkhxbsf84w7mv9hy6xp7s7430zrasbglwnyca1b908d8cpwfavxr69g85xn11qqq6ac55hyly2ck39hbwq2dvv2c", nil, true},
		{sha1Flat, "fixed:sha1:d207e330d76bb6b3391473e92393b4f2c772e9bd", nil, true},
		{sha1Flat, "fixed:sha1:x", nil, false},
		{sha1Flat, "fixed:sha3:x", nil, false},
		{sha1Flat, "fixed:sha1", nil, false},
	} {
		i := &store.PathInfo{Path: test.path, CA: test.ca, References: test.refs}
		if err := i.CheckCA(); (err == nil) != test.ok || err != nil && !errors.Is(err, store.ErrBadCA) {
			t.Errorf("%q of %s with %d references: %v", test.ca, test.path, len(test.refs), err)
		}
	}
}
