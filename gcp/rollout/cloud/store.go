package cloud

import (
	"context"
	"errors"
	"fmt"
	"path"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/lease"
)

// Objects is what is needed of the Cloud Storage client.
type Objects interface {
	Read(ctx context.Context, bucket, object string) (data []byte, generation int64, err error)
	WriteIf(ctx context.Context, bucket, object string, data []byte, generation int64) (int64, error)
}

// Store is the object with a service's document.
type Store struct {
	objects        Objects
	bucket, object string
}

// NewStore finds the object in the configuration.
func NewStore(cfg *fleet.Config, objects Objects) *Store {
	in, prefix := cfg.StateLocation()
	return &Store{objects, in, path.Join(prefix, cfg.Service+".rollout.json")}
}

// URL names the object.
func (s *Store) URL() string { return "gs://" + s.bucket + "/" + s.object }

// Read implements [lease.Store].
func (s *Store) Read(ctx context.Context) ([]byte, int64, error) {
	data, generation, err := s.objects.Read(ctx, s.bucket, s.object)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, 0, nil
	}
	return data, generation, err
}

// Write implements [lease.Store].
func (s *Store) Write(ctx context.Context, data []byte, generation int64) (int64, error) {
	written, err := s.objects.WriteIf(ctx, s.bucket, s.object, data, generation)
	if errors.Is(err, bucket.ErrPrecondition) || err == nil && written == bucket.Superseded {
		return 0, fmt.Errorf("%s: %w", s.URL(), lease.ErrConflict)
	}
	return written, err
}
