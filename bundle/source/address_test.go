package source_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

// No signature covers a narinfo's CA, so anybody on the way could put one in
// that Nix cannot read, or that is another path's.
func TestForgedAddress(t *testing.T) {
	m := sourcetest.NewMemory()
	key := sourcetest.NewKey("k")
	archive := words("nix-archive-1", "(", "type", "regular", "contents", "text", ")")
	n, _ := m.NarInfo(t, m.AddArchive(t, "x", archive), "none", key)
	for _, ca := range []string{"xxxx", "fixed:r:" + n.Info.NarHash.String(), "fixed:sha1:" + strings.Repeat("0", 32)} {
		n.Info.CA = ca
		server := newWeb(t)
		server.put(n, archive)
		for _, opts := range []source.Options{fast(t, key), {NoCheckSigs: true}} {
			s := parse(t, server.URL, opts)
			defer s.Close()
			if _, err := s.Info(t.Context(), n.Info.Path); !errors.Is(err, store.ErrBadCA) {
				t.Errorf("%q, signatures checked: %v: %v", ca, !opts.NoCheckSigs, err)
			}
		}
	}
}

// An archive's place is part of many an error, and must not fill the terminal.
func TestLongURL(t *testing.T) {
	m := sourcetest.NewMemory()
	p := m.AddArchive(t, "x", words("nix-archive-1", "(", "type", "regular", "contents", "text", ")"))
	key, dir := sourcetest.NewKey("k"), t.TempDir()
	m.WriteCache(t, dir, "none", key)
	n, _ := m.NarInfo(t, p, "none", key)
	n.URL = "nar/" + strings.Repeat("x", 1<<20)
	if err := os.WriteFile(filepath.Join(dir, p.Digest()+".narinfo"), []byte(n.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s := parse(t, "file://"+dir, fast(t, key))
	defer s.Close()
	if _, err := read(t, s, p); err == nil || len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(fmt.Sprint(err)))
	}
}
