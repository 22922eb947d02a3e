// Package rawtar makes the disk.raw.tar.gz that Compute Engine imports as a
// disk image, in parts that can be made at the same time, in any order, again
// after a crash, and on several machines: each part is a fixed range of the
// image, and its bytes follow from the image's and the options alone.
//
// The archive holds one file, disk.raw, in GNU tar's format, padded with zeros
// to a whole number of GiB, as "Manually import boot disks" in Google's
// documentation asks for. Sizes from 8 GiB on are in GNU tar's base-256 form.
//
// The parts in a row, and the tail after them, are one gzip member (RFC 1952),
// since not every reader goes on after a first one. Each part ends with its
// deflate blocks (RFC 1951) on a byte's boundary. Data that does not compress,
// which in a squashfs image is nearly all, goes into stored blocks; runs of
// zeros become copies of blocks compressed once, a thousandth of their size;
// holes in the image are not even read. A file of zeros and a file with a hole
// in the same place give the same archive.
package rawtar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// DefaultPartSize is how many bytes of the image a part stands for.
	DefaultPartSize = 16 << 20
	// DefaultLevel is the deflate level that compresses ext4 images best for
	// the time it takes.
	DefaultLevel = 6
	// Name is the one member's name.
	Name = "disk.raw"

	gib        = 1 << 30
	tarBlock   = 512
	tarRecord  = 20 * tarBlock // what GNU tar pads an archive to
	partsStep  = 1 << 20       // what part sizes are multiples of
	maxPart    = 1 << 30       // the largest part
	version    = 1             // of the bytes that this package makes
	maxImage   = 64 << 40      // the largest disk that Compute Engine has
	headerTime = 1             // the member's time, as in a Nix store
)

// Options say how an archive is made. The zero value is a sensible default.
type Options struct {
	// PartSize is how many bytes of the image a part stands for: a multiple of
	// 1 MiB, up to 1 GiB; 0 is [DefaultPartSize]. A part takes at most that
	// much memory and a thousandth more.
	PartSize int64
	// Level is the deflate level, from 1 (fastest) to 9; 0 is [DefaultLevel].
	Level int
}

// Archive makes the parts of one image's archive. It is safe for concurrent
// use.
type Archive struct {
	image  io.ReaderAt
	file   *os.File // the image if it may have holes, else nil
	close  io.Closer
	size   int64
	padded int64
	opts   Options
	header []byte
	zeros  zeroBlocks
	pool   encoders
}

// Open opens an image, a file or a block device, to make an archive of it. It
// must not change until Close. Errors name the file.
func Open(name string, opts Options) (*Archive, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := imageSize(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	a, err := New(file, size, opts)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	a.file, a.close = file, file
	return a, nil
}

// imageSize returns the length in bytes of a regular file or block device.
func imageSize(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	isDevice := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	if !info.Mode().IsRegular() && !isDevice {
		return 0, fmt.Errorf("%s is neither a regular file nor a block device", file.Name())
	}
	return file.Seek(0, io.SeekEnd)
}

// New returns an archive of the image's first size bytes.
func New(image io.ReaderAt, size int64, opts Options) (*Archive, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	if size <= 0 {
		return nil, errors.New("the image is empty")
	}
	if size > maxImage {
		return nil, fmt.Errorf("the image has %d bytes, and the largest disk %d", size, int64(maxImage))
	}
	a := &Archive{image: image, size: size, padded: (size + gib - 1) / gib * gib, opts: opts}
	var err error
	if a.header, err = tarHeader(a.padded); err != nil {
		return nil, err
	}
	a.zeros, err = newZeroBlocks()
	return a, err
}

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.PartSize == 0 {
		o.PartSize = DefaultPartSize
	}
	if o.Level == 0 {
		o.Level = DefaultLevel
	}
	if o.PartSize < 0 || o.PartSize%partsStep != 0 || o.PartSize > maxPart {
		return fmt.Errorf("part size %d is not a multiple of %d up to %d", o.PartSize, partsStep, maxPart)
	}
	if o.Level < 1 || o.Level > 9 {
		return fmt.Errorf("compression level %d is not from 1 to 9", o.Level)
	}
	return nil
}

// tarHeader returns the header of the one member, in GNU tar's format.
func tarHeader(size int64) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: Name, Size: size, Mode: 0o644,
		ModTime: time.Unix(headerTime, 0), Format: tar.FormatGNU,
	})
	if err == nil && b.Len() != tarBlock {
		err = fmt.Errorf("tar header has %d bytes", b.Len())
	}
	return b.Bytes(), err
}

// Close releases the image. No part may be in the making.
func (a *Archive) Close() error {
	if a.close == nil {
		return nil
	}
	return a.close.Close()
}

// Size returns the length of disk.raw in bytes: a whole number of GiB, and the
// least size of a disk made from it.
func (a *Archive) Size() int64 { return a.padded }

// ImageSize returns the image's length in bytes.
func (a *Archive) ImageSize() int64 { return a.size }

// Key tells what, beside the image, the parts' bytes depend on.
func (a *Archive) Key() string {
	return fmt.Sprintf("gnu-tar-gzip/%d part=%d level=%d", version, a.opts.PartSize, a.opts.Level)
}

// Parts returns the number of parts. The last has the padding, too.
func (a *Archive) Parts() int {
	return int((a.size + a.opts.PartSize - 1) / a.opts.PartSize)
}

// PartSize returns how many bytes of the image part i stands for.
func (a *Archive) PartSize(i int) int64 {
	return min(a.opts.PartSize, a.size-int64(i)*a.opts.PartSize)
}

// span is the range of disk.raw in part i.
func (a *Archive) span(i int) (start, end int64) {
	start = int64(i) * a.opts.PartSize
	if i == a.Parts()-1 {
		return start, a.padded
	}
	return start, start + a.opts.PartSize
}
