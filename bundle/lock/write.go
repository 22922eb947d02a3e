package lock

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// style is the white space of a lock file.
type style struct {
	entry   string // before an entry's key
	value   string // after the colon
	field   string // before the first field's name
	next    string // before the name of the field after it
	closing string // before an entry's closing brace
}

// canonical is the style of nixmodules itself: an indent of two spaces.
func canonical() style {
	return style{entry: "\n  ", value: " ", field: "\n    ", next: "\n    ", closing: "\n  "}
}

// ErrChanged is wrapped when a lock file is no longer what was parsed.
var ErrChanged = errors.New("the lock file has changed since it was read")

// Marshal returns a lock file of the entries, in their order, with an indent of
// two spaces and no newline at the end, as the nixmodules repository has it.
func Marshal(entries []Entry) ([]byte, error) {
	var out bytes.Buffer
	b := bufio.NewWriter(&out)
	b.WriteByte('{')
	if err := encode(b, canonical(), entries, true); err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		b.WriteByte('\n')
	}
	b.WriteByte('}')
	err := b.Flush()
	return out.Bytes(), err
}

// encode writes entries, with commas between and before them unless they are
// the first. bufio keeps its first error.
func encode(b *bufio.Writer, s style, entries []Entry, first bool) error {
	for i := range entries {
		e := &entries[i]
		if err := e.valid(); err != nil {
			return fmt.Errorf("%q: %w", e.Key(), err)
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		fmt.Fprintf(b, `%s"%s":%s{%s"commit":%s"%s",%s"path":%s"%s"%s}`, s.entry, e.Key(), s.value,
			s.field, s.value, e.Commit, s.next, s.value, e.Path, s.closing)
	}
	return nil
}

// valid checks an entry that was not parsed.
func (e *Entry) valid() error {
	if _, _, err := ParseKey(e.Key()); err != nil {
		return err
	}
	if len(e.Path) == 0 {
		return fmt.Errorf("%w: no store path", ErrFormat)
	}
	return e.check()
}

// Append writes to w the lock file with more entries at its end. The text of
// the file f was parsed from is read again from old: all of it stays as it is,
// to the byte, and the new entries are indented like its own. An entry whose
// key is in the file already is an error, and so is an old that is not what
// was parsed ([ErrChanged]); what was written to w must then be thrown away.
func (f *File) Append(w io.Writer, old io.Reader, entries []Entry) error {
	if err := f.checkNew(entries); err != nil {
		return err
	}
	b, sum := bufio.NewWriter(w), sha256.New()
	from := bufio.NewReader(io.TeeReader(io.LimitReader(old, f.Size+1), sum))
	if err := copyExactly(b, from, f.end); err != nil {
		return err
	}
	if err := f.encodeMore(b, from, entries); err != nil {
		return err
	}
	if err := copyExactly(b, from, f.Size-f.end); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, from); err != nil || n > 0 {
		return errors.Join(ErrChanged, err)
	}
	if f.SHA256 != [sha256.Size]byte(sum.Sum(nil)) {
		return ErrChanged
	}
	return b.Flush()
}

// encodeMore writes entries before rest. An empty object on one line becomes
// several lines.
func (f *File) encodeMore(b *bufio.Writer, rest *bufio.Reader, entries []Entry) error {
	if len(f.Entries) > 0 {
		return encode(b, f.style, entries, false)
	}
	if err := encode(b, canonical(), entries, true); err != nil {
		return err
	}
	if next, err := rest.Peek(1); err == nil && next[0] != '\n' && len(entries) > 0 {
		b.WriteByte('\n')
	}
	return nil
}

// checkNew checks that no key of entries is taken.
func (f *File) checkNew(entries []Entry) error {
	fresh := make(map[string]bool, len(entries))
	for _, e := range entries {
		if fresh[e.Key()] {
			return fmt.Errorf("%q: appended twice", e.Key())
		}
		fresh[e.Key()] = true
	}
	if len(fresh) == 0 {
		return nil
	}
	for _, e := range f.Entries {
		if fresh[e.Key()] {
			return fmt.Errorf("%q: it is in the lock file already, in line %d", e.Key(), e.Line)
		}
	}
	return nil
}

func copyExactly(w io.Writer, r io.Reader, n int64) error {
	switch _, err := io.CopyN(w, r, n); {
	case err == io.EOF:
		return ErrChanged
	case err != nil:
		return err
	}
	return nil
}
