// Package objects puts an image's objects into a bucket for
// [bigdisk/gcp/publish]: the archive that Compute Engine imports, the image as
// it is, and the manifest.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/rawtar"
	"bigdisk/gcp/upload"
)

// shaKey is noted with every object: of which image it is.
const shaKey = "bigdisk-image-sha256"

// partsSuffix follows an object's name in those of its parts, as
// [bucket.Client.Upload] names them.
const partsSuffix = ".parts/"

// Uploader implements [publish.Uploader] with Cloud Storage.
type Uploader struct {
	Client *bucket.Client
	Bucket string
	// Image and Manifest are files; a manifest is needed only where it is
	// asked for.
	Image, Manifest string
	SHA256          string // of the image
	Size            int64  // of the image, in bytes
	// Archive says how archives are made.
	Archive rawtar.Options
	// Parallel is how many parts are sent at a time; see [bucket.UploadOptions].
	Parallel int
	// Progress is told of the image's bytes that are in the bucket.
	Progress func(n int64)
}

// Look implements [publish.Uploader].
func (u *Uploader) Look(ctx context.Context, _ publish.Content, name string) (publish.Object, bool, error) {
	have, err := u.Client.Attrs(ctx, u.Bucket, name)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		return publish.Object{}, false, nil
	case err != nil:
		return publish.Object{}, false, err
	case have.Metadata[shaKey] != u.SHA256:
		return publish.Object{}, false, fmt.Errorf("%s: %w: it is of the image %q, not %s: delete it, or choose another version",
			bucket.URL(u.Bucket, name), bucket.ErrExists, have.Metadata[shaKey], u.SHA256)
	}
	return publish.Object{Bytes: have.Size}, true, nil
}

// Put implements [publish.Uploader].
func (u *Uploader) Put(ctx context.Context, content publish.Content, name string) (publish.Object, bool, error) {
	if have, found, err := u.Look(ctx, content, name); found || err != nil {
		return have, false, errors.Join(err, u.clean(ctx, name, found))
	}
	if content == publish.Manifest {
		return u.putManifest(ctx, name)
	}
	format := upload.TarGz
	if content == publish.Raw {
		format = upload.Raw
	}
	r, err := upload.Image(ctx, u.Client, u.Image, upload.Options{
		Bucket: u.Bucket, Object: name, Format: format, SHA256: u.SHA256, Size: u.Size, Archive: u.Archive,
		Upload: u.options("", u.Progress),
	})
	if err != nil {
		return publish.Object{}, false, err
	}
	return publish.Object{Bytes: r.Image.Size}, !r.Image.Found, nil
}

// clean deletes the parts of an object that is whole: an upload that was killed
// at its very end leaves them.
func (u *Uploader) clean(ctx context.Context, name string, whole bool) error {
	if !whole {
		return nil
	}
	parts, err := u.Client.List(ctx, u.Bucket, name+partsSuffix)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := u.Client.Delete(ctx, u.Bucket, part.Name, part.Generation); err != nil {
			return err
		}
	}
	return nil
}

func (u *Uploader) options(contentType string, progress func(int64)) bucket.UploadOptions {
	return bucket.UploadOptions{
		ContentType: contentType, Metadata: map[string]string{shaKey: u.SHA256}, Parallel: u.Parallel, Progress: progress,
	}
}

// putManifest sends the manifest, which may be long, in parts as well.
func (u *Uploader) putManifest(ctx context.Context, name string) (publish.Object, bool, error) {
	f, err := os.Open(u.Manifest)
	if err != nil {
		return publish.Object{}, false, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return publish.Object{}, false, fmt.Errorf("%s: %w", u.Manifest, err)
	}
	r, err := u.Client.Upload(ctx, u.Bucket, name, upload.File(f, size, "manifest of sha256="+u.SHA256), u.options("application/json", nil))
	if err != nil {
		return publish.Object{}, false, err
	}
	return publish.Object{Bytes: r.Size}, !r.Found, nil
}
