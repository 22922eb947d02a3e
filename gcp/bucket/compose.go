package bucket

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
)

// composeRate is how much faster than it is sent an object is composed, at
// least.
const composeRate = 256

// compose makes an object, which must not exist, of pieces in the generations
// that were checked. Errors wrap errPartsGone if one is not there any more.
func (c *Client) compose(ctx context.Context, bucket, object string, pieces []piece, contentType string, metadata map[string]string) (*Attrs, error) {
	sources := make([]*storage.ObjectHandle, len(pieces))
	for i, p := range pieces {
		sources[i] = c.object(bucket, p.name).Generation(p.generation)
	}
	var attrs *storage.ObjectAttrs
	var size int64
	for _, p := range pieces {
		size += p.size / composeRate
	}
	err := c.retry(ctx, "compose "+object, size, func(ctx context.Context) (err error) {
		composer := c.object(bucket, object).If(storage.Conditions{DoesNotExist: true}).ComposerFrom(sources...)
		composer.ContentType, composer.Metadata = contentType, metadata
		attrs, err = composer.Run(ctx)
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errPartsGone, err)
	case err != nil:
		return nil, fmt.Errorf("compose %s: %w", object, err)
	}
	return attrsOf(attrs), nil
}

// cleanUp deletes all parts for the object: it is there, so nobody needs them.
func (u *upload) cleanUp(ctx context.Context) error {
	list, err := u.client.List(ctx, u.bucket, PartsPrefix(u.object))
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(u.opts.Parallel)
	for _, a := range list {
		work.Go(func() error { return u.client.Delete(ctx, u.bucket, a.Name, a.Generation) })
	}
	return work.Wait()
}

// reported knows which parts were reported as done, so that none is twice when
// an upload has to look again.
type reported struct {
	mu    sync.Mutex
	parts []bool
}

func (r *reported) part(u *upload, i int) {
	r.mu.Lock()
	again := r.parts[i]
	r.parts[i] = true
	r.mu.Unlock()
	if !again {
		u.opts.Progress(u.content.PartSize(i))
	}
}

func (r *reported) all(u *upload) {
	for i := range r.parts {
		r.part(u, i)
	}
}
