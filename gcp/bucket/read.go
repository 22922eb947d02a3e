package bucket

import (
	"bufio"
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"cloud.google.com/go/storage"
)

// MaxRead is the size in bytes of the largest object that [Client.Read] reads.
const MaxRead = 64 << 20

// Read returns an object's bytes and their generation. Errors wrap
// [ErrNotFound] if there is no such object.
func (c *Client) Read(ctx context.Context, bucket, object string) (data []byte, generation int64, err error) {
	err = c.retry(ctx, "read "+object, MaxRead, func(ctx context.Context) error {
		r, err := c.object(bucket, object).NewReader(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		if r.Attrs.Size > MaxRead {
			return fmt.Errorf("%d bytes are more than the %d that are read at once", r.Attrs.Size, MaxRead)
		}
		generation = r.Attrs.Generation
		data, err = io.ReadAll(io.LimitReader(r, MaxRead+1))
		if err == nil && int64(len(data)) != r.Attrs.Size {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	if err != nil {
		return nil, 0, named(bucket, object, err)
	}
	return data, generation, nil
}

// Object reads ranges of an object in the generation that it was opened in. It
// is safe for concurrent use.
type Object struct {
	Attrs
	ctx    context.Context // for ReadAt, which has none
	client *Client
	handle *storage.ObjectHandle
}

var _ io.ReaderAt = (*Object)(nil)

// OpenReaderAt opens an object for reading at any place, for as long as ctx
// lasts. Errors wrap [ErrNotFound] if there is no such object, those of ReadAt
// too if it was replaced.
func (c *Client) OpenReaderAt(ctx context.Context, bucket, object string) (*Object, error) {
	attrs, err := c.Attrs(ctx, bucket, object)
	if err != nil {
		return nil, err
	}
	return &Object{Attrs: *attrs, ctx: ctx, client: c, handle: c.object(bucket, object).Generation(attrs.Generation)}, nil
}

// ReadAt implements io.ReaderAt with one request, tried again like any other.
func (o *Object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, named(o.Bucket, o.Name, fmt.Errorf("read at %d", off))
	}
	n := max(0, min(int64(len(p)), o.Size-off))
	if n > 0 {
		if err := o.client.retry(o.ctx, "read "+o.Name, n, func(ctx context.Context) error { return o.fill(ctx, p[:n], off) }); err != nil {
			return 0, named(o.Bucket, o.Name, err)
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (o *Object) fill(ctx context.Context, p []byte, off int64) error {
	r, err := o.handle.NewRangeReader(ctx, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readAhead is how many bytes [Client.Open] asks for at once.
const readAhead = 8 << 20

// Open opens an object for reading from its start to its end, where its
// checksum is compared: errors then wrap [ErrChecksum]. It is read in pieces,
// each tried again like any other call. Errors wrap [ErrNotFound] if there is no
// such object.
func (c *Client) Open(ctx context.Context, bucket, object string) (io.ReadCloser, *Attrs, error) {
	ctx, cancel := context.WithCancel(ctx)
	o, err := c.OpenReaderAt(ctx, bucket, object)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	ahead := bufio.NewReaderSize(io.NewSectionReader(o, 0, o.Size), readAhead)
	return &stream{object: o, ahead: ahead, cancel: cancel}, &o.Attrs, nil
}

// stream reads an object in order.
type stream struct {
	object *Object
	ahead  *bufio.Reader
	sum    uint32
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ahead.Read(p)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	if err == io.EOF && s.sum != s.object.CRC32C {
		err = named(s.object.Bucket, s.object.Name, fmt.Errorf("%w: CRC32C %08x, not %08x", ErrChecksum, s.sum, s.object.CRC32C))
	}
	return n, err
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.cancel()
	return nil
}
