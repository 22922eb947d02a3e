package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
)

// Compute is what publishing needs of Compute Engine: [gce.Client]'s methods,
// with its errors.
type Compute interface {
	Image(ctx context.Context, project, name string) (*computepb.Image, error)
	Disk(ctx context.Context, project, zone, name string) (*computepb.Disk, error)
	Disks(ctx context.Context, project, filter string) (disks []*computepb.Disk, unreachable []string, err error)
	Snapshot(ctx context.Context, project, name string) (*computepb.Snapshot, error)
	Instance(ctx context.Context, project, zone, name string) (*computepb.Instance, error)
	InsertImage(ctx context.Context, project string, image *computepb.Image) error
	InsertDisk(ctx context.Context, project, zone string, disk *computepb.Disk) error
	InsertSnapshot(ctx context.Context, project string, snapshot *computepb.Snapshot) error
	DeleteImage(ctx context.Context, project, name string) error
	DeleteDisk(ctx context.Context, project, zone, name string) error
	DeleteSnapshot(ctx context.Context, project, name string) error
	AttachDisk(ctx context.Context, project, zone, instance string, disk *computepb.AttachedDisk) error
	DetachDisk(ctx context.Context, project, zone, instance, device string) error
}

// Content is what an object holds.
type Content string

// The contents of objects.
const (
	Archive  Content = "archive"  // the image as a disk.raw.tar.gz
	Raw      Content = "raw"      // the image as it is
	Manifest Content = "manifest" // the image's manifest
)

// Object is an object in the bucket.
type Object struct {
	Bytes int64
}

// Uploader puts the image's objects into the bucket. What an object is of is
// known by its metadata: one of another image under the same name is an error,
// never overwritten.
type Uploader interface {
	// Look finds an object that is there and right, and changes nothing.
	Look(ctx context.Context, content Content, name string) (object Object, found bool, err error)
	// Put sees to it that an object is there, and says whether it had to make
	// it.
	Put(ctx context.Context, content Content, name string) (object Object, created bool, err error)
}

// Release is an image that is published.
type Release struct {
	Version string // names are made from it; see [fleet.CheckVersion]
	SHA256  string // of the image, 64 hexadecimal digits
	Size    int64  // of the image, in bytes
	Suffix  string // of the image's file, as ".sqsh"; it goes into the name of a raw object
	// NoManifest is set where there is no manifest to go with the image.
	NoManifest bool
}

// Format is what is published.
type Format string

// The formats.
const (
	FormatDisk Format = "disk" // images and disks
	FormatRaw  Format = "raw"  // an object that holds the image as it is
)

// Options say what to publish, and with what.
type Options struct {
	Config   *fleet.Config
	Release  Release
	Format   Format // FormatDisk by default
	Uploader Uploader
	Compute  Compute // not needed for FormatRaw
	// FromDisk writes the image to a disk instead of importing an archive; nil
	// for importing.
	FromDisk *FromDisk
	// DryRun finds out what would be made, and makes nothing.
	DryRun bool
	// Patience is how long what may pass by itself is waited for: a zone that
	// is out of resources, or a snapshot that too many disks were made from.
	Patience gce.Retry
	// Making is how long something that is being made by someone else, perhaps
	// by an earlier run, is waited for; 2 hours by default.
	Making time.Duration
	// Clock is the system's by default.
	Clock gce.Clock
	// Random gives numbers in [0, 1).
	Random func() float64
	// Notify is told of each item when it is finished, and how many there are
	// in all; by several goroutines at a time.
	Notify func(item Item, of int)
	// Logger hears of what is waited for. The default is silent.
	Logger *slog.Logger
}

var shaRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (o *Options) check() error {
	if err := fleet.CheckVersion(o.Release.Version); err != nil {
		return err
	}
	switch {
	case !shaRule.MatchString(o.Release.SHA256):
		return fmt.Errorf("%q is not the SHA-256 of an image", o.Release.SHA256)
	case o.Release.Size <= 0:
		return errors.New("an empty image cannot be published")
	case o.Format != FormatDisk && o.Format != FormatRaw:
		return fmt.Errorf("there is no format %q", o.Format)
	case o.Format == FormatRaw && o.FromDisk != nil:
		return errors.New("the raw format needs no disk")
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Format == "" {
		o.Format = FormatDisk
	}
	if o.Clock == nil {
		o.Clock = gce.SystemClock()
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Notify == nil {
		o.Notify = func(Item, int) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Run publishes. The report is nil only where nothing was tried; with a report
// the error is that of [Report.Err].
func Run(ctx context.Context, opts Options) (*Report, error) {
	opts = opts.withDefaults()
	if err := opts.check(); err != nil {
		return nil, err
	}
	p := newPublisher(opts)
	began := p.Clock.Now()
	p.run(ctx)
	r := &Report{
		Service: opts.Config.Service, Version: opts.Release.Version, SHA256: opts.Release.SHA256,
		Seconds: p.Clock.Now().Sub(began).Seconds(), DryRun: opts.DryRun, Interrupted: ctx.Err() != nil,
	}
	for _, it := range p.items {
		r.Items = append(r.Items, *it)
	}
	return r, r.Err()
}

// publisher is one run.
type publisher struct {
	Options
	maker *Maker
	items []*Item // in the report's order; each belongs to one goroutine

	uploads []*upload
	build   *build // nil when importing
	groups  []*group
}

// upload is an object that is to be there.
type upload struct {
	content Content
	item    *Item
}

func newPublisher(opts Options) *publisher {
	p := &publisher{Options: opts, maker: &Maker{
		Compute: opts.Compute, Clock: opts.Clock, Random: opts.Random, Patience: opts.Patience, Making: opts.Making, Logger: opts.Logger,
	}}
	p.plan()
	return p
}

// add puts an item into the report.
func (p *publisher) add(it Item) *Item {
	it.State = Left
	p.items = append(p.items, &it)
	return &it
}

// plan lists everything that is to be there.
func (p *publisher) plan() {
	service, version := p.Config.Service, p.Release.Version
	object := func(c Content, name string) {
		p.uploads = append(p.uploads, &upload{c, p.add(Item{Kind: KindObject, Place: p.Config.Bucket, Name: name})})
	}
	switch {
	case p.Format == FormatRaw:
		object(Raw, fleet.RawName(service, version, p.Release.Suffix))
	case p.FromDisk == nil:
		object(Archive, fleet.ObjectName(service, version))
	}
	if !p.Release.NoManifest {
		object(Manifest, fleet.ManifestName(service, version))
	}
	if p.Format == FormatRaw {
		return
	}
	if p.FromDisk != nil {
		p.planBuild()
	}
	p.planGroups()
}

// run does everything, in the order in which one needs the other.
func (p *publisher) run(ctx context.Context) {
	if err := p.runUploads(ctx); err != nil {
		p.leave(p.items, err)
		return
	}
	if p.Format == FormatRaw {
		return
	}
	if p.build != nil {
		if err := p.runBuild(ctx); err != nil {
			p.leave(p.items, err)
			return
		}
	}
	var all sync.WaitGroup
	for project, found := range p.existing(ctx) {
		pace := make(slots, p.Config.Publish.Parallel)
		for _, g := range p.groups {
			if g.project == project {
				all.Go(func() { p.runGroup(ctx, g, found, pace) })
			}
		}
	}
	all.Wait()
}

// leave says of items that were not tried why.
func (p *publisher) leave(items []*Item, why error) {
	for _, it := range items {
		if it.State == Left && it.Error == "" {
			it.Error = why.Error()
		}
	}
}

// timed does the work on an item, and notes what became of it.
func (p *publisher) timed(ctx context.Context, it *Item, work func() (State, error)) error {
	began := p.Clock.Now()
	state, err := work()
	it.Seconds = p.Clock.Now().Sub(began).Seconds()
	switch {
	case err == nil:
		it.State = state
	case ctx.Err() != nil:
		it.State, it.Error = Left, "interrupted: "+err.Error()
	default:
		it.State, it.Error = Failed, err.Error()
	}
	p.Notify(*it, len(p.items))
	return err
}

// runUploads sees to the objects, one after the other.
func (p *publisher) runUploads(ctx context.Context) error {
	for _, u := range p.uploads {
		err := p.timed(ctx, u.item, func() (State, error) { return p.put(ctx, u) })
		if err != nil {
			return fmt.Errorf("the upload of %s failed", u.item.Name)
		}
	}
	return nil
}

func (p *publisher) put(ctx context.Context, u *upload) (State, error) {
	if p.DryRun {
		object, found, err := p.Uploader.Look(ctx, u.content, u.item.Name)
		u.item.Bytes = object.Bytes
		return stateOf(found, Found, Planned), err
	}
	object, created, err := p.Uploader.Put(ctx, u.content, u.item.Name)
	u.item.Bytes = object.Bytes
	return stateOf(created, Created, Found), err
}

func stateOf(yes bool, then, otherwise State) State {
	if yes {
		return then
	}
	return otherwise
}

// slots bounds how much is done at a time.
type slots chan struct{}

func (s slots) take(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) give() { <-s }
