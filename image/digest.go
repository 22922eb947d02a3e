package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
)

// Digest is what the image's sha256 is: the SHA-256 of some lines of text, of
// which the first are the image's size and the extents and the SHA-256 of its
// metadata, and the others its store paths with what they hash to.
//
//	size 123456
//	metadata 0 4096
//	metadata 98304 25152
//	metadata sha256 5f7c…
//	/nix/store/…-name sha256:1b8m… 40f3…
//
// So it stands for every byte that is not free space, and yet nobody has to
// read an image from its first byte to its last to make it: what the lines say
// is known of each path when it has been written, or copied from an earlier
// image. The last field is the path's blake3, "-" if it has none.
func (m *Manifest) Digest() HexSHA256 {
	h := sha256.New()
	fmt.Fprintf(h, "size %d\n", m.Image.Size)
	for _, x := range m.Image.Metadata.Extents {
		fmt.Fprintf(h, "metadata %d %d\n", x.Offset, x.Length)
	}
	fmt.Fprintf(h, "metadata sha256 %s\n", m.Image.Metadata.SHA256)
	for i := range m.Paths {
		p := &m.Paths[i]
		sum := "-"
		if p.DataSum != nil {
			sum = p.DataSum.String()
		}
		fmt.Fprintf(h, "%s %s %s\n", p.Path, p.NarHash, sum)
	}
	return HexSHA256(h.Sum(nil))
}

// HashExtents returns the SHA-256 of ranges of r, one after the other. A range
// that does not end where it should is an error that wraps
// [io.ErrUnexpectedEOF]. add is told of every byte that is done.
func HashExtents(ctx context.Context, r io.ReaderAt, extents []Extent, add func(bytes int64)) (HexSHA256, error) {
	h := sha256.New()
	if err := hashExtents(ctx, h, r, extents, add); err != nil {
		return HexSHA256{}, err
	}
	return HexSHA256(h.Sum(nil)), nil
}

func hashExtents(ctx context.Context, h io.Writer, r io.ReaderAt, extents []Extent, add func(bytes int64)) error {
	var most int64
	for _, x := range extents {
		most = max(most, x.Length)
	}
	buf := make([]byte, min(most, 1<<20))
	for _, x := range extents {
		for at, end := x.Offset, x.Offset+x.Length; at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(int64(len(buf)), end-at)]
			if err := ReadFull(r, p, at); err != nil {
				return err
			}
			h.Write(p)
			at += int64(len(p))
			add(int64(len(p)))
		}
	}
	return nil
}
