package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

// Dir is a Nix store below a directory, as Nix's local?root=DIR. The database
// is trusted, as Nix trusts it: who can write to it could as well write the
// lock file. The contents are held to its hashes. Make one with [Parse] or
// [OpenDir].
type Dir struct {
	spec string
	root string
	db   *storeDB
}

// OpenDir opens the store below root; "/" is this machine's. Nothing in it is
// changed, and the right to read it is enough.
func OpenDir(root string) (*Dir, error) { return openDir(root, false) }

// OpenLiveDir opens the store below root as OpenDir does, for reading while Nix
// may be adding to it. Where it may, it takes part in the locking of the
// database, which can leave SQLite's -wal and -shm files there.
func OpenLiveDir(root string) (*Dir, error) { return openDir(root, true) }

func openDir(root string, live bool) (*Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(abs); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", root)
	}
	file := filepath.Join(abs, "nix/var/nix/db/db.sqlite")
	db, err := openStoreDB(file, live)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no Nix store is there: %w%s", root, err, hintCache(abs))
	}
	if err != nil {
		return nil, err
	}
	return &Dir{spec: root, root: abs, db: db}, nil
}

// hintCache helps those who took a binary cache for a store.
func hintCache(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, cacheInfoName)); err != nil {
		return ""
	}
	return " (it is a binary cache: say file://" + dir + ")"
}

// String implements [Source].
func (d *Dir) String() string { return d.spec }

// Close implements [Source].
func (d *Dir) Close() error { return d.db.close() }

// errGone is ErrNotFound for a path that the store's database lists.
var errGone = fmt.Errorf("the database lists it, but on disk it was %w", ErrNotFound)

// Info implements [Source].
func (d *Dir) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	info, err := d.db.info(ctx, path)
	if err != nil {
		return nil, wrap(path, d, err)
	}
	return info, nil
}

// Open implements [Source]. The contents are read, and checked, as they are
// asked for.
func (d *Dir) Open(ctx context.Context, info *store.PathInfo) (store.Contents, error) {
	if ctx.Err() != nil {
		return nil, wrap(info.Path, d, context.Cause(ctx))
	}
	at := filepath.Join(d.root, string(info.Path))
	if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
		return nil, wrap(info.Path, d, errGone)
	} else if err != nil {
		return nil, wrap(info.Path, d, err)
	}
	c := &dirContents{ctx: ctx, dir: d, info: info, tree: nar.OpenDir(at), sum: archiveSum{hash: sha256.New()}}
	c.archive = nar.NewWriter(&c.sum)
	return c, nil
}

// dirContents is a tree on disk, whose archive is hashed as it is read.
type dirContents struct {
	ctx     context.Context
	dir     *Dir
	info    *store.PathInfo
	tree    *nar.DirReader
	archive *nar.Writer
	sum     archiveSum
	file    bool // the current entry is a regular file
	skip    []byte
	err     error
}

// skipSize is how many bytes of a file that nobody wants are hashed at a time.
const skipSize = 64 << 10

// Next implements [store.Contents].
func (c *dirContents) Next() (*store.Entry, error) {
	if err := c.state(); err != nil {
		return nil, err
	}
	if err := c.finishFile(); err != nil {
		return nil, err
	}
	e, err := c.tree.Next()
	if err == nil {
		err = c.archive.Create(e)
	} else if err == io.EOF {
		err = c.finish()
	}
	if err != nil {
		return nil, c.fail(err)
	}
	c.file = e.Kind == store.Regular
	return e, nil
}

// state is why there can be no more.
func (c *dirContents) state() error {
	if c.err == nil && c.ctx.Err() != nil {
		c.fail(context.Cause(c.ctx))
	}
	return c.err
}

// finishFile hashes what was not read of the current file.
func (c *dirContents) finishFile() error {
	if c.skip == nil && c.file {
		c.skip = make([]byte, skipSize)
	}
	for c.file {
		if _, err := c.Read(c.skip); err == io.EOF {
			c.file = false
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Read implements [store.Contents].
func (c *dirContents) Read(p []byte) (int, error) {
	if err := c.state(); err != nil {
		return 0, err
	}
	n, err := c.tree.Read(p)
	if n > 0 {
		if _, err := c.archive.Write(p[:n]); err != nil {
			return 0, c.fail(err)
		}
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, c.fail(err)
}

// finish is io.EOF if the tree was the one that was promised.
func (c *dirContents) finish() error {
	if err := c.archive.Close(); err != nil {
		return err
	}
	if c.sum.size != c.info.NarSize {
		return fmt.Errorf("%w: its NAR is %d bytes long, its NarSize is %d", ErrMismatch, c.sum.size, c.info.NarSize)
	}
	if err := checkHash(c.sum.hash, c.info.NarHash, "NAR"); err != nil {
		return err
	}
	return io.EOF
}

// fail keeps an error for every later call. The end is no failure.
func (c *dirContents) fail(err error) error {
	c.err = err
	if err != io.EOF {
		c.err = wrap(c.info.Path, c.dir, within(err))
	}
	return c.err
}

// within names a file by its place in the store path, for an [Error] says
// where that is.
func within(err error) error {
	if e, ok := err.(*nar.DirError); ok && e.Path != "" {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	} else if ok {
		return e.Err
	}
	return err
}

// Close implements [store.Contents].
func (c *dirContents) Close() error {
	c.err = errClosed
	return c.tree.Close()
}

// archiveSum is the hash and length of what is written to it.
type archiveSum struct {
	hash hash.Hash
	size int64
}

// Write implements io.Writer.
func (s *archiveSum) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	return s.hash.Write(p)
}
