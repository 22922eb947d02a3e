package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// InFile is a part of a file that starts at an offset and keeps its bytes'
// order: what [CopyRange] can look behind.
type InFile interface {
	// InFile returns the file, and the offset in it of byte 0.
	InFile() (f *os.File, offset int64)
}

// Told is a destination that wants to know of what the kernel copied into the
// file behind it, past its WriteAt.
type Told interface{ Wrote(at, n int64) }

// Direct is a destination whose large writes may go past the page cache, which
// is faster than what the kernel copies through it.
type Direct interface{ Direct() bool }

// CopyRange copies n bytes of src, from byte from on, to byte to of dst. Where
// both are in files of a filesystem that can share blocks, they share them.
// Elsewhere the kernel copies if both are in files, unless dst is better
// written to. A cancelled ctx ends the copy soon, with its error.
func CopyRange(ctx context.Context, dst io.WriterAt, to int64, src io.ReaderAt, from, n int64) error {
	out, outAt := behind(dst)
	in, inAt := behind(src)
	if out != nil && in != nil {
		if cloneRange(out, outAt+to, in, inAt+from, n) {
			return nil
		}
		if d, ok := dst.(Direct); !ok || !d.Direct() || to%copyAlign != 0 {
			done := copyInKernel(ctx, out, outAt+to, in, inAt+from, n)
			if t, ok := dst.(Told); ok {
				t.Wrote(to, done)
			}
			to, from, n = to+done, from+done, n-done
		}
	}
	return copyData(ctx, dst, to, src, from, n)
}

// copyPiece is how much is read and written at once, in bytes, kernelPiece how
// much the kernel copies before it is asked whether to go on, copyAlign what a
// copy's place in a destination should be a multiple of, and copiers how many
// read and write at a time: a read and a write can go on beside each other.
const (
	copyPiece   = 1 << 20
	kernelPiece = 32 << 20
	copyAlign   = 4096
	copiers     = 2
)

// copyBuffers recycles buffers: there are many copies, one after the other.
var copyBuffers = sync.Pool{New: func() any { return new([copyPiece]byte) }}

// copyData reads and writes. Its copiers stop at the first failure.
func copyData(ctx context.Context, dst io.WriterAt, to int64, src io.ReaderAt, from, n int64) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(copiers, (n+copyPiece-1)/copyPiece) {
		group.Go(func() error {
			buf := copyBuffers.Get().(*[copyPiece]byte)
			defer copyBuffers.Put(buf)
			for {
				at := next.Add(copyPiece) - copyPiece
				if at >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				p := buf[:min(n-at, copyPiece)]
				if err := ReadFull(src, p, from+at); err != nil {
					return err
				}
				if _, err := dst.WriteAt(p, to+at); err != nil {
					return fmt.Errorf("at byte %d: %w", to+at, err)
				}
			}
		})
	}
	return group.Wait()
}

// behind returns the file that x is, or is in; nil if it is neither.
func behind(x any) (*os.File, int64) {
	switch x := x.(type) {
	case *os.File:
		return x, 0
	case InFile:
		return x.InFile()
	}
	return nil, 0
}

// cloneRange makes the blocks of both files the same, and reports whether it
// did: the filesystem must be able to, and everything be whole blocks.
func cloneRange(out *os.File, to int64, in *os.File, from, n int64) bool {
	return n > 0 && unix.IoctlFileCloneRange(int(out.Fd()), &unix.FileCloneRange{
		Src_fd: int64(in.Fd()), Src_offset: uint64(from), Src_length: uint64(n), Dest_offset: uint64(to),
	}) == nil
}

// copyInKernel copies as much as copy_file_range will, and returns how much that
// is. What it will not is left to do, whatever the reason: if there is one for
// which no copy can be made, reading or writing will meet it, and know in which
// of the files.
func copyInKernel(ctx context.Context, out *os.File, to int64, in *os.File, from, n int64) (done int64) {
	for done < n && ctx.Err() == nil {
		at, into := from+done, to+done
		got, err := unix.CopyFileRange(int(in.Fd()), &at, int(out.Fd()), &into, int(min(n-done, kernelPiece)), 0)
		if err != unix.EINTR && (err != nil || got == 0) {
			return done
		}
		done += int64(max(got, 0))
	}
	return done
}

// ReadFull fills p from byte at of r on; less is an error.
func ReadFull(r io.ReaderAt, p []byte, at int64) error {
	if n, err := r.ReadAt(p, at); n < len(p) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("at byte %d: %w", at+int64(n), err)
	}
	return nil
}
