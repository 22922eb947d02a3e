package verify

import "bigdisk/bundle/store"

// scanner looks for the digests of store paths in contents, as Nix does when
// it finds a build's references (RefScanSink in src/libstore/references.cc):
// 32 characters of Nix's base 32 in a row.
type scanner struct {
	// found is called for every run of 32 such characters; it must not keep b.
	found func(b []byte)
	tail  [2 * (store.DigestLen - 1)]byte
	n     int // bytes of the last piece that are in tail
}

// isBase32 tells the characters of Nix's base 32.
var isBase32 = func() (t [256]bool) {
	for _, c := range []byte("0123456789abcdfghijklmnpqrsvwxyz") {
		t[c] = true
	}
	return t
}()

// reset forgets the last piece: what comes next is not joined to it.
func (s *scanner) reset() { s.n = 0 }

// scan looks at the next piece, and at what lies across its start.
func (s *scanner) scan(p []byte) {
	const most = store.DigestLen - 1
	if s.n > 0 {
		n := copy(s.tail[s.n:], p[:min(len(p), most)])
		s.search(s.tail[:s.n+n])
		if len(p) < most {
			s.keep(s.tail[:s.n+n])
			return
		}
	}
	s.search(p)
	s.keep(p)
}

// keep remembers the last 31 bytes.
func (s *scanner) keep(p []byte) {
	s.n = copy(s.tail[:], p[max(0, len(p)-(store.DigestLen-1)):])
}

// search looks from the end of each window backwards, and jumps behind the
// first character that cannot be in a digest.
func (s *scanner) search(p []byte) {
	for i := 0; i+store.DigestLen <= len(p); {
		j := store.DigestLen - 1
		for j >= 0 && isBase32[p[i+j]] {
			j--
		}
		if j >= 0 {
			i += j + 1
			continue
		}
		s.found(p[i : i+store.DigestLen])
		i++
	}
}
