// Package packed keeps the compressed data of one store path in a file, for
// builds that need the path in an image. Such a file is a squashfs image with
// that path alone, its manifest, and a trailer with the manifest's SHA-256, its
// length in 8 bytes, little-endian, and a magic word; so a build takes a path from it as it takes one from an earlier image.
//
// A file depends on the path's NAR hash and on the options of the image, not
// on the path's name: [Key] names it.
package packed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/base"
	"bigdisk/image/squashfs"
)

// ErrDamaged is wrapped by errors about a file that is not what [Write] wrote.
var ErrDamaged = errors.New("the packed store path is damaged")

// magic ends a file.
const magic = "bigdisk-packed-1"

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 30

// Key names the file for what has this NAR hash, in images with these options:
// 64 hexadecimal digits. Programs that could not read each other's files have
// other names for them, so that they can share a cache.
func Key(narHash store.Hash, o image.ManifestOptions) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %s %d %s\n", magic, image.ManifestVersion, o.Layout, o.Compression, o.BlockSize, narHash))
	return image.HexSHA256(sum).String()
}

// path is where the tree lies in the file's image: a store path that is made
// of the NAR hash.
func path(narHash store.Hash) store.Path {
	return store.Path(store.Dir + "/" + narHash.Base32()[:store.DigestLen] + "-packed")
}

// Options are those of the image that the path will be taken into.
func Options(o squashfs.Options) image.ManifestOptions {
	return image.ManifestOptions{
		Compression: o.Compression.String(), BlockSize: o.BlockSize,
		Owner: fmt.Sprintf("%d:%d", o.UID, o.GID), Layout: squashfs.LayoutVersion,
	}
}

// Write packs contents, whose NAR has the hash and size of info, into f, from
// its start on.
func Write(ctx context.Context, f *os.File, info *store.PathInfo, contents store.Contents, opts squashfs.Options) error {
	w, err := squashfs.NewWriter(ctx, f, opts)
	if err != nil {
		return err
	}
	err = fill(w, path(info.NarHash), contents)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if e := (*image.EntryError)(nil); errors.As(err, &e) {
		err = e.Err // nobody knows the path that it has here
	}
	if err != nil {
		return err
	}
	m, err := describe(ctx, f, w.Layout(), info, opts)
	if err != nil {
		return err
	}
	var tail bytes.Buffer
	if err := m.Encode(&tail); err != nil {
		return err
	}
	n := tail.Len()
	sum := sha256.Sum256(tail.Bytes())
	tail.Write(sum[:])
	tail.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	tail.WriteString(magic)
	_, err = f.WriteAt(tail.Bytes(), m.Image.Size)
	return err
}

func fill(w image.Writer, at store.Path, contents store.Contents) error {
	dir := strings.TrimPrefix(store.Dir, "/")
	for i, c := range dir {
		if c == '/' {
			if err := w.Create(&store.Entry{Path: dir[:i], Kind: store.Directory}); err != nil {
				return err
			}
		}
	}
	if err := w.Create(&store.Entry{Path: dir, Kind: store.Directory}); err != nil {
		return err
	}
	if err := w.Begin(at.Base()); err != nil {
		return err
	}
	return image.AddTree(w, dir+"/"+at.Base(), contents)
}

// describe makes the manifest.
func describe(ctx context.Context, f *os.File, l *image.Layout, info *store.PathInfo, opts squashfs.Options) (*image.Manifest, error) {
	at := path(info.NarHash)
	m := &image.Manifest{
		Version: image.ManifestVersion,
		Image:   image.ManifestImage{Format: "squashfs", Size: l.Size, Metadata: image.ManifestMetadata{Extents: l.Metadata}},
		Options: Options(opts),
		Roots:   []store.Path{at},
		Totals:  image.ManifestTotals{StorePaths: 1, Files: l.Files, Directories: l.Dirs, Symlinks: l.Symlinks, Bytes: l.DataBytes, UniqueBytes: l.UniqueBytes},
		Paths: []image.ManifestPath{{
			Path: at, NarHash: info.NarHash, NarSize: info.NarSize, Files: l.Units[0].Files,
			Data: l.Units[0].Extents, DataSum: l.Units[0].Data, Sums: l.Units[0].Sums,
		}},
	}
	var err error
	m.Image.Metadata.SHA256, err = image.HashExtents(ctx, f, l.Metadata, func(int64) {})
	m.Image.SHA256 = m.Digest()
	return m, err
}

// Open reads back what [Write] wrote to f, which is called name. What it
// returns has been checked, and reads from f until release has been called.
func Open(ctx context.Context, name string, f *os.File, info *store.PathInfo, want image.ManifestOptions, release func()) ([]base.Entry, error) {
	m, err := readManifest(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	im, err := base.New(ctx, name, f, m.Image.Size, m, base.Options{Format: "squashfs", Writer: want, Release: release})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !im.Has(path(info.NarHash), info.NarHash) {
		return nil, fmt.Errorf("%s: %w: it holds another path", name, ErrDamaged)
	}
	entries, err := im.Unit(ctx, path(info.NarHash))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !slices.ContainsFunc(entries, func(e base.Entry) bool { return e.Kept != nil }) {
		release() // nobody reads from it
	}
	return entries, nil
}

func readManifest(f *os.File) (*image.Manifest, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	var trailer [sha256.Size + 8 + len(magic)]byte
	if size < int64(len(trailer)) {
		return nil, fmt.Errorf("it has %d bytes", size)
	}
	end := size - int64(len(trailer))
	if err := image.ReadFull(f, trailer[:], end); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(trailer[sha256.Size:])
	if string(trailer[sha256.Size+8:]) != magic || n > maxManifest || int64(n) > end {
		return nil, errors.New("it has no trailer")
	}
	h := sha256.New()
	m, err := image.DecodeManifest(io.TeeReader(io.NewSectionReader(f, end-int64(n), int64(n)), h))
	if err != nil {
		return nil, err
	}
	if image.HexSHA256(h.Sum(nil)) != image.HexSHA256(trailer[:sha256.Size]) {
		return nil, errors.New("its manifest is another than was written")
	}
	if m.Image.Size != end-int64(n) {
		return nil, fmt.Errorf("its image has %d bytes, its manifest says %d", end-int64(n), m.Image.Size)
	}
	return m, nil
}
