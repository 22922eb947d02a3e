package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"bigdisk/bundle/store"
)

// bufferSize is how much a Reader or Writer gathers. The longest thing that
// must fit is a symlink's target.
const bufferSize = 64 << 10

// Reader gives the entries of an archive one after the other, in the manner of
// archive/tar. It does its own buffering and holds a fixed amount of memory,
// whatever the archive claims. The first failure is kept and answered for
// ever.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is read but not used
	// srcErr is what src said last; it comes up when the buffer is used up.
	srcErr error

	state state
	err   error
	entry store.Entry
	// path is the current entry's path. What a directory on the stack saw last
	// stays in it, at frame.prefix.
	path []byte
	dirs []frame
	left int64 // bytes of the current file that have not been read
	pad  int   // zeros after them
}

// frame is an open directory: path[prefix:last] is the name seen last in it.
type frame struct {
	self, prefix, last int
}

type state uint8

const (
	atStart  state = iota // nothing read
	inFile                // at or in the bytes of a file
	inDir                 // before ")" or the next entry of a directory
	nodeDone              // after the ")" of a node
)

// NewReader returns a Reader of the archive in r. It may read past the end of
// the archive to see that nothing follows.
func NewReader(r io.Reader) *Reader {
	d := &Reader{buf: make([]byte, bufferSize)}
	d.Reset(r)
	return d
}

// Reset makes the Reader start again on the archive in r, keeping its buffers.
func (d *Reader) Reset(r io.Reader) {
	*d = Reader{src: r, buf: d.buf, path: d.path[:0], dirs: d.dirs[:0]}
}

// Next goes on to the next entry and returns it; the root comes first, with
// the path "". What is left of the current file is skipped. At the end of a
// whole archive with nothing after it the error is io.EOF. The entry is valid
// until the next call.
func (d *Reader) Next() (*store.Entry, error) {
	if d.err != nil {
		return nil, d.err
	}
	err := d.advance()
	if err == nil {
		return &d.entry, nil
	}
	d.err = err
	if err != io.EOF {
		d.err = fail(string(d.path), err)
	}
	return nil, d.err
}

// Read reads from the current regular file. At its end, and for any other
// entry, it returns io.EOF.
func (d *Reader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > d.left {
		p = p[:d.left]
	}
	n, err := d.readRaw(p)
	d.left -= int64(n)
	if err != nil {
		d.err = fail(string(d.path), err)
	}
	return n, d.err
}

// readRaw gives what is buffered first, and reads a large rest straight into p.
func (d *Reader) readRaw(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if d.r == d.w {
		if len(p) >= len(d.buf) && d.srcErr == nil {
			n, err := d.src.Read(p)
			d.srcErr = err
			if n > 0 {
				return n, nil
			}
		}
		if err := d.need(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.buf[d.r:d.w])
	d.r += n
	return n, nil
}

// need makes at least n bytes available in the buffer.
func (d *Reader) need(n int) error {
	if d.w-d.r >= n {
		return nil
	}
	return d.fill(n)
}

func (d *Reader) fill(n int) error {
	d.w = copy(d.buf, d.buf[d.r:d.w])
	d.r = 0
	for empty := 0; d.w < n; {
		if d.srcErr != nil {
			if d.srcErr == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return d.srcErr
		}
		var got int
		got, d.srcErr = d.src.Read(d.buf[d.w:])
		d.w += got
		if got > 0 {
			empty = 0
		} else if empty++; empty == 100 && d.srcErr == nil {
			d.srcErr = io.ErrNoProgress
		}
	}
	return nil
}

// advance reads up to and including the head of the next entry.
func (d *Reader) advance() error {
	switch d.state {
	case atStart:
		if err := d.expect(wordMagic); err != nil {
			return err
		}
		return d.node()
	case inFile:
		if err := d.endFile(); err != nil {
			return err
		}
		d.state = nodeDone
	}
	for {
		if d.state == nodeDone {
			if len(d.dirs) == 0 {
				return d.end()
			}
			if err := d.expect(wordClose); err != nil {
				return err
			}
			d.state = inDir
		}
		if d.accept(wordEntry) {
			if err := d.name(); err != nil {
				return err
			}
			return d.node()
		}
		if !d.accept(wordClose) {
			return d.unexpected(`"entry" or ")"`)
		}
		d.leave()
		d.state = nodeDone
	}
}

// end checks that the archive is followed by nothing.
func (d *Reader) end() error {
	switch err := d.need(1); {
	case err == nil:
		return fmt.Errorf("%w: bytes after the end of the archive", ErrFormat)
	case errors.Is(err, io.ErrUnexpectedEOF) && d.srcErr == io.EOF:
		return io.EOF
	default:
		return err
	}
}

// endFile skips what was not read of the current file.
func (d *Reader) endFile() error {
	for d.left > 0 {
		if err := d.need(1); err != nil {
			return err
		}
		n := min(int64(d.w-d.r), d.left)
		d.r += int(n)
		d.left -= n
	}
	if err := d.zeros(d.pad); err != nil {
		return err
	}
	return d.expect(wordClose)
}

// zeros reads n bytes of padding.
func (d *Reader) zeros(n int) error {
	if err := d.need(n); err != nil {
		return err
	}
	for _, b := range d.buf[d.r : d.r+n] {
		if b != 0 {
			return errPadding
		}
	}
	d.r += n
	return nil
}

// accept reads want if it comes next.
func (d *Reader) accept(want string) bool {
	if d.need(len(want)) != nil || string(d.buf[d.r:d.r+len(want)]) != want {
		return false
	}
	d.r += len(want)
	return true
}

// expect reads the words, which are all that may come next.
func (d *Reader) expect(words ...string) error {
	for _, word := range words {
		if !d.accept(word) {
			n := binary.LittleEndian.Uint64([]byte(word[:8]))
			return d.unexpected(strconv.Quote(word[8 : 8+n]))
		}
	}
	return nil
}

// unexpected says that something else than want came next, which is the end of
// the stream if that is what kept accept from seeing it.
func (d *Reader) unexpected(want string) error {
	const most = 40
	got := d.buf[d.r:min(d.w, d.r+most)]
	if d.srcErr != nil && d.srcErr != io.EOF {
		return d.srcErr
	}
	if d.srcErr == io.EOF && d.w-d.r < 8 {
		return fmt.Errorf("%w before %s", io.ErrUnexpectedEOF, want)
	}
	n := binary.LittleEndian.Uint64(got)
	word := got[8:]
	switch {
	case n <= uint64(len(word)) && n+uint64(padding(int64(n))) <= uint64(len(word)):
		if len(bytes.Trim(word[n:n+uint64(padding(int64(n)))], "\x00")) > 0 {
			return errPadding
		}
		return fmt.Errorf("%w: %q instead of %s", ErrFormat, word[:n], want)
	case d.srcErr == io.EOF && n <= MaxTarget:
		return fmt.Errorf("%w before %s", io.ErrUnexpectedEOF, want)
	}
	return fmt.Errorf("%w: a string of %d bytes instead of %s", ErrFormat, n, want)
}

// text reads a string of at most most bytes; it lies in the buffer.
func (d *Reader) text(most int, what string) ([]byte, error) {
	n, err := d.number()
	if err != nil {
		return nil, err
	}
	if n > uint64(most) {
		return nil, fmt.Errorf("%w: %s of %d bytes, over %d", ErrFormat, what, n, most)
	}
	pad := padding(int64(n))
	if err := d.need(int(n) + pad); err != nil {
		return nil, err
	}
	text := d.buf[d.r : d.r+int(n)]
	d.r += int(n)
	return text, d.zeros(pad)
}

func (d *Reader) number() (uint64, error) {
	if err := d.need(8); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint64(d.buf[d.r:])
	d.r += 8
	return n, nil
}

// name reads a directory entry's name and makes it the current path.
func (d *Reader) name() error {
	if err := d.expect(wordOpen, wordName); err != nil {
		return err
	}
	dir := &d.dirs[len(d.dirs)-1]
	name, err := d.text(MaxName, "file name")
	if err != nil {
		return err
	}
	if err := d.checkNext(dir, name); err != nil {
		return err
	}
	d.path = append(d.path[:dir.prefix], name...)
	dir.last = len(d.path)
	return d.expect(wordNode)
}

// checkNext checks a name, and that it comes after the last one in dir.
func (d *Reader) checkNext(dir *frame, name []byte) error {
	last := d.path[dir.prefix:dir.last]
	if !validName(name) {
		return checkName(string(name))
	}
	switch bytes.Compare(name, last) {
	case 0:
		return fmt.Errorf("%w: file name %q twice", ErrFormat, name)
	case -1:
		return fmt.Errorf("%w: file name %q after %q", ErrFormat, name, last)
	}
	return nil
}

// enter opens the directory at the current path.
func (d *Reader) enter() {
	f := frame{self: len(d.path)}
	if f.self > 0 {
		d.path = append(d.path, '/')
	}
	f.prefix = len(d.path)
	f.last = f.prefix
	d.dirs = append(d.dirs, f)
}

// leave closes the innermost directory.
func (d *Reader) leave() {
	top := len(d.dirs) - 1
	d.path = d.path[:d.dirs[top].self]
	d.dirs = d.dirs[:top]
}

// node reads the head of a node, whose path is the current one.
func (d *Reader) node() error {
	if len(d.dirs) >= MaxDepth {
		return fmt.Errorf("%w: more than %d levels of directories", ErrFormat, MaxDepth)
	}
	if err := d.expect(wordOpen, wordType); err != nil {
		return err
	}
	d.entry = store.Entry{Path: string(d.path)}
	switch {
	case d.accept(wordRegular):
		return d.regular()
	case d.accept(wordSymlink):
		return d.symlink()
	case d.accept(wordDirectory):
		d.entry.Kind = store.Directory
		d.enter()
		d.state = inDir
		return nil
	}
	return d.unexpected("regular, symlink or directory")
}

func (d *Reader) regular() error {
	d.entry.Kind = store.Regular
	if d.accept(wordExecutable) {
		d.entry.Executable = true
		if err := d.expect(wordEmpty); err != nil {
			return err
		}
	}
	if err := d.expect(wordContents); err != nil {
		return err
	}
	size, err := d.number()
	if err != nil {
		return err
	}
	if size > math.MaxInt64-8 {
		return fmt.Errorf("%w: file of %d bytes", ErrFormat, size)
	}
	d.entry.Size = int64(size)
	d.left = d.entry.Size
	d.pad = padding(d.left)
	d.state = inFile
	return nil
}

func (d *Reader) symlink() error {
	d.entry.Kind = store.Symlink
	if err := d.expect(wordTarget); err != nil {
		return err
	}
	target, err := d.text(MaxTarget, "symlink target")
	if err != nil {
		return err
	}
	d.entry.Target = string(target)
	if err := checkTarget(d.entry.Target); err != nil {
		return err
	}
	d.state = nodeDone
	return d.expect(wordClose)
}
