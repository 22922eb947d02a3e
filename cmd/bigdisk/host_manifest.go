package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/image"
	"bigdisk/image/verify"
	"bigdisk/pipeline/host"
)

// How long a bucket may take to say what there is, and to give it: a host has to
// get on without.
const (
	bucketAsk   = 20 * time.Second
	bucketFetch = 2 * time.Minute
)

// findManifest reads the manifest that a disk should have.
func (o *hostMountOptions) findManifest(ctx context.Context, d host.Device) (*image.Manifest, error) {
	name := strings.NewReplacer("{service}", o.Service, "{version}", d.Version).Replace(o.Manifest)
	inBucket, ok := strings.CutPrefix(name, "gs://")
	switch {
	case ok:
		return o.fromBucket(ctx, inBucket, d)
	case name != "":
		return image.ReadManifest(name)
	}
	if fi, err := os.Stat(d.Path); err != nil || fi.Mode().Type() != 0 {
		return nil, nil
	}
	m, err := verify.LoadManifest(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return m, err
}

// fromBucket reads a manifest from BUCKET, where publishing has put it, or from
// BUCKET/OBJECT. It is fetched once, and read here while the bucket has the same,
// or cannot be reached.
func (o *hostMountOptions) fromBucket(ctx context.Context, name string, d host.Device) (*image.Manifest, error) {
	in, object, _ := strings.Cut(name, "/")
	if object == "" {
		object = fleet.ManifestName(o.Service, d.Version)
	}
	name = "gs://" + path.Join(in, object)
	copies, err := host.NewManifests(o.options())
	if err != nil {
		return nil, err
	}
	client, err := bucket.New(ctx, bucket.Options{})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	attrs, err := withTimeout(ctx, bucketAsk, func(ctx context.Context) (*bucket.Attrs, error) { return client.Attrs(ctx, in, object) })
	if err != nil && !errors.Is(err, bucket.ErrNotFound) && ctx.Err() == nil {
		if m := copies.Any(name); m != nil {
			newLogger(os.Stderr).Warn(fmt.Sprintf("%v: taking the manifest that it had before", err))
			return m, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if m := copies.Read(name, attrs.Generation); m != nil {
		return m, nil
	}
	return withTimeout(ctx, bucketFetch, func(ctx context.Context) (*image.Manifest, error) {
		r, attrs, err := client.Open(ctx, in, object)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return copies.Write(name, attrs.Generation, r)
	})
}

// withTimeout gives do a bounded time, and an error that says so.
func withTimeout[T any](ctx context.Context, most time.Duration, do func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	v, err := do(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer in %v: %w", most, err)
	}
	return v, err
}
