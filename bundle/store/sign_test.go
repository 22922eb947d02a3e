package store_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

// signer makes signatures as nix store sign does.
type signer struct {
	name string
	key  ed25519.PrivateKey
}

func newSigner(name string, seed byte) signer {
	return signer{name, ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))}
}

func (s signer) public(t testing.TB) store.PublicKey {
	t.Helper()
	k, err := store.ParsePublicKey(s.name + ":" + base64.StdEncoding.EncodeToString(s.key.Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s signer) sign(i *store.PathInfo) string {
	return s.name + ":" + base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, []byte(i.Fingerprint())))
}

func signedInfo() *store.PathInfo {
	return &store.PathInfo{Path: "/nix/store/" + digestB + "-b", NarSize: 123, References: []store.Path{"/nix/store/" + digestA + "-a"}}
}

// A narinfo that cache.nixos.org gave out in 2022 is good by the key in the
// source.
func TestCacheNixOSOrgKey(t *testing.T) {
	key, err := store.ParsePublicKey(store.CacheNixOSOrgKey)
	if err != nil || key.Name() != "cache.nixos.org-1" || key.String() != store.CacheNixOSOrgKey {
		t.Fatalf("%v, %v", key, err)
	}
	hash, err := store.ParseHash("sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0")
	if err != nil {
		t.Fatal(err)
	}
	i := &store.PathInfo{
		Path: "/nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin", NarHash: hash, NarSize: 196040,
		References: []store.Path{"/nix/store/0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0",
			"/nix/store/6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115",
			"/nix/store/j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12",
			"/nix/store/yxvjs9drzsphm9pcf42a4byzj1kb9m7k-openssl-1.1.1n"},
		Sigs: []string{"cache.nixos.org-1:TsTTb3WGTZKphvYdBHXwo6weVILmTytUjLB+vcX89fOjjRicCHmKA4RCPMVLkj6TMJ4GMX3HPVWRdD1hkeKZBQ=="},
	}
	if err := (store.Keys{key}).Check(i); err != nil {
		t.Error(err)
	}
}

func TestKeysCheck(t *testing.T) {
	good, other, fake := newSigner("good-1", 'g'), newSigner("other-1", 'o'), newSigner("good-1", 'f')
	keys := store.Keys{good.public(t), newSigner("spare-1", 's').public(t)}
	base := signedInfo()
	tests := []struct {
		name string
		sigs []string
		want string // "" accepts
	}{
		{"good", []string{good.sign(base)}, ""},
		{"good among others", []string{other.sign(base), "junk", fake.sign(base), good.sign(base)}, ""},
		{"none", nil, "it is not signed; trusted: good-1, spare-1"},
		{"by another", []string{other.sign(base)}, "it is signed by other-1; trusted: good-1, spare-1"},
		{"another key of that name", []string{fake.sign(base)}, "the signature by good-1 does not match"},
		{"another's signature under that name", []string{"good-1" + strings.TrimPrefix(other.sign(base), "other-1")}, "the signature by good-1 does not match"},
		{"cut off", []string{good.sign(base)[:40]}, "the signature by good-1 does not match"},
		{"not base 64", []string{"good-1:!!!"}, "the signature by good-1 does not match"},
		{"empty", []string{"good-1:"}, "the signature by good-1 does not match"},
		{"no colon", []string{"good-1"}, "the signature by good-1 does not match"},
		{"junk", []string{"", ":", "::"}, "it is signed by"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i := signedInfo()
			i.Sigs = test.sigs
			err := keys.Check(i)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, store.ErrUntrusted) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// A signature covers path, hash, size and references.
func TestSignatureCovers(t *testing.T) {
	s := newSigner("good-1", 'g')
	for name, change := range map[string]func(*store.PathInfo){
		"path":            func(i *store.PathInfo) { i.Path = "/nix/store/" + digestA + "-b" },
		"hash":            func(i *store.PathInfo) { i.NarHash[5]++ },
		"size":            func(i *store.PathInfo) { i.NarSize++ },
		"reference added": func(i *store.PathInfo) { i.References = append(i.References, i.Path) },
		"reference gone":  func(i *store.PathInfo) { i.References = nil },
	} {
		i := signedInfo()
		i.Sigs = []string{s.sign(i)}
		if !s.public(t).Verify(i) {
			t.Fatal("not verified")
		}
		if change(i); s.public(t).Verify(i) {
			t.Errorf("%s changed, and the signature is still good", name)
		}
	}
}

// Two keys may have one name, as when a cache changes its key.
func TestKeysOfOneName(t *testing.T) {
	old, current := newSigner("good-1", 'o'), newSigner("good-1", 'n')
	i := signedInfo()
	i.Sigs = []string{current.sign(i)}
	if err := (store.Keys{old.public(t), current.public(t)}).Check(i); err != nil {
		t.Error(err)
	}
	if err := (store.Keys{{}}).Check(i); err == nil {
		t.Error("the zero key vouches for a path")
	}
	if err := (store.Keys{}).Check(i); err == nil || !strings.Contains(err.Error(), "trusted: none") {
		t.Error(err)
	}
}

// Errors stay short, whatever a cache sends.
func TestManySignatures(t *testing.T) {
	i := signedInfo()
	for n := range 10_000 {
		i.Sigs = append(i.Sigs, fmt.Sprintf("%d%s:AAAA", n, strings.Repeat("x", 1000)))
	}
	if err := (store.Keys{}).Check(i); err == nil || len(err.Error()) > 10_000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	for _, s := range []string{"", "name", "name:", ":6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=", "name:!!", "name:AAAA",
		"name:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY", store.CacheNixOSOrgKey + "AAAA"} {
		if k, err := store.ParsePublicKey(s); !errors.Is(err, store.ErrBadKey) {
			t.Errorf("%q is taken for %v: %v", s, k, err)
		}
	}
	if _, err := store.ParseKeys([]string{store.CacheNixOSOrgKey, "x"}); err == nil {
		t.Error("a list with a bad key is taken")
	}
}

func BenchmarkCheck(b *testing.B) {
	s := newSigner("good-1", 'g')
	i := signedInfo()
	i.Sigs = []string{s.sign(i)}
	keys := store.Keys{s.public(b)}
	b.ReportAllocs()
	for b.Loop() {
		if err := keys.Check(i); err != nil {
			b.Fatal(err)
		}
	}
}
