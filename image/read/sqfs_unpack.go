package read

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// unpacker unpacks blocks into buffers of a given size and never beyond, from
// many goroutines at once.
type unpacker struct {
	one func(dst, src []byte) (int, error)
}

// newUnpacker takes the superblock's compression number.
func newUnpacker(compression int) (*unpacker, error) {
	switch compression {
	case 1:
		return &unpacker{unpackZlib()}, nil
	case 4:
		return &unpacker{unpackXz}, nil
	case 5:
		return &unpacker{func(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }}, nil
	case 6:
		one, err := unpackZstd()
		return &unpacker{one}, err
	}
	if compression > 0 && compression < len(sqfsCompressors) {
		return nil, fmt.Errorf("%w: squashfs compressed with %s", ErrUnsupported, sqfsCompressors[compression])
	}
	return nil, damaged("superblock: compression %d", compression)
}

// unpack unpacks src into dst and returns the part of dst that it filled. A
// block that has more bytes than dst is damaged.
func (u *unpacker) unpack(dst, src []byte) ([]byte, error) {
	n, err := u.one(dst, src)
	if err != nil {
		return nil, damaged("unpacking a block of %d bytes: %w", len(src), err)
	}
	return dst[:n], nil
}

// unpackZstd uses one decoder for all: it keeps as many states as there are CPUs.
func unpackZstd() (func(dst, src []byte) (int, error), error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderMaxMemory(8<<20),
		zstd.WithDecoderMaxWindow(8<<20),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return func(dst, src []byte) (int, error) {
		out, err := d.DecodeAll(src, dst[:0:len(dst)])
		return len(out), err
	}, nil
}

func unpackZlib() func(dst, src []byte) (int, error) {
	var pool sync.Pool
	return func(dst, src []byte) (int, error) {
		in := bytes.NewReader(src)
		z, ok := pool.Get().(io.ReadCloser)
		var err error
		if ok {
			err = z.(zlib.Resetter).Reset(in, nil)
		} else {
			z, err = zlib.NewReader(in)
		}
		if err != nil {
			return 0, err
		}
		n, err := readLimited(z, dst)
		if err == nil {
			pool.Put(z)
		}
		return n, err
	}
}

// xzMaxDict is the largest dictionary that a squashfs block can have use for
// (mksquashfs takes at most the block size).
const xzMaxDict = 8 << 20

func unpackXz(dst, src []byte) (int, error) {
	if err := checkXzDict(src); err != nil {
		return 0, err
	}
	z, err := xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(src))
	if err != nil {
		return 0, err
	}
	return readLimited(z, dst)
}

// checkXzDict refuses a block whose header (The .xz File Format, section 3.1)
// asks for a large dictionary, which the library would allocate.
func checkXzDict(src []byte) error {
	const streamHeader = 12
	if len(src) < streamHeader+8 {
		return io.ErrUnexpectedEOF
	}
	flags, b := src[streamHeader+1], src[streamHeader+2:]
	if flags&0x3f != 0 {
		return fmt.Errorf("xz block with flags %#x is not supported", flags)
	}
	for _, size := range []byte{0x40, 0x80} { // of the block, packed and not
		if flags&size == 0 {
			continue
		}
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("xz block with a bad size")
		}
		b = b[n:]
	}
	if len(b) < 3 || b[0] != 0x21 || b[1] != 1 || b[2] > 40 {
		return fmt.Errorf("xz block with a filter other than LZMA2 is not supported")
	}
	if dict := uint64(2|b[2]&1) << (b[2]/2 + 11); dict > xzMaxDict {
		return fmt.Errorf("xz dictionary of %d bytes, over %d", dict, xzMaxDict)
	}
	return nil
}

// readLimited reads all of r into dst; more than fits is an error.
func readLimited(r io.Reader, dst []byte) (int, error) {
	n, err := io.ReadFull(r, dst)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		if err == io.ErrUnexpectedEOF && n == len(dst) {
			return n, err
		}
		return n, nil
	}
	if err != nil {
		return n, err
	}
	var more [1]byte
	if extra, err := r.Read(more[:]); extra > 0 {
		return n, fmt.Errorf("more than %d bytes", len(dst))
	} else if err != nil && err != io.EOF {
		return n, err
	}
	return n, nil
}

// bufPool lends buffers of one size.
type bufPool struct {
	size int
	pool sync.Pool
}

func (p *bufPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	return &b
}

func (p *bufPool) put(b *[]byte) {
	if b != nil {
		p.pool.Put(b)
	}
}
