package bucket

import (
	"context"
	"errors"
	"hash/crc32"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Attrs describe an object.
type Attrs struct {
	Bucket, Name string
	// Generation tells this state of the object from others.
	Generation int64
	// Size is in bytes.
	Size    int64
	CRC32C  uint32
	Created time.Time
	// Metadata is what its writer noted.
	Metadata map[string]string
}

func attrsOf(a *storage.ObjectAttrs) *Attrs {
	return &Attrs{
		Bucket: a.Bucket, Name: a.Name, Generation: a.Generation, Size: a.Size,
		CRC32C: a.CRC32C, Created: a.Created, Metadata: a.Metadata,
	}
}

// Attrs looks an object up. Errors wrap [ErrNotFound] if there is none.
func (c *Client) Attrs(ctx context.Context, bucket, object string) (*Attrs, error) {
	var attrs *Attrs
	err := c.retry(ctx, "attributes", 0, func(ctx context.Context) error {
		a, err := c.object(bucket, object).Attrs(ctx)
		if err == nil {
			attrs = attrsOf(a)
		}
		return err
	})
	if err != nil {
		return nil, named(bucket, object, err)
	}
	return attrs, nil
}

// page is how many objects are asked for at once.
const page = 1000

// List returns the objects whose names begin with prefix, sorted by name.
func (c *Client) List(ctx context.Context, bucket, prefix string) ([]Attrs, error) {
	var list []Attrs
	for token := ""; ; {
		var objects []*storage.ObjectAttrs
		var next string
		err := c.retry(ctx, "list", 0, func(ctx context.Context) (err error) {
			objects = nil
			query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
			next, err = iterator.NewPager(c.gcs.Bucket(bucket).Objects(ctx, query), page, token).NextPage(&objects)
			return err
		})
		if err != nil {
			return nil, named(bucket, prefix, err)
		}
		for _, o := range objects {
			list = append(list, *attrsOf(o))
		}
		if token = next; token == "" {
			return list, nil
		}
	}
}

// Delete deletes that generation of an object, for good; 0 is whichever there
// is. That it is not there, or no longer, is no error.
func (c *Client) Delete(ctx context.Context, bucket, object string, generation int64) error {
	handle := c.object(bucket, object)
	if generation != 0 {
		handle = handle.Generation(generation)
	}
	err := c.retry(ctx, "delete", 0, handle.Delete)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return named(bucket, object, err)
	}
	return nil
}
