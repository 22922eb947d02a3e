package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"bigdisk/bundle/store"
)

// helloHash is the SHA-256 of "hello", in the forms that nix-hash writes.
const (
	hello16 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	hello32 = "094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic"
	hello64 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
)

func TestParseHash(t *testing.T) {
	want := store.Hash(sha256.Sum256([]byte("hello")))
	for _, s := range []string{"sha256:" + hello16, "sha256:" + strings.ToUpper(hello16), "sha256:" + hello32, "sha256:" + hello64, "sha256-" + hello64} {
		if got, err := store.ParseHash(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if want.Base16() != hello16 || want.Base32() != hello32 || want.String() != "sha256:"+hello32 {
		t.Errorf("written %s, %s, %s", want.Base16(), want.Base32(), want)
	}
	if want.IsZero() || !(store.Hash{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	var again store.Hash
	if text, err := want.MarshalText(); err != nil || again.UnmarshalText(text) != nil || again != want {
		t.Errorf("%q becomes %v, %v", text, again, err)
	}
	for _, s := range []string{"", "sha256:", "sha256-", hello32, "sha1:" + hello32, "md5:abc", "SHA256:" + hello32, "sha256:" + hello32[1:],
		"sha256:" + hello32 + "0", "sha256:e" + hello32[1:], "sha256:z" + hello32[1:], "sha256:" + strings.ToUpper(hello32),
		"sha256:g" + hello16[1:], "sha256:" + hello64[:43] + "*", "sha256-" + hello16, "sha256-" + hello64 + hello64,
		"sha256:" + strings.Repeat("0", 1<<20)} {
		got, err := store.ParseHash(s)
		if !errors.Is(err, store.ErrBadHash) {
			t.Errorf("%.80q is taken for %v: %v", s, got, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%.80q: an error of %d bytes", s, len(err.Error()))
		}
	}
}

// nix-hash writes the same base 32.
func TestNixHash(t *testing.T) {
	if _, err := exec.LookPath("nix-hash"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nix-hash is missing")
		}
		t.Skip("needs nix-hash")
	}
	for i := range 20 {
		h := store.Hash(sha256.Sum256([]byte{byte(i)}))
		out, err := exec.Command("nix-hash", "--type", "sha256", "--to-base32", h.Base16()).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(out)); got != h.Base32() {
			t.Errorf("%s: %s, nix-hash says %s", h.Base16(), h.Base32(), got)
		}
	}
}

// FuzzParseHash holds that a hash that is accepted has one value in all its
// forms.
func FuzzParseHash(f *testing.F) {
	for _, s := range []string{"sha256:" + hello16, "sha256:" + hello32, "sha256:" + hello64, "sha256-" + hello64, "sha1:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := store.ParseHash(s)
		if err != nil {
			return
		}
		for _, form := range []string{h.String(), "sha256:" + h.Base16(), "sha256-" + base64.StdEncoding.EncodeToString(h[:])} {
			if again, err := store.ParseHash(form); err != nil || again != h {
				t.Fatalf("%q is %v, but %q is %v: %v", s, h, form, again, err)
			}
		}
		if digest, ok := strings.CutPrefix(s, "sha256:"); ok && len(digest) == len(h.Base32()) && digest != h.Base32() {
			t.Fatalf("%q and %q are one hash", digest, h.Base32())
		}
	})
}

// FuzzBase32 holds that every length of bytes has its own text.
func FuzzBase32(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("hello"))
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := store.EncodeBase32(b)
		if want := (len(b)*8 + 4) / 5; len(s) != want {
			t.Fatalf("%d bytes become %d characters, not %d", len(b), len(s), want)
		}
		if strings.Trim(s, "0123456789abcdfghijklmnpqrsvwxyz") != "" {
			t.Fatalf("%q has characters that base 32 does not", s)
		}
		if len(b) == sha256.Size {
			if h, err := store.ParseHash("sha256:" + s); err != nil || !bytes.Equal(h[:], b) {
				t.Fatalf("%x becomes %x: %v", b, h, err)
			}
		}
	})
}

func BenchmarkBase32(b *testing.B) {
	h := store.Hash(sha256.Sum256([]byte("hello")))
	text := h.String()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = h.Base32()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.ParseHash(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
