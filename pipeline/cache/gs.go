package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"bigdisk/bundle/store/tempfile"
	"bigdisk/gcp/bucket"
	"bigdisk/gcp/upload"
)

// Bucket is a cache in a bucket of Cloud Storage. Files are fetched whole, into
// a scratch directory, before they are used.
type Bucket struct {
	client         *bucket.Client
	bucket, prefix string
	scratch        string
}

// OpenBucket opens the cache at gs://BUCKET/PREFIX. The client stays the
// caller's.
func OpenBucket(client *bucket.Client, url, scratchDir string) (*Bucket, error) {
	name, prefix, err := bucket.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Bucket{client: client, bucket: name, prefix: prefix, scratch: scratchDir}, nil
}

// String returns the URL.
func (b *Bucket) String() string { return bucket.URL(b.bucket, b.prefix) }

func (b *Bucket) name(key string) string { return path.Join(b.prefix, key[:2], key+suffix) }

// Get fetches an object; see [Cache].
func (b *Bucket) Get(ctx context.Context, key string) (*os.File, error) {
	r, _, err := b.client.Open(ctx, b.bucket, b.name(key))
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	defer r.Close()
	f, err := b.New()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, fmt.Errorf("cache: %w", err)
	}
	return f, nil
}

// Has looks for an object; see [Cache].
func (b *Bucket) Has(ctx context.Context, key string) (bool, error) {
	_, err := b.client.Attrs(ctx, b.bucket, b.name(key))
	if errors.Is(err, bucket.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cache: %w", err)
	}
	return true, nil
}

// New makes a file in the scratch directory; see [Cache].
func (b *Bucket) New() (*os.File, error) {
	f, err := tempfile.New(b.scratch)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return f, nil
}

// Put makes an object of a file; see [Cache]. One that is there already stays.
func (b *Bucket) Put(ctx context.Context, key string, f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	_, err = b.client.Upload(ctx, b.bucket, b.name(key), upload.File(f, size, key), bucket.UploadOptions{Parallel: 2})
	if err != nil && !errors.Is(err, bucket.ErrExists) {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// Drop deletes an object; see [Cache].
func (b *Bucket) Drop(ctx context.Context, key string) error {
	a, err := b.client.Attrs(ctx, b.bucket, b.name(key))
	if err == nil {
		err = b.client.Delete(ctx, b.bucket, b.name(key), a.Generation)
	}
	if err != nil && !errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// Trim does nothing: a bucket is bounded by its lifecycle rules.
func (b *Bucket) Trim(context.Context) error { return nil }
