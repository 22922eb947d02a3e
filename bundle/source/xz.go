package source

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/therootcompany/xz"
)

// xzHeadSize has room for a stream header and the longest block header.
const xzHeadSize = 12 + 1024

// xzReader gives an xz archive that ends too early the error of all others.
type xzReader struct{ *xz.Reader }

// Read implements io.Reader.
func (r xzReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, xz.ErrBuf) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// xzDictionary returns the size of the dictionary that the first block of an
// xz archive asks for, in bytes; 0 if head cannot be understood, which the
// decoder then says better. The layout is that of the .xz file format 1.2.1,
// sections 2.1.1 and 3.1: stream header, then block header.
func xzDictionary(head []byte) uint64 {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+2 {
		return 0
	}
	flags, rest := head[streamHeader+1], head[streamHeader+2:]
	// Compressed and uncompressed size come first, if they are there.
	for _, flag := range []byte{0x40, 0x80} {
		if flags&flag != 0 {
			_, rest = xzNumber(rest)
		}
	}
	for range flags&3 + 1 {
		var id, size uint64
		id, rest = xzNumber(rest)
		size, rest = xzNumber(rest)
		if size > uint64(len(rest)) {
			return 0
		}
		if id == lzma2 && size == 1 {
			return xzDictSize(rest[0])
		}
		rest = rest[size:]
	}
	return 0
}

// xzNumber reads one multibyte integer, 0 if it cannot be read.
func xzNumber(b []byte) (uint64, []byte) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil
	}
	return v, b[n:]
}

// xzDictSize reads the filter property of LZMA2: two bits of mantissa, the
// rest exponent; 40 is 4 GiB - 1.
func xzDictSize(bits byte) uint64 {
	if bits >= 40 {
		return 1<<32 - 1
	}
	return uint64(2|bits&1) << (bits/2 + 11)
}
