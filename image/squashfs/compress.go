package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression is a compressor and its level: "zstd:default". The zero value is
// not valid; make one with [ParseCompression].
type Compression struct {
	name  string
	level zstd.EncoderLevel
}

// DefaultCompression is what an image gets that nobody chose for.
var DefaultCompression = Compression{"zstd", zstd.SpeedDefault}

var zstdLevels = []zstd.EncoderLevel{
	zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression,
}

// ParseCompression reads zstd, zstd:fastest, zstd:default, zstd:better,
// zstd:best, gzip, lz4 or none.
func ParseCompression(s string) (Compression, error) {
	name, level, hasLevel := strings.Cut(s, ":")
	switch {
	case name == "zstd" && !hasLevel:
		return DefaultCompression, nil
	case name == "zstd":
		for _, l := range zstdLevels {
			if l.String() == level {
				return Compression{name, l}, nil
			}
		}
		return Compression{}, fmt.Errorf("compression %q: zstd has the levels fastest, default, better and best", s)
	case !hasLevel && slices.Contains([]string{"gzip", "lz4", "none"}, name):
		return Compression{name: name}, nil
	}
	return Compression{}, fmt.Errorf("compression %q is not one of zstd[:fastest|:default|:better|:best], gzip, lz4, none", s)
}

// String returns what [ParseCompression] reads, with the level of zstd.
func (c Compression) String() string {
	if c.name == "zstd" {
		return c.name + ":" + c.level.String()
	}
	return c.name
}

// id is the compressor's number in the superblock. An image without
// compression still names one, for the kernel wants to know it; gzip's is
// built into every kernel that has squashfs.
func (c Compression) id() uint16 {
	switch c.name {
	case "lz4":
		return 5
	case "zstd":
		return 6
	}
	return 1
}

// options is the compressor's options as they follow the superblock
// (struct squashfs_zstd_opts is one 32-bit level, lz4's are version and flags);
// nil where gzip's defaults say it all.
func (c Compression) options() []byte {
	le := binary.LittleEndian
	switch c.name {
	case "zstd":
		// The nearest level of the zstd command: readers only print it.
		nominal := map[zstd.EncoderLevel]uint32{
			zstd.SpeedFastest: 1, zstd.SpeedDefault: 3, zstd.SpeedBetterCompression: 7, zstd.SpeedBestCompression: 11,
		}
		return le.AppendUint32(nil, nominal[c.level])
	case "lz4":
		return le.AppendUint32(le.AppendUint32(nil, 1), 0)
	}
	return nil
}

// compressor turns one block into its compressed form. It is not safe for
// concurrent use: each worker has its own for the whole run, since setting one
// up costs more than compressing a small block.
type compressor interface {
	// compress appends the compressed src to dst. It returns nil if that would
	// not be smaller than src.
	compress(dst, src []byte) ([]byte, error)
}

// newCompressor makes a compressor for blocks of up to blockSize bytes.
func (c Compression) newCompressor(blockSize int) (compressor, error) {
	switch c.name {
	case "zstd":
		// The kernel's decoder has a window of one block, and no use for a
		// checksum.
		enc, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(c.level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(max(blockSize, metadataSize)))
		if err != nil {
			return nil, fmt.Errorf("zstd encoder: %w", err)
		}
		return zstdCompressor{enc}, nil
	case "gzip":
		w, err := zlib.NewWriterLevel(io.Discard, zlib.BestCompression)
		if err != nil {
			return nil, fmt.Errorf("gzip encoder: %w", err)
		}
		return &zlibCompressor{w: w}, nil
	case "lz4":
		return &lz4Compressor{}, nil
	case "none":
		return storing{}, nil
	}
	return nil, fmt.Errorf("compression %q is not known", c.name)
}

type zstdCompressor struct{ enc *zstd.Encoder }

func (z zstdCompressor) compress(dst, src []byte) ([]byte, error) {
	return smaller(z.enc.EncodeAll(src, dst), len(dst), len(src)), nil
}

type zlibCompressor struct {
	w   *zlib.Writer
	buf bytes.Buffer
}

func (z *zlibCompressor) compress(dst, src []byte) ([]byte, error) {
	z.buf.Reset()
	z.w.Reset(&z.buf)
	if _, err := z.w.Write(src); err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	if err := z.w.Close(); err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	if z.buf.Len() >= len(src) {
		return nil, nil
	}
	return append(dst, z.buf.Bytes()...), nil
}

type lz4Compressor struct{ c lz4.Compressor }

func (z *lz4Compressor) compress(dst, src []byte) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, lz4.CompressBlockBound(len(src)))
	n, err := z.c.CompressBlock(src, dst[start:cap(dst)])
	if err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	if n == 0 {
		return nil, nil
	}
	return smaller(dst[:start+n], start, len(src)), nil
}

type storing struct{}

func (storing) compress([]byte, []byte) ([]byte, error) { return nil, nil }

// smaller returns out if what it holds past start is shorter than size.
func smaller(out []byte, start, size int) []byte {
	if len(out)-start >= size {
		return nil
	}
	return out
}
