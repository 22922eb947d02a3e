package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/publish/blockcopy"
	"bigdisk/pipeline/progress"
)

// deviceWait is how long an attached disk may take to appear.
const deviceWait = 2 * time.Minute

// copyJobs is how many pieces are compared at a time: enough for the disk's
// queue, at 8 MiB each.
const copyJobs = 8

// fromDisk says how the image is written to a disk of this machine.
func (o *publishOptions) fromDisk(ctx context.Context, config *fleet.Config, name string, release publish.Release, stages *publishStages) (*publish.FromDisk, error) {
	at := config.Builder
	if o.Builder != "" {
		parts := strings.Split(o.Builder, "/")
		if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
			return nil, usageError{fmt.Errorf("--builder: %q is not PROJECT/ZONE/NAME", o.Builder), "see bigdisk publish --help"}
		}
		at.Project, at.Zone, at.Instance = parts[0], parts[1], parts[2]
	}
	at, err := publish.Self(ctx, at)
	if err != nil {
		return nil, hintedError{err, "run it on the builder instance, or give --builder PROJECT/ZONE/NAME"}
	}
	return &publish.FromDisk{Builder: at, Base: o.Base, Write: func(ctx context.Context, device string) error {
		return writeDevice(ctx, filepath.Join(o.DeviceDir, "google-"+device), name, release.Size, stages)
	}}, nil
}

// writeDevice makes the device equal to the image.
func writeDevice(ctx context.Context, device, name string, size int64, stages *publishStages) (err error) {
	src, err := os.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := blockcopy.Open(ctx, device, deviceWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	stage := stages.tracker.Stage("write", progress.Bytes, size)
	defer stage.Finish()
	_, err = blockcopy.Copy(ctx, dst, src, size, copyJobs, stage.Add)
	return err
}

// publishStages show how far publishing has come. A stage appears when there is
// something to say of it.
type publishStages struct {
	tracker *progress.Tracker
	size    int64 // of the image, in bytes

	mu     sync.Mutex
	upload *progress.Stage
	items  *progress.Stage
}

// run publishes. The stages have ended if that went well.
func (s *publishStages) run(ctx context.Context, p publish.Options) (*publish.Report, error) {
	r, err := publish.Run(ctx, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stage := range []*progress.Stage{s.upload, s.items} {
		if err == nil && stage != nil {
			stage.Finish()
		}
	}
	return r, err
}

// sent counts bytes of the image that are in the bucket.
func (s *publishStages) sent(n int64) {
	s.mu.Lock()
	if s.upload == nil {
		s.upload = s.tracker.Stage("upload", progress.Bytes, s.size)
	}
	s.mu.Unlock()
	s.upload.Add(n)
}

// item counts objects, images and disks.
func (s *publishStages) item(it publish.Item, of int) {
	s.mu.Lock()
	if s.items == nil {
		s.items = s.tracker.Stage("publish", progress.Steps, int64(of))
	}
	upload := s.upload
	s.mu.Unlock()
	if it.Kind == publish.KindObject && upload != nil {
		upload.Finish()
	}
	s.items.Add(1)
}
