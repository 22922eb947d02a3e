package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bigdisk/gcp/rawtar"
)

// rawFile is an image as it is, in parts.
type rawFile struct {
	file     *os.File
	size     int64
	identity string
}

func openRaw(name, identity string, want int64) (*rawFile, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil && size == 0 {
		err = errors.New("the image is empty")
	}
	if err == nil {
		err = checkSize(name, size, want)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
	}
	return &rawFile{file, size, fmt.Sprintf("%s part=%d", identity, rawtar.DefaultPartSize)}, nil
}

// Identity implements bucket.Content.
func (r *rawFile) Identity() string { return r.identity }

// Size returns the image's length in bytes.
func (r *rawFile) Size() int64 { return r.size }

// Parts implements bucket.Content.
func (r *rawFile) Parts() int {
	return int((r.size + rawtar.DefaultPartSize - 1) / rawtar.DefaultPartSize)
}

// PartSize implements bucket.Content.
func (r *rawFile) PartSize(i int) int64 {
	return min(rawtar.DefaultPartSize, r.size-int64(i)*rawtar.DefaultPartSize)
}

// Part implements bucket.Content.
func (r *rawFile) Part(_ context.Context, i int, buf []byte) ([]byte, string, error) {
	if int64(cap(buf)) < r.PartSize(i) {
		buf = make([]byte, r.PartSize(0))
	}
	buf = buf[:r.PartSize(i)]
	off := int64(i) * rawtar.DefaultPartSize
	if n, err := r.file.ReadAt(buf, off); n < len(buf) {
		return nil, "", fmt.Errorf("reading the image at byte %d: %w", off+int64(n), err)
	}
	return buf, "", nil
}

// Join implements bucket.Content: there is nothing to note.
func (r *rawFile) Join([]string) (string, error) { return "", nil }

// Tail implements bucket.Content: there is none.
func (r *rawFile) Tail(string) ([]byte, error) { return nil, nil }

// Close closes the image.
func (r *rawFile) Close() error { return r.file.Close() }
