package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// ErrDamaged is wrapped by every error about an image whose bytes contradict
// themselves or its format.
var ErrDamaged = errors.New("damaged image")

// ErrUnsupported is wrapped by every error about an image that may be sound
// but uses something that this package does not read.
var ErrUnsupported = errors.New("not supported")

// ErrUnfinished is wrapped by the error about an ext4 image that bigdisk began
// to change in place and has not finished: there is no filesystem to read.
var ErrUnfinished = errors.New("a change in place was interrupted: run bigdisk build --in-place again to finish it")

// The formats that [Open] knows, as [Info.Format] names them.
const (
	Squashfs = "squashfs"
	Ext4     = "ext4"
)

// Info describes an opened image.
type Info struct {
	Format string `json:"format"`
	// Size is the length of the whole file or device in bytes.
	Size int64 `json:"size"`
	// Offset and Length are where the filesystem lies in it, in bytes: Length
	// is what the superblock says, which may be less than the room there is.
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	// Partitioned is set for a GPT disk, Device for what is not a file.
	Partitioned bool `json:"partitioned"`
	Device      bool `json:"device"`
	// Label and UUID are those of an ext4 filesystem; squashfs has none.
	Label string `json:"label,omitempty"`
	UUID  string `json:"uuid,omitempty"`
	// BlockSize is the size of a data block in bytes.
	BlockSize int64 `json:"blockSize"`
	// Compression names a squashfs image's compressor.
	Compression string `json:"compression,omitempty"`
	// Inodes counts the inodes in use, as the superblock says.
	Inodes int64 `json:"inodes"`
	// Time is when the filesystem was made, in seconds since 1970.
	Time int64 `json:"time"`
}

// Node is one file, directory, symlink or other inode of an image.
type Node struct {
	// Ino is the inode number; hard links share it.
	Ino uint32
	// Kind is 0 for devices, FIFOs and sockets.
	Kind store.Kind
	// Mode has the permission bits, set-user-ID, set-group-ID and sticky
	// included (07777).
	Mode uint16
	UID  uint32
	GID  uint32
	// Mtime is in seconds since 1970; MtimeNsec is its fraction, 0 in squashfs.
	Mtime     int64
	MtimeNsec uint32
	// Size is the length of a regular file in bytes, 0 for all else.
	Size int64
	// Links is the number of names that the inode says it has.
	Links uint32
	// Target is where a symlink points.
	Target string

	parent uint32 // inode number of the directory it was found in, 0 if unknown
	priv   any    // what the format needs to go on
}

// DirEntry is one name in a directory. It is small: listings may have millions.
type DirEntry struct {
	Name   string
	ref    uint64
	ino    uint32
	parent uint32
	kind   store.Kind
}

// Ino is the entry's inode number. Images of ours number inodes in the order
// in which their data lies.
func (e *DirEntry) Ino() uint32 { return e.ino }

// blockSource gives a file's contents in pieces, in order.
type blockSource interface {
	// next returns the next bytes, valid until the call after; io.EOF after the last.
	next() ([]byte, error)
	close()
}

// filesystem is what a format must be able to do.
type filesystem interface {
	info() Info
	root() (*Node, error)
	node(e *DirEntry) (*Node, error)
	readDir(n *Node) ([]DirEntry, error)
	open(n *Node) (blockSource, error)
	sweep(ctx context.Context, found func(error)) error
	place(n *Node) (image.FilePlace, error)
}

// Image is an opened image.
type Image struct {
	fs     filesystem
	disk   io.ReaderAt
	closer io.Closer
	info   Info
}

// Open opens the image in a file or block device. The caller must Close it.
func Open(path string) (*Image, error) {
	f, err := image.OpenFile(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("size of %s: %w", path, err)
	}
	im, err := New(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	im.closer = f
	if st, err := f.Stat(); err == nil {
		im.info.Device = st.Mode()&os.ModeDevice != 0
	}
	return im, nil
}

// New opens the image in the first size bytes of r.
func New(r io.ReaderAt, size int64) (im *Image, err error) {
	err = Guard("opening the image", func() error {
		im, err = newImage(r, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	return im, nil
}

func newImage(r io.ReaderAt, size int64) (*Image, error) {
	im := &Image{disk: r, info: Info{Size: size, Length: size}}
	fs, err := detect(r, size)
	if errors.Is(err, errUnknownFormat) {
		at, partErr := findPartition(r, size)
		if partErr != nil {
			return nil, partErr
		}
		if at == nil {
			return nil, err
		}
		im.info.Partitioned, im.info.Offset = true, at.offset
		fs, err = detect(io.NewSectionReader(r, at.offset, at.length), at.length)
	}
	if err != nil {
		return nil, err
	}
	im.fs = fs
	im.fillInfo()
	return im, nil
}

func (im *Image) fillInfo() {
	of := im.fs.info()
	of.Size, of.Offset, of.Partitioned = im.info.Size, im.info.Offset, im.info.Partitioned
	im.info = of
}

var errUnknownFormat = errors.New("neither squashfs nor ext4, bare or in a GPT partition")

// detect opens the filesystem that starts at r's first byte.
func detect(r io.ReaderAt, size int64) (filesystem, error) {
	var head [4096]byte
	n, err := r.ReadAt(head[:min(size, int64(len(head)))], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	switch {
	case n >= sqfsSuperSize && string(head[:4]) == sqfsMagic:
		return openSquashfs(r, size)
	case isUnfinished(head[:n]):
		return nil, ErrUnfinished
	case n >= extSuperOffset+extSuperSize && head[extSuperOffset+0x38] == 0x53 && head[extSuperOffset+0x39] == 0xef:
		return openExt4(r, size)
	}
	return nil, errUnknownFormat
}

// isUnfinished looks in an image's first block for the marks of a change in
// place, which are there until it is done: in the place of the superblock, and
// in the two records behind it.
func isUnfinished(head []byte) bool {
	for at, mark := range map[int]string{1024: "bigdisk in place", 2048: "bigdisk in place", 3584: "bigdisk switches"} {
		if len(head) >= at+len(mark) && string(head[at:at+len(mark)]) == mark {
			return true
		}
	}
	return false
}

// Close releases the image. Files opened from it must not be used after.
func (im *Image) Close() error {
	if im.closer == nil {
		return nil
	}
	return im.closer.Close()
}

// Info describes the image.
func (im *Image) Info() Info { return im.info }

// Disk is the whole file or device, for what looks at its bytes.
func (im *Image) Disk() *io.SectionReader { return io.NewSectionReader(im.disk, 0, im.info.Size) }

// Root returns the image's root directory.
func (im *Image) Root() (*Node, error) { return im.fs.root() }

// ReadDir lists a directory, sorted by name in byte order, without "." and
// "..". Names that cannot be, or that come twice, are an error.
func (im *Image) ReadDir(n *Node) ([]DirEntry, error) {
	if n.Kind != store.Directory {
		return nil, fmt.Errorf("inode %d is not a directory", n.Ino)
	}
	return im.fs.readDir(n)
}

// Node reads the inode that a directory entry points to.
func (im *Image) Node(e *DirEntry) (*Node, error) { return im.fs.node(e) }

// Sweep checks what walking the tree does not touch, as far as the format has
// checksums or redundancy for it, and gives each fault to found. It
// returns an error only when it could not look.
func (im *Image) Sweep(ctx context.Context, found func(error)) error {
	return Guard("checking the image's structures", func() error { return im.fs.sweep(ctx, found) })
}

// Guard runs f and turns a panic in it into an error: the one boundary behind
// which libraries are given an image's bytes.
func Guard(doing string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s: a library failed: %v", ErrDamaged, doing, r)
		}
	}()
	return f()
}

// damaged makes an error that wraps ErrDamaged.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}
