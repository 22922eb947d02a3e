package image

import (
	"errors"
	"fmt"
	"io"
	"os"

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

// CopyRange copies n bytes of src, from byte from on, to byte to of dst. Where
// both are in files, the kernel copies: filesystems that can will share the
// blocks.
func CopyRange(dst io.WriterAt, to int64, src io.ReaderAt, from, n int64) error {
	out, outAt := behind(dst)
	in, inAt := behind(src)
	if out != nil && in != nil {
		done, err := copyInKernel(out, outAt+to, in, inAt+from, n)
		if err != nil {
			return fmt.Errorf("copying %d bytes to byte %d: %w", n, to, err)
		}
		if t, ok := dst.(Told); ok {
			t.Wrote(to, done)
		}
		to, from, n = to+done, from+done, n-done
	}
	if n == 0 {
		return nil
	}
	for buf := make([]byte, min(n, 1<<20)); n > 0; {
		p := buf[:min(n, int64(len(buf)))]
		if err := ReadFull(src, p, from); err != nil {
			return err
		}
		if _, err := dst.WriteAt(p, to); err != nil {
			return fmt.Errorf("at byte %d: %w", to, err)
		}
		to, from, n = to+int64(len(p)), from+int64(len(p)), n-int64(len(p))
	}
	return nil
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

// copyInKernel copies as much as copy_file_range will. What it will not, for
// the files are on other filesystems or on one that cannot, is left to do.
func copyInKernel(out *os.File, to int64, in *os.File, from, n int64) (done int64, err error) {
	for done < n {
		at, into := from+done, to+done
		got, err := unix.CopyFileRange(int(in.Fd()), &at, int(out.Fd()), &into, int(min(n-done, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), err == nil && got == 0:
			return done, nil
		case err != nil:
			return done, err
		}
		done += int64(got)
	}
	return done, nil
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
