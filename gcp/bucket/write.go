package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"cloud.google.com/go/storage"
	"github.com/google/uuid"
)

const (
	// writesKey is the metadata in which a writer knows its own write again: the
	// tokens of the last writes, newest first.
	writesKey = "bigdisk-writes"
	// writesKept is how many tokens there are. Who asks only after so many more
	// writes whether its own was among them hears that it was not.
	writesKept = 16
)

// Superseded stands for the generation of a write that was overwritten before
// its writer heard of it.
const Superseded = -1

// WriteIf replaces that generation of an object with data, or makes the object
// if generation is 0, and returns the new generation. Errors wrap
// [ErrPrecondition] if the object is in another generation, and nothing was
// written. A write whose reply was lost is found by reading back. If another
// WriteIf came after it by then, it did happen, but its generation is not known
// any more: [Superseded] is returned for it, which no object is ever in.
func (c *Client) WriteIf(ctx context.Context, bucket, object string, data []byte, generation int64) (int64, error) {
	token := uuid.NewString()
	writes := token
	if generation != 0 {
		there, err := c.Attrs(ctx, bucket, object)
		if err == nil && there.Generation != generation || errors.Is(err, ErrNotFound) {
			err = named(bucket, object, ErrPrecondition)
		}
		if err != nil {
			return 0, err
		}
		writes = prepend(token, there.Metadata[writesKey])
	}
	attrs := storage.ObjectAttrs{Metadata: map[string]string{writesKey: writes}, ContentType: "application/json", CacheControl: "no-store"}
	written, err := c.put(ctx, bucket, object, data, generation, attrs)
	if errors.Is(err, ErrPrecondition) {
		return c.readBack(ctx, bucket, object, token)
	}
	if err != nil {
		return 0, named(bucket, object, err)
	}
	return written.Generation, nil
}

// readBack looks whether a write whose attempt failed is there after all.
func (c *Client) readBack(ctx context.Context, bucket, object, token string) (int64, error) {
	there, err := c.Attrs(ctx, bucket, object)
	if errors.Is(err, ErrNotFound) {
		return 0, named(bucket, object, ErrPrecondition)
	}
	if err != nil {
		return 0, err
	}
	switch slices.Index(strings.Fields(there.Metadata[writesKey]), token) {
	case 0:
		return there.Generation, nil
	case -1:
		return 0, named(bucket, object, ErrPrecondition)
	default:
		return Superseded, nil
	}
}

// prepend puts a token before those of earlier writes.
func prepend(token, earlier string) string {
	tokens := append([]string{token}, strings.Fields(earlier)...)
	return strings.Join(tokens[:min(len(tokens), writesKept)], " ")
}

// Create makes an object, or finds it there with the same bytes. Errors wrap
// [ErrExists] if it is there with others.
func (c *Client) Create(ctx context.Context, bucket, object string, data []byte, contentType string) (attrs *Attrs, found bool, err error) {
	attrs, err = c.put(ctx, bucket, object, data, 0, storage.ObjectAttrs{ContentType: contentType})
	if !errors.Is(err, ErrPrecondition) {
		if err != nil {
			err = named(bucket, object, err)
		}
		return attrs, false, err
	}
	if attrs, err = c.Attrs(ctx, bucket, object); err != nil {
		return nil, false, err
	}
	if attrs.Size != int64(len(data)) || attrs.CRC32C != crc32.Checksum(data, castagnoli) {
		return nil, false, named(bucket, object, fmt.Errorf("%w: %d bytes, not %d: delete it, or choose another name", ErrExists, attrs.Size, len(data)))
	}
	return attrs, true, nil
}

// put sends an object in one request, with its checksum, and compares that of
// what arrived. A mismatch deletes what arrived.
func (c *Client) put(ctx context.Context, bucket, object string, data []byte, generation int64, attrs storage.ObjectAttrs) (*Attrs, error) {
	sum := crc32.Checksum(data, castagnoli)
	var written *storage.ObjectAttrs
	err := c.retry(ctx, "write "+object, int64(len(data)), func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w := c.object(bucket, object).If(condition(generation)).NewWriter(ctx)
		w.ObjectAttrs = withName(attrs, object)
		w.ChunkSize, w.CRC32C, w.SendCRC32C = 0, sum, true
		if _, err := bytes.NewReader(data).WriteTo(w); err != nil {
			cancel()
			// What the request failed with says more than the write.
			if closed := w.Close(); closed != nil && !errors.Is(closed, context.Canceled) {
				err = closed
			}
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		written = w.Attrs()
		return nil
	})
	if errors.Is(err, ErrNotFound) { // a write needs nothing else to be there
		err = fmt.Errorf("bucket: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if written.CRC32C != sum || written.Size != int64(len(data)) {
		err := fmt.Errorf("%w: sent %d bytes with CRC32C %08x, %d with %08x arrived", ErrChecksum, len(data), sum, written.Size, written.CRC32C)
		return nil, errors.Join(err, c.Delete(ctx, bucket, object, written.Generation))
	}
	return attrsOf(written), nil
}

func withName(attrs storage.ObjectAttrs, name string) storage.ObjectAttrs {
	attrs.Name = name
	return attrs
}

// condition is what holds of an object in that generation, 0 for none.
func condition(generation int64) storage.Conditions {
	if generation == 0 {
		return storage.Conditions{DoesNotExist: true}
	}
	return storage.Conditions{GenerationMatch: generation}
}
