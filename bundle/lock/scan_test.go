package lock

import (
	"errors"
	"strings"
	"testing"
)

// A file that never ends is an error before it fills the memory.
func TestEndless(t *testing.T) {
	s := newScanner(endless{})
	s.most = 10 << 20
	if c, ok := s.peek(); ok {
		t.Fatalf("found %q", c)
	}
	if err := s.unexpected("anything"); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "over 10485760 bytes") {
		t.Error(err)
	}
}

// endless is white space.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// A reader that gives nothing is not waited for.
func TestStuck(t *testing.T) {
	s := newScanner(stuck{})
	if _, err := s.text("a string"); err == nil || errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Keys are found again however far the table has grown.
func TestSeen(t *testing.T) {
	s := newSeen()
	var entries []Entry
	add := func(version int) *Entry {
		entries = append(entries, Entry{ID: "x", Tag: Tag{Version: version}, Line: version})
		return s.add(entries[len(entries)-1].Key(), entries)
	}
	for v := range 1000 {
		if e := add(v); e != nil {
			t.Fatalf("version %d is taken for %v", v, e)
		}
	}
	for v := range 1000 {
		if e := add(v); e == nil || e.Line != v {
			t.Fatalf("version %d is not found: %v", v, e)
		}
		entries, s.hashes = entries[:1000], s.hashes[:1000]
	}
}
