package image

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// FileSum stands for the contents of a regular file: files with the same sum
// are the same. It is the start of a BLAKE3; image/internal/filesum says of
// what.
type FileSum [20]byte

// FileSums are those of a unit's regular files that are not empty, in the order
// in which they came. As text they are one base64 string.
type FileSums []FileSum

// MarshalText writes base64.
func (s FileSums) MarshalText() ([]byte, error) {
	raw := make([]byte, 0, len(s)*len(FileSum{}))
	for i := range s {
		raw = append(raw, s[i][:]...)
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

// UnmarshalText reads base64 of whole sums.
func (s *FileSums) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("file sums: %w", err)
	}
	const size = len(FileSum{})
	if len(raw)%size != 0 {
		return fmt.Errorf("file sums of %d bytes are not whole sums of %d", len(raw), size)
	}
	*s = make(FileSums, len(raw)/size)
	for i := range *s {
		copy((*s)[i][:], raw[i*size:])
	}
	return nil
}

// DataSum is the BLAKE3 of a unit's own data as it lies in an image (squashfs;
// nothing for ext4, where the files' sums cover it), followed by the sums of all
// its files.
type DataSum [32]byte

// Sum is the DataSum of sums alone; nil if there are none.
func (s FileSums) Sum() *DataSum {
	if len(s) == 0 {
		return nil
	}
	h := blake3.New()
	for i := range s {
		h.Write(s[i][:])
	}
	sum := new(DataSum)
	h.Sum(sum[:0])
	return sum
}

// SumData returns the DataSum of a unit's extents in r, and of the sums of its
// files. add is told of every byte that is done.
func SumData(ctx context.Context, r io.ReaderAt, extents []Extent, files FileSums, add func(bytes int64)) (DataSum, error) {
	h := blake3.New()
	if err := hashExtents(ctx, h, r, extents, add); err != nil {
		return DataSum{}, err
	}
	for i := range files {
		h.Write(files[i][:])
	}
	var sum DataSum
	h.Sum(sum[:0])
	return sum, nil
}

// String returns the sum in lower-case hexadecimal.
func (d DataSum) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes lower-case hexadecimal.
func (d DataSum) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads exactly 64 hexadecimal digits.
func (d *DataSum) UnmarshalText(text []byte) error { return (*HexSHA256)(d).UnmarshalText(text) }
