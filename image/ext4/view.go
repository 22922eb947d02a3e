package ext4

import "io"

// view is an image as it will be, or as it was.
type view struct {
	disk  io.ReaderAt
	size  int64
	front []byte // what is there from byte frontAt on
	at    int64
}

// ReadAt reads the image.
func (v *view) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at >= v.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), v.size-at))
	if err := v.read(p[:n], at); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (v *view) read(p []byte, at int64) error {
	n, err := v.disk.ReadAt(p, at)
	if err != nil && err != io.EOF {
		return err
	}
	clear(p[n:]) // the file grows in the end
	if at < v.at+int64(len(v.front)) && at+int64(len(p)) > v.at {
		copy(p[max(v.at-at, 0):], v.front[max(at-v.at, 0):])
	}
	return nil
}

// Image is the new image as it will lie on the disk, after Close, but for what
// is free in it.
func (u *Update) Image() io.ReaderAt {
	return &view{disk: u.disk.Disk, size: u.geo.blocks * blockSize, front: u.front.data}
}

// Before returns the image on d as it is, or was before an update began that
// has not been finished, and its size in bytes.
func Before(d io.ReaderAt) (io.ReaderAt, int64, error) {
	s, old, err := openExisting(d)
	if err != nil {
		return nil, 0, err
	}
	v := &view{disk: d, size: old.blocks * blockSize}
	if s.begun != nil {
		v.at, v.front = superOffset, append(append([]byte{}, old.raw...), make([]byte, begunSize)...)
	}
	return v, v.size, nil
}
