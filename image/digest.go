package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ChunkSize is the length in bytes of the chunks that ext4 images are hashed
// by. A Big Disk takes hours to hash from its first byte to its last; chunks are
// hashed by all CPUs at once, and what is a hole costs nothing.
const ChunkSize = 4 << 20

// Digest hashes the first size bytes of r. Without a chunk size that is their
// SHA-256. With one, it is the SHA-256 of the SHA-256s, one after the other, of
// chunks of so many bytes, the last one perhaps shorter; jobs of them are
// hashed at a time. add is told of every byte that is done, from several
// goroutines.
func Digest(ctx context.Context, r io.ReaderAt, size, chunk int64, jobs int, add func(bytes int64)) (HexSHA256, error) {
	if chunk == 0 {
		return hashRange(ctx, r, 0, size, add)
	}
	sums, err := SumChunks(ctx, r, size, chunk, jobs, func(int64) *HexSHA256 { return nil }, add)
	if err != nil {
		return HexSHA256{}, err
	}
	return sums.Digest(), nil
}

// SumChunks hashes the chunks of the first size bytes of r; see [Digest]. The
// chunks for whose number known returns something are not read.
func SumChunks(ctx context.Context, r io.ReaderAt, size, chunk int64, jobs int, known func(i int64) *HexSHA256, add func(bytes int64)) (ChunkSums, error) {
	if chunk <= 0 || size/chunk > 1<<26 {
		return nil, fmt.Errorf("%d bytes are not hashed by chunks of %d", size, chunk)
	}
	sums := make(ChunkSums, (size+chunk-1)/chunk)
	zeros, err := hashRange(ctx, zeroReader{}, 0, min(chunk, size), func(int64) {})
	if err != nil {
		return nil, err
	}
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(max(1, jobs))
	for i := range sums {
		if within.Err() != nil {
			break
		}
		at := int64(i) * chunk
		n := min(chunk, size-at)
		if sum := known(int64(i)); sum != nil {
			sums[i] = *sum
			add(n)
			continue
		}
		group.Go(func() (err error) {
			if n == chunk && isHole(r, at, n) {
				sums[i] = zeros
				add(n)
				return nil
			}
			sums[i], err = hashRange(within, r, at, n, add)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return sums, ctx.Err()
}

func hashRange(ctx context.Context, r io.ReaderAt, at, n int64, add func(int64)) (HexSHA256, error) {
	h, buf := sha256.New(), make([]byte, min(n, 1<<20))
	for end := at + n; at < end; {
		if err := ctx.Err(); err != nil {
			return HexSHA256{}, err
		}
		p := buf[:min(int64(len(buf)), end-at)]
		if got, err := r.ReadAt(p, at); got < len(p) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return HexSHA256{}, fmt.Errorf("at byte %d: %w", at+int64(got), err)
		}
		h.Write(p)
		at += int64(len(p))
		add(int64(len(p)))
	}
	return HexSHA256(h.Sum(nil)), nil
}

// Holes is an image that knows, without reading, where it is all zeros.
type Holes interface {
	// IsHole reports whether n bytes from byte at on are. Where that cannot be
	// told, there may be data.
	IsHole(at, n int64) bool
}

// isHole reports whether r is known to have nothing but zeros in a range, for
// example since it is a file that has nothing there.
func isHole(r io.ReaderAt, at, n int64) bool {
	if h, ok := r.(Holes); ok {
		return h.IsHole(at, n)
	}
	f, base := behind(r)
	if f == nil {
		return false
	}
	data, err := unix.Seek(int(f.Fd()), base+at, unix.SEEK_DATA)
	return err == unix.ENXIO || err == nil && data >= base+at+n
}

type zeroReader struct{}

// ReadAt gives zeros.
func (zeroReader) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
