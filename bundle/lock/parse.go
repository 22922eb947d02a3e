package lock

import (
	"fmt"
	"io"
	"strings"

	"bigdisk/bundle/store"
)

// Error is what is wrong at one place in a lock file.
type Error struct {
	// Line is the line, from 1.
	Line int
	// Key is that of the entry, "" outside of entries.
	Key string
	Err error
}

// Error names line and key.
func (e *Error) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("line %d: %v", e.Line, e.Err)
	}
	return fmt.Sprintf("line %d: %q: %v", e.Line, clip(e.Key), e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Parse reads a lock file and checks all of it: every key, tag, date, commit
// and store path, that no key and no field comes twice, that there is no other
// field and nothing after the end. Its errors are *[Error]; those about the
// text wrap [ErrFormat].
//
// It holds about 200 bytes of memory an entry and no more of the text than a
// buffer.
func Parse(r io.Reader) (*File, error) {
	p := parser{scanner: newScanner(r), file: new(File), seen: newSeen()}
	if err := p.parse(); err != nil {
		return nil, err
	}
	p.file.Size = p.offset()
	p.hash.Sum(p.file.SHA256[:0])
	return p.file, nil
}

type parser struct {
	*scanner
	file    *File
	seen    *seen
	strings arena
}

func (p *parser) fail(key string, err error) error {
	return &Error{Line: p.line, Key: key, Err: err}
}

func (p *parser) parse() error {
	if err := p.expect('{'); err != nil {
		return p.fail("", err)
	}
	p.file.end = p.offset()
	if err := p.entries(); err != nil {
		return err
	}
	if _, more := p.peek(); more {
		return p.fail("", p.unexpected("the end of the file"))
	}
	if p.err != io.EOF {
		return p.fail("", p.err)
	}
	return nil
}

// entries reads up to and including the last brace.
func (p *parser) entries() error {
	if p.accept('}') {
		return nil
	}
	for {
		p.keep = len(p.file.Entries) < 2
		if err := p.entry(); err != nil {
			return err
		}
		p.file.end = p.offset()
		switch {
		case p.accept(','):
		case p.accept('}'):
			return nil
		default:
			return p.fail("", p.unexpected(`"," or "}"`))
		}
	}
}

// entry reads a key and its object.
func (p *parser) entry() error {
	raw, err := p.text("an entry's key")
	if err != nil {
		return p.fail("", err)
	}
	p.note(&p.file.style.entry)
	key := p.strings.add(raw)
	p.file.Entries = append(p.file.Entries, Entry{Line: p.line})
	e := &p.file.Entries[len(p.file.Entries)-1]
	if e.ID, e.Tag, err = ParseKey(key); err != nil {
		return p.fail(key, err)
	}
	if first := p.seen.add(key, p.file.Entries); first != nil {
		return p.fail(key, fmt.Errorf("%w: the key stands in line %d already", ErrFormat, first.Line))
	}
	if err := p.object(e); err != nil {
		return p.fail(key, err)
	}
	if err := e.check(); err != nil {
		p.line = e.Line
		return p.fail(key, err)
	}
	return nil
}

// note keeps the white space before the token read last.
func (p *parser) note(space *string) {
	if p.keep {
		*space = string(p.before)
	}
}

// fieldSet tells which fields an entry has.
type fieldSet struct{ commit, path bool }

// object reads an entry's object.
func (p *parser) object(e *Entry) error {
	if err := p.expect(':'); err != nil {
		return err
	}
	if err := p.expect('{'); err != nil {
		return err
	}
	p.note(&p.file.style.value)
	var has fieldSet
	if !p.accept('}') {
		if err := p.fields(e, &has); err != nil {
			return err
		}
	}
	p.note(&p.file.style.closing)
	switch {
	case !has.commit:
		return fmt.Errorf("%w: the field commit is missing", ErrFormat)
	case !has.path:
		return fmt.Errorf("%w: the field path is missing", ErrFormat)
	}
	return nil
}

// fields reads up to and including an entry's brace.
func (p *parser) fields(e *Entry, has *fieldSet) error {
	for {
		if err := p.field(e, has); err != nil {
			return err
		}
		switch {
		case p.accept(','):
		case p.accept('}'):
			return nil
		default:
			return p.unexpected(`"," or "}"`)
		}
	}
}

func (p *parser) field(e *Entry, has *fieldSet) error {
	name, err := p.text("a field's name")
	if err != nil {
		return err
	}
	if has.commit || has.path {
		p.note(&p.file.style.next)
	} else {
		p.note(&p.file.style.field)
	}
	switch string(name) {
	case "commit":
		return p.commit(e, &has.commit)
	case "path":
		return p.path(e, &has.path)
	}
	return fmt.Errorf("%w: unknown field %q", ErrFormat, clip(string(name)))
}

// value reads a field's value, once.
func (p *parser) value(field string, has *bool) ([]byte, error) {
	if *has {
		return nil, fmt.Errorf("%w: the field %s comes twice", ErrFormat, field)
	}
	*has = true
	if err := p.expect(':'); err != nil {
		return nil, err
	}
	return p.text("a string")
}

func (p *parser) commit(e *Entry, has *bool) error {
	text, err := p.value("commit", has)
	if err != nil {
		return err
	}
	e.Commit, err = parseCommit(text)
	return err
}

func (p *parser) path(e *Entry, has *bool) error {
	text, err := p.value("path", has)
	if err != nil {
		return err
	}
	if e.Path, err = store.ParsePath(p.strings.add(text)); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// arena keeps many short strings in few pieces of memory.
type arena struct{ piece strings.Builder }

const arenaPiece = 64 << 10

func (a *arena) add(text []byte) string {
	if a.piece.Cap()-a.piece.Len() < len(text) {
		a.piece = strings.Builder{}
		a.piece.Grow(max(arenaPiece, len(text)))
	}
	start := a.piece.Len()
	a.piece.Write(text)
	return a.piece.String()[start:]
}
