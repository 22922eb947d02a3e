// Package upload brings an image into Cloud Storage: as the disk.raw.tar.gz
// that Compute Engine imports, which is made while it is sent and never on a
// disk, or as it is; and the image's manifest beside it. It is [bucket.Upload]
// and [rawtar.Archive] put together.
package upload

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/rawtar"
)

// Format is what an image becomes in the bucket.
type Format string

const (
	// TarGz is what Compute Engine imports. The object's name must end in
	// .tar.gz.
	TarGz Format = "tar.gz"
	// Raw is the image as it is.
	Raw Format = "raw"
)

// ManifestSuffix is what the manifest's name ends in, after the image's.
const ManifestSuffix = ".manifest.json"

// Options say what is uploaded, and where.
type Options struct {
	Bucket, Object string
	// Format is [TarGz] if empty.
	Format Format
	// SHA256 is the image's digest, 64 characters of base 16, as its manifest
	// says: by it an object or a part in the bucket is known again.
	SHA256 string
	// Size is the image's in bytes, as its manifest says; 0 if unknown. A file
	// of another size is refused.
	Size int64
	// Manifest goes beside the image; nil if there is none.
	Manifest []byte
	// Archive says how a TarGz is made.
	Archive rawtar.Options
	// Upload says how parts are sent. ContentType is filled in.
	Upload bucket.UploadOptions
}

// Result is what is in the bucket.
type Result struct {
	// Image is the image's object.
	Image bucket.Uploaded
	// Manifest is the manifest's object; empty if there is none.
	Manifest string
	// ManifestFound says that it was there before.
	ManifestFound bool
	// DiskSize is the length in bytes of the disk in a TarGz, a whole number of
	// GiB; of a Raw, the object's.
	DiskSize int64
}

// Source is the image's URL as Compute Engine's rawDisk.source wants it.
func (r *Result) Source() string {
	return "https://storage.googleapis.com/" + r.Image.Bucket + "/" + r.Image.Name
}

// source is an image that is open.
type source interface {
	bucket.Content
	Size() int64
	Close() error
}

// Image uploads an image, a file or a block device. Run again, it does what is
// left to do: an object that is there, and the same, is found. Errors are those
// of [bucket.Client.Upload].
func Image(ctx context.Context, c *bucket.Client, image string, o Options) (result *Result, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	src, err := o.open(image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	uploaded, err := c.Upload(ctx, o.Bucket, o.Object, src, o.Upload)
	if err != nil {
		return nil, err
	}
	result = &Result{Image: *uploaded, DiskSize: src.Size()}
	if o.Manifest == nil {
		return result, nil
	}
	result.Manifest = o.Object + ManifestSuffix
	_, result.ManifestFound, err = c.Create(ctx, o.Bucket, result.Manifest, o.Manifest, "application/json")
	return result, err
}

// complete checks the options and fills in what follows from them.
func (o *Options) complete() error {
	if o.Format == "" {
		o.Format = TarGz
	}
	if len(o.SHA256) != 64 || strings.Trim(o.SHA256, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is not a SHA-256 of 64 characters of base 16", o.SHA256)
	}
	switch {
	case o.Format == Raw:
		o.Upload.ContentType = "application/octet-stream"
	case o.Format != TarGz:
		return fmt.Errorf("upload format %q is neither %s nor %s", o.Format, TarGz, Raw)
	case !strings.HasSuffix(o.Object, ".tar.gz"):
		return fmt.Errorf("object %q: Compute Engine imports only names that end in .tar.gz", o.Object)
	default:
		o.Upload.ContentType = "application/gzip"
	}
	return nil
}

// open opens the image as what it becomes.
func (o *Options) open(image string) (source, error) {
	identity := fmt.Sprintf("sha256=%s %s", o.SHA256, o.Format)
	if o.Format == Raw {
		return openRaw(image, identity, o.Size)
	}
	a, err := rawtar.Open(image, o.Archive)
	if err != nil {
		return nil, err
	}
	if err := checkSize(image, a.ImageSize(), o.Size); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &archive{Archive: a, identity: identity + " " + a.Key()}, nil
}

// checkSize compares an image's size with that in its manifest.
func checkSize(image string, size, want int64) error {
	if want != 0 && size != want {
		return fmt.Errorf("%s has %d bytes, and its manifest says %d: it was changed, or the manifest is another image's", image, size, want)
	}
	return nil
}

// archive is an archive with the identity of its image.
type archive struct {
	*rawtar.Archive
	identity string
}

// Identity implements bucket.Content.
func (a *archive) Identity() string { return a.identity }
