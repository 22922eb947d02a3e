package image_test

import (
	"errors"
	"io"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

var errSpoilt = errors.New("spoilt")

// oneFile is a directory with one file in it, which cannot be read if spoilt.
type oneFile struct {
	entries []store.Entry
	spoilt  bool
}

func (c *oneFile) Next() (*store.Entry, error) {
	if len(c.entries) == 0 {
		return nil, io.EOF
	}
	e := c.entries[0]
	c.entries = c.entries[1:]
	return &e, nil
}

func (c *oneFile) Read(p []byte) (int, error) {
	if c.spoilt {
		return 0, errSpoilt
	}
	p[0] = 'x'
	return 1, nil
}

func (c *oneFile) Close() error { return nil }

// full is a Writer that takes no data.
type full struct{ image.Writer }

func (full) Create(*store.Entry) error { return nil }

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestAddTreeErrors: a writer says itself which entry its error is about, and
// may be failing because of an earlier one; what reads knows no image paths.
func TestAddTreeErrors(t *testing.T) {
	for _, c := range []struct {
		spoilt bool
		want   string
	}{
		{spoilt: true, want: `"nix/store/a/file": spoilt`},
		{spoilt: false, want: "short write"},
	} {
		tree := &oneFile{spoilt: c.spoilt, entries: []store.Entry{
			{Kind: store.Directory}, {Path: "file", Kind: store.Regular, Size: 1}}}
		if err := image.AddTree(full{}, "nix/store/a", tree); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
