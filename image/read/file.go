package read

import (
	"context"
	"fmt"
	"io"

	"bigdisk/bundle/store"
)

// File reads a regular file's bytes in order. It is for one goroutine; any
// number of Files may be open at once.
type File struct {
	src  blockSource
	rest []byte
	err  error
}

// OpenFile opens a regular file.
func (im *Image) OpenFile(n *Node) (*File, error) {
	if n.Kind != store.Regular {
		return nil, fmt.Errorf("inode %d is not a regular file", n.Ino)
	}
	src, err := im.fs.open(n)
	if err != nil {
		return nil, err
	}
	return &File{src: src}, nil
}

// Next returns the next bytes of the file without copying them, in pieces of
// up to 1 MiB, and io.EOF after the last. A piece must not be changed, and is valid until
// the next call. The pieces add up to the node's Size, or there is an error.
func (f *File) Next() ([]byte, error) {
	if len(f.rest) > 0 {
		b := f.rest
		f.rest = nil
		return b, nil
	}
	if f.err != nil {
		return nil, f.err
	}
	b, err := f.src.next()
	if err != nil {
		f.err = err
	}
	return b, err
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(f.rest) == 0 {
		b, err := f.Next()
		if err != nil {
			return 0, err
		}
		f.rest = b
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for {
		b, err := f.Next()
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
		n, err := w.Write(b)
		sum += int64(n)
		if err != nil {
			return sum, err
		}
	}
}

// Tail reports, after [io.EOF], whether something other than zeros lies behind
// the file's end in its last block, where programs see it that map the file.
// It cannot in squashfs.
func (f *File) Tail() bool {
	s, ok := f.src.(*extSource)
	return ok && s.tail
}

// Close releases the file's buffers.
func (f *File) Close() error {
	if f.src != nil {
		f.src.close()
		f.src = nil
		f.rest, f.err = nil, fmt.Errorf("read of a closed file")
	}
	return nil
}

// zeros is what holes read as. It is never written to.
var zeros = make([]byte, maxPiece)

// maxPiece is the most bytes that File.Next returns at once.
const maxPiece = 1 << 20

// Copy writes the regular file at path, from the root, to w, and gives up when
// it has more than most bytes or ctx ends.
func (im *Image) Copy(ctx context.Context, w io.Writer, path string, most int64) error {
	n, err := im.Lookup(path)
	if err != nil {
		return err
	}
	if n.Size > most {
		return damaged("%s has %d bytes, where %d are the most that make sense", path, n.Size, most)
	}
	return im.CopyNode(ctx, w, n)
}

// CopyNode writes a regular file's bytes to w until ctx ends.
func (im *Image) CopyNode(ctx context.Context, w io.Writer, n *Node) error {
	f, err := im.OpenFile(n)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		b, err := f.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
}
