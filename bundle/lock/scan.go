package lock

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
)

// MaxSize is the longest lock file that is read, in bytes: about ten million
// entries.
const MaxSize = 2 << 30

// maxString is the longest string in a lock file, in bytes. All strings that
// can be right are far shorter.
const maxString = 4096

// scanBuffer is how much is read at once.
const scanBuffer = 256 << 10

// scanner cuts a lock file into the tokens of JSON that it can have: braces,
// colons, commas and strings. It counts lines and hashes what it reads.
type scanner struct {
	src  io.Reader
	buf  []byte
	r, w int
	base int64 // offset of buf[0]
	most int64 // the longest file that is read
	err  error // from src
	line int
	hash hash.Hash
	// While keep is set, before is the white space before the token read last,
	// and space that after it.
	keep          bool
	before, space []byte
}

// maxSpace is how much white space is kept.
const maxSpace = 256

func newScanner(r io.Reader) *scanner {
	return &scanner{src: r, buf: make([]byte, scanBuffer), most: MaxSize, line: 1, hash: sha256.New()}
}

// offset is that of the next byte.
func (s *scanner) offset() int64 { return s.base + int64(s.r) }

// fill reads more behind what is not used yet. It reports false at the end of
// the file and after a failure to read.
func (s *scanner) fill() bool {
	s.base += int64(s.r)
	s.w = copy(s.buf, s.buf[s.r:s.w])
	s.r = 0
	for empty := 0; s.err == nil; empty++ {
		n, err := s.src.Read(s.buf[s.w:])
		s.hash.Write(s.buf[s.w : s.w+n])
		s.w += n
		s.err = err
		switch {
		case s.base+int64(s.w) > s.most:
			s.err = fmt.Errorf("%w: over %d bytes", ErrFormat, s.most)
			return false
		case n > 0:
			return true
		case empty == 100:
			s.err = io.ErrNoProgress
		}
	}
	return false
}

// peek returns the next byte that is not white space. ok is false at the end.
func (s *scanner) peek() (c byte, ok bool) {
	for {
		for s.r < s.w {
			c := s.buf[s.r]
			switch c {
			case '\n':
				s.line++
			case ' ', '\t', '\r':
			default:
				return c, true
			}
			if s.keep && len(s.space) < maxSpace {
				s.space = append(s.space, c)
			}
			s.r++
		}
		if !s.fill() {
			return 0, false
		}
	}
}

// accept reads c if it comes next.
func (s *scanner) accept(c byte) bool {
	if got, ok := s.peek(); !ok || got != c {
		return false
	}
	s.r++
	s.before, s.space = s.space, s.before[:0]
	return true
}

func (s *scanner) expect(c byte) error {
	if !s.accept(c) {
		return s.unexpected(fmt.Sprintf("%q", c))
	}
	return nil
}

// unexpected says that something else than want came next.
func (s *scanner) unexpected(want string) error {
	c, ok := s.peek()
	switch {
	case ok:
		return fmt.Errorf("%w: %q instead of %s", ErrFormat, c, want)
	case s.err != io.EOF:
		return s.err
	}
	return fmt.Errorf("%w: the file ends before %s", ErrFormat, want)
}

// text reads a string. What it returns is good until the next token is read.
func (s *scanner) text(what string) ([]byte, error) {
	if !s.accept('"') {
		return nil, s.unexpected(what)
	}
	escaped := false
	for n := 0; n <= maxString; n++ {
		if s.r+n == s.w && !s.fill() {
			return nil, s.cut()
		}
		switch c := s.buf[s.r+n]; {
		case c == '"':
			text := s.buf[s.r : s.r+n]
			s.r += n + 1
			if escaped {
				return unescape(text)
			}
			return text, nil
		case c < ' ':
			return nil, fmt.Errorf("%w: a control character in a string", ErrFormat)
		case c == '\\':
			escaped = true
			n++ // what follows belongs to it, a quote perhaps
			if s.r+n == s.w && !s.fill() {
				return nil, s.cut()
			}
		}
	}
	return nil, fmt.Errorf("%w: a string of more than %d bytes", ErrFormat, maxString)
}

// cut says that the file ends in a string.
func (s *scanner) cut() error {
	if s.err != io.EOF {
		return s.err
	}
	return fmt.Errorf("%w: the file ends in a string", ErrFormat)
}

// unescape reads the inside of a string with backslashes in it.
func unescape(inside []byte) ([]byte, error) {
	quoted := `"` + string(inside) + `"`
	var text string
	if err := json.Unmarshal([]byte(quoted), &text); err != nil {
		return nil, fmt.Errorf("%w: %s is not a JSON string", ErrFormat, clip(quoted))
	}
	return []byte(text), nil
}
