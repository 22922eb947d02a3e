package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

const (
	digestA = "01dbilj8m4y27iyln0r3lnqgj15xr1lq"
	digestB = "6gczybvncafvjdllyzp2c5sr4i1cpnyp"
)

func TestParsePath(t *testing.T) {
	for _, name := range []string{"x", "glibc-2.36", "a+b._?=-", "g++-12", ".hidden", "..x", "-x", strings.Repeat("n", store.MaxNameLen)} {
		s := "/nix/store/" + digestA + "-" + name
		p, err := store.ParsePath(s)
		if err != nil || p.String() != s || p.Digest() != digestA || p.Name() != name || p.Base() != digestA+"-"+name {
			t.Errorf("%s: %q %q %q, %v", s, p, p.Digest(), p.Name(), err)
		}
		if again, err := store.ParseBase(p.Base()); err != nil || again != p {
			t.Errorf("%s: %q, %v", p.Base(), again, err)
		}
		if p.IsDerivation() {
			t.Errorf("%s is a derivation", p)
		}
	}
	if p, err := store.ParseBase(digestA + "-x.drv"); err != nil || !p.IsDerivation() {
		t.Errorf("%s is not a derivation: %v", p, err)
	}
	for _, base := range []string{"", digestA, digestA + "-", digestA[1:] + "-x", digestA + "_x", "e" + digestA[1:] + "-x",
		strings.ToUpper(digestA) + "-x", digestA + "-a/b", digestA + "-a b", digestA + "-a\x00", digestA + "-é", digestA + "-.", digestA + "-..",
		digestA + "-.-x", digestA + "-..-x", digestA + "-" + strings.Repeat("n", store.MaxNameLen+1), strings.Repeat("x", 1<<20)} {
		if p, err := store.ParseBase(base); !errors.Is(err, store.ErrBadPath) {
			t.Errorf("%.80q is taken for %.80q: %v", base, p, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%.80q: an error of %d bytes", base, len(err.Error()))
		}
	}
	for _, s := range []string{"", "/nix/store", "/nix/store/", digestA + "-x", "/gnu/store/" + digestA + "-x", "/nix/store//" + digestA + "-x",
		"/nix/store/" + digestA + "-x/", "/nix/store/" + digestA + "-x/bin", "/nix/store/../" + digestA + "-x"} {
		if p, err := store.ParsePath(s); !errors.Is(err, store.ErrBadPath) {
			t.Errorf("%q is taken for %q: %v", s, p, err)
		}
	}
}

// FuzzParsePath holds that a path that is accepted stays in the store.
func FuzzParsePath(f *testing.F) {
	f.Add("/nix/store/" + digestA + "-glibc-2.36")
	f.Add("/nix/store/" + digestA + "-.-x")
	f.Add("/nix/store/../etc/passwd")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := store.ParsePath(s)
		if err != nil {
			return
		}
		if string(p) != s || strings.Count(s, "/") != 3 || "/nix/store/"+p.Digest()+"-"+p.Name() != s || len(p.Base()) > 255 {
			t.Fatalf("%q is taken for %q", s, p)
		}
		if again, err := store.ParseBase(p.Base()); err != nil || again != p {
			t.Fatalf("%q: %v", p.Base(), err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	hash, err := store.ParseHash("sha256:" + hello32)
	if err != nil {
		t.Fatal(err)
	}
	i := &store.PathInfo{Path: "/nix/store/" + digestB + "-b", NarHash: hash, NarSize: 123}
	if got, want := i.Fingerprint(), "1;/nix/store/"+digestB+"-b;sha256:"+hello32+";123;"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	i.References = []store.Path{i.Path, "/nix/store/" + digestA + "-a", i.Path}
	i.SortReferences()
	if want := []store.Path{"/nix/store/" + digestA + "-a", i.Path}; !slices.Equal(i.References, want) {
		t.Errorf("references %v", i.References)
	}
	if got, want := i.Fingerprint(), ";123;/nix/store/"+digestA+"-a,/nix/store/"+digestB+"-b"; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want it to end in %q", got, want)
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[store.Kind]string{store.Directory: "directory", store.Regular: "regular", store.Symlink: "symlink", 0: "unknown"} {
		if kind.String() != want {
			t.Errorf("kind %d is %q", kind, kind)
		}
	}
}

func BenchmarkParsePath(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.ParsePath("/nix/store/" + digestA + "-replit-module-python3.11-full"); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	p, err := store.ParsePath("/nix/store/01dbilj8m4y27iyln0r3lnqgj15xr1lq-gcc-12.2.0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Digest(), p.Name())
	_, err = store.ParsePath("/nix/store/../../etc/passwd")
	fmt.Println(errors.Is(err, store.ErrBadPath))
	// Output:
	// 01dbilj8m4y27iyln0r3lnqgj15xr1lq gcc-12.2.0
	// true
}
