package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"bigdisk/bundle/store"
)

// Writer makes an archive of entries that come in NAR order: the root, "",
// first; each directory before what it holds; the names of one directory in
// byte order. Every other order is an error, so what it writes is the one
// archive of that tree. The first failure is kept and answered for ever.
type Writer struct {
	dst    *bufio.Writer
	err    error
	closed bool

	open bool // the current entry is a file that has not been ended
	left int64
	pad  int
	// path and last name of each open directory, innermost last.
	dirs []openDir
	path string // the current entry's path
	any  bool   // an entry has been created
	word [8]byte
}

type openDir struct{ path, last string }

// writerBuffer is how much a Writer gathers, in bytes: little, since stores
// have many paths of a few hundred bytes, and each has a Writer.
const writerBuffer = 4 << 10

// NewWriter returns a Writer of an archive to w. It buffers; Close flushes.
func NewWriter(w io.Writer) *Writer {
	return &Writer{dst: bufio.NewWriterSize(w, writerBuffer)}
}

// Create adds an entry. The Size bytes of a regular file must then be written.
func (a *Writer) Create(e *store.Entry) error {
	if a.err != nil {
		return a.err
	}
	if a.closed {
		return errors.New("nar: entry created after Close")
	}
	if err := a.endFile(); err != nil {
		return a.keep(a.path, err)
	}
	if err := a.place(e.Path); err != nil {
		return a.keep(e.Path, err)
	}
	a.path = e.Path
	if err := a.node(e); err != nil {
		return a.keep(e.Path, err)
	}
	return nil
}

// Write adds bytes to the regular file created last. More than its size is
// [ErrTooLong].
func (a *Writer) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	if int64(len(p)) > a.left {
		return 0, a.keep(a.path, fmt.Errorf("%w: %d more, with %d to come", ErrTooLong, len(p), a.left))
	}
	n, err := a.dst.Write(p)
	a.left -= int64(n)
	if err != nil {
		return n, a.keep(a.path, err)
	}
	return n, nil
}

// Close ends the archive and flushes it. It does not close the underlying
// writer.
func (a *Writer) Close() error {
	if a.err != nil || a.closed {
		return a.err
	}
	a.closed = true
	if !a.any {
		return a.keep("", errors.New("no entry was written"))
	}
	if err := a.endFile(); err != nil {
		return a.keep(a.path, err)
	}
	for len(a.dirs) > 0 {
		a.leave()
	}
	if err := a.dst.Flush(); err != nil {
		return a.keep("", err)
	}
	return nil
}

func (a *Writer) keep(path string, err error) error {
	a.err = fail(path, err)
	return a.err
}

// endFile closes the current regular file.
func (a *Writer) endFile() error {
	if !a.open {
		return nil
	}
	if a.left > 0 {
		return fmt.Errorf("%d bytes of the file are missing: %w", a.left, io.ErrUnexpectedEOF)
	}
	a.open = false
	a.put(wordEmpty[:a.pad])
	a.endNode()
	return nil
}

// place closes the directories that path is not in, and writes its name in the
// one that it is in.
func (a *Writer) place(path string) error {
	if !a.any {
		if path != "" {
			return errors.New("the first entry must be the root")
		}
		a.any = true
		a.put(wordMagic)
		return nil
	}
	if path == "" {
		return errors.New("a second root")
	}
	parent, name := "", path
	switch i := strings.LastIndexByte(path, '/'); {
	case i == 0:
		return errors.New("an absolute path")
	case i > 0:
		parent, name = path[:i], path[i+1:]
	}
	if err := checkName(name); err != nil {
		return err
	}
	for len(a.dirs) > 0 && a.dirs[len(a.dirs)-1].path != parent {
		a.leave()
	}
	if len(a.dirs) == 0 {
		return fmt.Errorf("%q is not a directory that is open: entries come depth first", parent)
	}
	dir := &a.dirs[len(a.dirs)-1]
	if name <= dir.last {
		return fmt.Errorf("file name %q after %q: names come in byte order", name, dir.last)
	}
	dir.last = name
	a.put(wordEntry + wordOpen + wordName)
	a.text(name)
	a.put(wordNode)
	return nil
}

// leave closes the innermost directory.
func (a *Writer) leave() {
	a.dirs = a.dirs[:len(a.dirs)-1]
	a.endNode()
}

// endNode closes a node, and the entry it is in.
func (a *Writer) endNode() {
	a.put(wordClose)
	if len(a.dirs) > 0 {
		a.put(wordClose)
	}
}

func (a *Writer) node(e *store.Entry) error {
	if len(a.dirs) >= MaxDepth {
		return fmt.Errorf("more than %d levels of directories", MaxDepth)
	}
	a.put(wordOpen + wordType)
	switch e.Kind {
	case store.Directory:
		a.put(wordDirectory)
		a.dirs = append(a.dirs, openDir{path: e.Path})
	case store.Regular:
		return a.regular(e)
	case store.Symlink:
		if err := checkTarget(e.Target); err != nil {
			return err
		}
		a.put(wordSymlink + wordTarget)
		a.text(e.Target)
		a.endNode()
	default:
		return fmt.Errorf("entry of unknown kind %d", e.Kind)
	}
	return nil
}

func (a *Writer) regular(e *store.Entry) error {
	if e.Size < 0 {
		return fmt.Errorf("file of %d bytes", e.Size)
	}
	a.put(wordRegular)
	if e.Executable {
		a.put(wordExecutable + wordEmpty)
	}
	a.put(wordContents)
	a.number(uint64(e.Size))
	a.open, a.left, a.pad = true, e.Size, padding(e.Size)
	return nil
}

// put writes words; bufio keeps its first error for Flush.
func (a *Writer) put(words string) { a.dst.WriteString(words) }

func (a *Writer) number(n uint64) {
	binary.LittleEndian.PutUint64(a.word[:], n)
	a.dst.Write(a.word[:])
}

func (a *Writer) text(s string) {
	a.number(uint64(len(s)))
	a.put(s)
	a.put(wordEmpty[:padding(int64(len(s)))])
}
