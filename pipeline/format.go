package pipeline

import (
	"context"
	"fmt"

	"bigdisk/image"
	"bigdisk/image/ext4"
	"bigdisk/image/squashfs"
)

// format is how an image is laid out.
type format interface {
	// newWriter starts an image in f.
	newWriter(ctx context.Context, f *disk, label string) (image.Writer, error)
	// compression and blockSize are for the manifest; "" is for none.
	compression() string
	blockSize() int
	// layoutVersion is that of the writer.
	layoutVersion() int
}

// newFormat checks the options that are for the format alone.
func newFormat(o BuildOptions) (format, error) {
	if o.Format == Ext4 {
		if o.BlockSize != 0 && o.BlockSize != ext4BlockSize {
			return nil, fmt.Errorf("%w: ext4 images have blocks of %d bytes: leave --block-size out", ErrUsage, ext4BlockSize)
		}
		e := ext4.Options{UID: o.UID, GID: o.GID, Size: o.Size, Writable: o.Writable}
		if o.Verity || o.Partition != "" {
			e.RoundTo = ext4BlockSize // what comes after it is rounded
		}
		return ext4Format{e}, nil
	}
	c, err := squashfs.ParseCompression(o.Compression)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	size := o.BlockSize
	if size == 0 {
		size = squashfs.DefaultBlockSize
	}
	if size < squashfs.MinBlockSize || size > squashfs.MaxBlockSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("%w: block size %d is not a power of two from %d to %d", ErrUsage, size, squashfs.MinBlockSize, squashfs.MaxBlockSize)
	}
	return squashfsFormat{squashfs.Options{
		Compression: c, BlockSize: size, UID: o.UID, GID: o.GID, Jobs: o.Jobs, Memory: o.MemoryBudget / 2, ScratchDir: o.ScratchDir,
	}}, nil
}

type squashfsFormat struct{ opts squashfs.Options }

func (s squashfsFormat) newWriter(ctx context.Context, f *disk, _ string) (image.Writer, error) {
	return squashfs.NewWriter(ctx, f, s.opts)
}

func (s squashfsFormat) compression() string { return s.opts.Compression.String() }

func (s squashfsFormat) blockSize() int { return s.opts.BlockSize }

func (s squashfsFormat) layoutVersion() int { return squashfs.LayoutVersion }

// ext4BlockSize is the only one that ext4 images have, in bytes.
const ext4BlockSize = 4096

type ext4Format struct{ opts ext4.Options }

func (e ext4Format) newWriter(ctx context.Context, f *disk, label string) (image.Writer, error) {
	opts := e.opts
	opts.Label = label
	return ext4.NewWriter(ctx, f, opts)
}

func (e ext4Format) compression() string { return "" }

func (e ext4Format) blockSize() int { return ext4BlockSize }

func (e ext4Format) layoutVersion() int { return ext4.LayoutVersion }
