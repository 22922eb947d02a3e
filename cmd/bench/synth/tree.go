package synth

import (
	"context"
	"fmt"
	"hash"
	"io"
	"os"

	"bigdisk/bundle/store"
)

// file is an entry of a tree, with a regular file's bytes.
type file struct {
	store.Entry
	data []byte
}

func regular(path string, data []byte) file {
	return file{store.Entry{Path: path, Kind: store.Regular, Size: int64(len(data))}, data}
}

func directory(path string) file { return file{Entry: store.Entry{Path: path, Kind: store.Directory}} }

const (
	licences = 64
	sharers  = 10 // of a configuration file
)

// tree is what path i holds, in NAR order.
func (s Store) tree(i int, info *store.PathInfo) []file {
	if i < s.Modules() {
		return []file{regular("", module(i, info))}
	}
	own := random{s.Seed<<32 ^ uint64(i)}
	licence := random{s.Seed<<32 ^ 1<<62 ^ uint64(i%licences)}
	config := random{s.Seed<<32 ^ 1<<63 ^ uint64(i%(s.N/sharers+1))}
	tool := regular("bin/tool", fmt.Appendf(nil, "#!/bin/sh\n# %s %d\n%s\n", info.Path.Name(), i, own.text(100+own.below(300))))
	tool.Executable = true
	return []file{
		directory(""),
		regular("LICENSE", licence.text(900+licence.below(400))),
		regular("README", own.text(100+own.below(700))),
		directory("bin"),
		tool,
		regular("common.conf", config.text(100+config.below(200))),
		regular("references", mentions(info.References)),
	}
}

func mentions(paths []store.Path) []byte {
	b := []byte("refers to:\n") // paths at the end of the store refer to nothing
	for _, p := range paths {
		b = append(append(b, p...), '\n')
	}
	return b
}

// module is the text of a module.
func module(i int, info *store.PathInfo) []byte {
	b := fmt.Appendf(nil, `{"id":"module-%d","name":"Module %d","description":"made up","env":{"PATH":"`, i, i)
	for _, p := range info.References {
		b = append(append(b, p...), "/bin:"...)
	}
	return append(b, `"}}`...)
}

// contents gives a tree out.
type contents struct {
	ctx    context.Context
	tree   []file
	rest   []byte // of the current file
	closed bool
}

func (c *contents) state() error {
	if c.closed {
		return fmt.Errorf("contents: %w", os.ErrClosed)
	}
	return c.ctx.Err()
}

// Next implements [store.Contents].
func (c *contents) Next() (*store.Entry, error) {
	if err := c.state(); err != nil {
		return nil, err
	}
	if len(c.tree) == 0 {
		return nil, io.EOF
	}
	f := &c.tree[0]
	c.tree, c.rest = c.tree[1:], f.data
	return &f.Entry, nil
}

// Read implements [store.Contents].
func (c *contents) Read(p []byte) (int, error) {
	if err := c.state(); err != nil {
		return 0, err
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Close implements [store.Contents].
func (c *contents) Close() error {
	c.closed = true
	return nil
}

// counter hashes and counts what is written to it.
type counter struct {
	hash hash.Hash
	n    int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.hash.Write(p)
}
