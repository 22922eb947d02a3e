package read

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"

	diskfs "github.com/diskfs/go-diskfs/filesystem"
	diskext4 "github.com/diskfs/go-diskfs/filesystem/ext4"
	disksquashfs "github.com/diskfs/go-diskfs/filesystem/squashfs"

	"bigdisk/bundle/store"
)

// ErrReadersDisagree is wrapped when go-diskfs reads something else from an
// image than this package does.
var ErrReadersDisagree = errors.New("go-diskfs and bigdisk read the image differently")

// Bounds on what the second reader looks at: go-diskfs parses all of
// /nix/store for every directory in it.
const (
	secondMaxNames = 20000    // names in a directory that it may list
	secondPaths    = 48       // store paths, spread over all
	secondFiles    = 60       // files in each
	secondBytes    = 32 << 20 // of file contents in all
)

// SecondReader reads a part of the image with go-diskfs and compares: the
// directories down to /nix/store, the database's directory, /etc, and a sample
// of the store paths whose names are given. A difference is an error that wraps
// [ErrReadersDisagree]; any other error means that go-diskfs cannot read the
// image. It is meant for images that are sound: go-diskfs is not built to
// withstand others.
func (im *Image) SecondReader(ctx context.Context, storePaths []string) error {
	return Guard("go-diskfs", func() error {
		other, err := im.openSecond()
		if err != nil {
			return err
		}
		s := &second{im: im, other: other, ctx: ctx, bytes: secondBytes}
		tops := []string{".", "nix", "nix/var/nix/db", "etc/nixmodules"}
		if len(storePaths) <= secondMaxNames {
			tops = append(tops, "nix/store")
		}
		for _, dir := range tops {
			s.files = secondFiles
			if err := s.compareDir(dir); err != nil {
				return err
			}
		}
		if len(storePaths) > secondMaxNames {
			return nil
		}
		step := max(1, len(storePaths)/secondPaths)
		for i := 0; i < len(storePaths); i += step {
			if err := s.comparePath("nix/store/" + storePaths[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (im *Image) openSecond() (diskfs.FileSystem, error) {
	length := im.info.Size - im.info.Offset
	part := readOnly(io.NewSectionReader(im.disk, im.info.Offset, length), length)
	if im.info.Format == Ext4 {
		return diskext4.Read(part, length, 0, sectorSize)
	}
	fs, err := disksquashfs.Read(part, length, 0, 0)
	if err != nil {
		return nil, err
	}
	fs.SetCacheSize(32 << 20)
	return fs, nil
}

// second is one comparison.
type second struct {
	im    *Image
	other diskfs.FileSystem
	ctx   context.Context
	bytes int64 // of contents that may yet be read
	files int   // of this store path or directory that may yet be read
}

func (s *second) differ(name, format string, args ...any) error {
	return fmt.Errorf("%w: /%s: %s", ErrReadersDisagree, name, fmt.Sprintf(format, args...))
}

// comparePath compares a store path, as far as the bounds allow.
func (s *second) comparePath(top string) error {
	s.files = secondFiles
	n, err := s.im.Lookup(top)
	if err != nil {
		return err
	}
	if n.Kind != store.Directory {
		return nil // its name and size were compared with /nix/store
	}
	return s.im.Walk(n, func(rel string, n *Node, leave bool) error {
		if leave || n.Kind != store.Directory {
			return nil
		}
		if s.files <= 0 {
			return SkipDir
		}
		return s.compareDir(path.Join(top, rel))
	})
}

// compareDir compares a directory's listing and the files in it.
func (s *second) compareDir(name string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	n, err := s.im.Lookup(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := s.im.ReadDir(n)
	if err != nil || len(ours) > secondMaxNames {
		return err
	}
	theirs, err := s.list(name)
	if err != nil {
		return err
	}
	if len(theirs) != len(ours) {
		return s.differ(name, "%d names, and %d for go-diskfs", len(ours), len(theirs))
	}
	for i := range ours {
		if err := s.compareEntry(path.Join(name, ours[i].Name), &ours[i], theirs[ours[i].Name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *second) list(name string) (map[string]iofs.DirEntry, error) {
	list, err := s.other.ReadDir(name)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]iofs.DirEntry, len(list))
	for _, e := range list {
		byName[e.Name()] = e
	}
	return byName, nil
}

func (s *second) compareEntry(name string, e *DirEntry, theirs iofs.DirEntry) error {
	if theirs == nil {
		return s.differ(name, "go-diskfs does not see it")
	}
	n, err := s.im.Node(e)
	if err != nil {
		return err
	}
	info, err := theirs.Info()
	if err != nil {
		return err
	}
	f := factsOf(info)
	switch {
	case f.hasMode && iofs.FileMode(n.Mode)&0o777 != info.Mode().Perm():
		return s.differ(name, "mode %04o, and %04o for go-diskfs", n.Mode&0o777, info.Mode().Perm())
	case n.Mtime != info.ModTime().Unix():
		return s.differ(name, "time %d, and %d for go-diskfs", n.Mtime, info.ModTime().Unix())
	case n.UID != f.uid || n.GID != f.gid:
		return s.differ(name, "owner %d:%d, and %d:%d for go-diskfs", n.UID, n.GID, f.uid, f.gid)
	case n.Kind == store.Symlink && n.Target != f.target:
		return s.differ(name, "target %q, and %q for go-diskfs", n.Target, f.target)
	case n.Kind == store.Regular && n.Size != info.Size():
		return s.differ(name, "%d bytes, and %d for go-diskfs", n.Size, info.Size())
	case n.Kind == store.Directory != info.IsDir():
		return s.differ(name, "the two do not agree that it is a directory")
	}
	return s.compareData(name, n)
}

// facts are what only the format's own type tells. In a listing of ext4 modes
// are without permissions.
type facts struct {
	uid, gid uint32
	target   string
	hasMode  bool
}

func factsOf(info iofs.FileInfo) facts {
	switch st := info.Sys().(type) {
	case *diskext4.StatT:
		return facts{st.UID, st.GID, st.LinkTarget, false}
	case *disksquashfs.StatT:
		return facts{st.UID, st.GID, st.LinkTarget, true}
	}
	return facts{}
}

// compareData compares a file's bytes. Files with holes are left out: in ext4
// go-diskfs reads wrong bytes for them, or never comes to an end.
func (s *second) compareData(name string, n *Node) error {
	if n.Kind != store.Regular || n.Size == 0 || n.Size > s.bytes || s.files <= 0 {
		return nil
	}
	if fs, ok := s.im.fs.(*ext4); ok && !fs.isWhole(n) {
		return nil
	}
	s.bytes -= n.Size
	s.files--
	f, err := s.im.OpenFile(n)
	if err != nil {
		return err
	}
	defer f.Close()
	theirs, err := s.other.OpenFile(name, 0)
	if err != nil {
		return err
	}
	defer theirs.Close()
	if info, err := theirs.Stat(); err == nil && info.Mode().Perm() != iofs.FileMode(n.Mode)&0o777 {
		return s.differ(name, "mode %04o, and %04o for go-diskfs", n.Mode&0o777, info.Mode().Perm())
	}
	var buf []byte
	for {
		b, err := f.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		buf = append(buf[:0], b...) // of the same length
		if err := readFull(theirs, buf); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !bytes.Equal(buf, b) {
			return s.differ(name, "the two read different bytes")
		}
	}
}

// readFull fills p from a reader that may have nothing to say for ever.
func readFull(r io.Reader, p []byte) error {
	for len(p) > 0 {
		n, err := r.Read(p)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrNoProgress
		}
	}
	return nil
}
