package pipeline

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"bigdisk/bundle/store/tempfile"
	"bigdisk/gcp/bucket"
	"bigdisk/image"
)

// fetchChunk is how many bytes of a remote image are fetched at a time.
const fetchChunk = 4 << 20

// fetched reads a remote image through a file in which every chunk is kept that
// was asked for: what is checked first and copied later is fetched once. The
// file has no name, and holes where nothing was asked for.
type fetched struct {
	remote io.ReaderAt
	size   int64
	local  *os.File
	chunks []chunkState
}

type chunkState struct {
	mu   sync.Mutex
	done bool
}

func newFetched(remote io.ReaderAt, size int64, scratchDir string) (*fetched, error) {
	f, err := tempfile.New(scratchDir)
	if err != nil {
		return nil, err
	}
	return &fetched{remote: remote, size: size, local: f, chunks: make([]chunkState, (size+fetchChunk-1)/fetchChunk)}, nil
}

// ReadAt fetches what of the range is not there yet; chunks that others are
// fetching are waited for.
func (f *fetched) ReadAt(p []byte, at int64) (int, error) {
	end := min(at+int64(len(p)), f.size)
	for i := at / fetchChunk; i*fetchChunk < end; i++ {
		if err := f.fetch(i); err != nil {
			return 0, err
		}
	}
	n, err := f.local.ReadAt(p[:max(0, end-at)], at)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *fetched) fetch(i int64) error {
	c := &f.chunks[i]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return nil
	}
	p := make([]byte, min(fetchChunk, f.size-i*fetchChunk))
	if err := image.ReadFull(f.remote, p, i*fetchChunk); err != nil {
		return err
	}
	if _, err := f.local.WriteAt(p, i*fetchChunk); err != nil {
		return err
	}
	c.done = true
	return nil
}

// Close gives up what was fetched.
func (f *fetched) Close() error { return f.local.Close() }

// closers are closed in order.
type closers []io.Closer

// Close closes all of them.
func (c closers) Close() error {
	var first error
	for _, one := range c {
		if err := one.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// openRemoteBase opens an image in a bucket, and its manifest.
func (b *builder) openRemoteBase(ctx context.Context) (disk *fetched, m *image.Manifest, closer io.Closer, err error) {
	var open closers
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	client, err := bucket.New(ctx, bucket.Options{Logger: b.opts.Logger})
	if err != nil {
		return nil, nil, nil, err
	}
	open = append(open, client)
	name, object, err := bucket.ParseURL(b.opts.Base)
	if err != nil {
		return nil, nil, nil, err
	}
	r, _, err := client.Open(ctx, name, image.ManifestName(object))
	if err != nil {
		return nil, nil, nil, err
	}
	defer r.Close()
	if m, err = image.DecodeManifest(r); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", image.ManifestName(b.opts.Base), err)
	}
	o, err := client.OpenReaderAt(ctx, name, object)
	if err != nil {
		return nil, nil, nil, err
	}
	if disk, err = newFetched(o, o.Size, b.opts.ScratchDir); err != nil {
		return nil, nil, nil, err
	}
	return disk, m, append(closers{disk}, open...), nil
}
