package gce

import (
	"context"
	"errors"
	"slices"

	compute "cloud.google.com/go/compute/apiv1"
	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/api/iterator"
)

// Images lists a project's images that match a filter of the API's; all, if it
// is empty.
func (c *Client) Images(ctx context.Context, project, filter string) ([]*computepb.Image, error) {
	l, err := collect(ctx, c, what{"list", global(project, "images", "")}, project, func(ctx context.Context) pages[*computepb.Image] {
		it := c.images.List(ctx, &computepb.ListImagesRequest{Project: project, Filter: optional(filter)}, single(callTimeout)...)
		return pages[*computepb.Image]{it.Next, func() any { return it.Response }}
	})
	return l.items, err
}

// Snapshots lists a project's snapshots.
func (c *Client) Snapshots(ctx context.Context, project, filter string) ([]*computepb.Snapshot, error) {
	l, err := collect(ctx, c, what{"list", global(project, "snapshots", "")}, project, func(ctx context.Context) pages[*computepb.Snapshot] {
		it := c.snapshots.List(ctx, &computepb.ListSnapshotsRequest{Project: project, Filter: optional(filter)}, single(callTimeout)...)
		return pages[*computepb.Snapshot]{it.Next, func() any { return it.Response }}
	})
	return l.items, err
}

// Disks lists the disks in all of a project's zones. Of the zones that it also
// returns nothing is known: they could not be reached.
func (c *Client) Disks(ctx context.Context, project, filter string) ([]*computepb.Disk, []string, error) {
	l, err := collect(ctx, c, what{"list", "projects/" + project + "/aggregated/disks"}, project, func(ctx context.Context) pages[compute.DisksScopedListPair] {
		it := c.disks.AggregatedList(ctx, &computepb.AggregatedListDisksRequest{Project: project, Filter: optional(filter)}, single(callTimeout)...)
		return pages[compute.DisksScopedListPair]{it.Next, func() any { return it.Response }}
	})
	var items []*computepb.Disk
	for _, s := range l.items {
		items = append(items, s.Value.GetDisks()...)
		l.scope(s.Key, s.Value.GetWarning().GetCode())
	}
	return items, l.unreachable, err
}

// Instances lists the instances in all of a project's zones. Of the zones that
// it also returns nothing is known: they could not be reached.
func (c *Client) Instances(ctx context.Context, project, filter string) ([]*computepb.Instance, []string, error) {
	l, err := collect(ctx, c, what{"list", "projects/" + project + "/aggregated/instances"}, project, func(ctx context.Context) pages[compute.InstancesScopedListPair] {
		it := c.instances.AggregatedList(ctx, &computepb.AggregatedListInstancesRequest{Project: project, Filter: optional(filter)}, single(callTimeout)...)
		return pages[compute.InstancesScopedListPair]{it.Next, func() any { return it.Response }}
	})
	var items []*computepb.Instance
	for _, s := range l.items {
		items = append(items, s.Value.GetInstances()...)
		l.scope(s.Key, s.Value.GetWarning().GetCode())
	}
	return items, l.unreachable, err
}

// Templates lists a project's instance templates, global and regional. Of the
// regions that it also returns nothing is known: they could not be reached.
func (c *Client) Templates(ctx context.Context, project, filter string) ([]*computepb.InstanceTemplate, []string, error) {
	l, err := collect(ctx, c, what{"list", "projects/" + project + "/aggregated/instanceTemplates"}, project, func(ctx context.Context) pages[compute.InstanceTemplatesScopedListPair] {
		it := c.templates.AggregatedList(ctx, &computepb.AggregatedListInstanceTemplatesRequest{Project: project, Filter: optional(filter)}, single(callTimeout)...)
		return pages[compute.InstanceTemplatesScopedListPair]{it.Next, func() any { return it.Response }}
	})
	var items []*computepb.InstanceTemplate
	for _, s := range l.items {
		items = append(items, s.Value.GetInstanceTemplates()...)
		l.scope(s.Key, s.Value.GetWarning().GetCode())
	}
	return items, l.unreachable, err
}

func optional(filter string) *string {
	if filter == "" {
		return nil
	}
	return &filter
}

// pages is an iterator of the API's client: its next item, and the page that
// the item came with.
type pages[T any] struct {
	next func() (T, error)
	page func() any
}

// listing is a whole list.
type listing[T any] struct {
	items       []T
	unreachable []string // zones or regions
}

// errPartial is of a list that leaves things out without saying which.
var errPartial = errors.New("the list is not complete, and does not say what it lacks")

// collect reads a whole list. A page that cannot be read begins the list anew:
// a part of a list would pass for all of it.
func collect[T any](ctx context.Context, c *Client, w what, project string, begin func(context.Context) pages[T]) (listing[T], error) {
	var l listing[T]
	err := c.read(ctx, w, project, func(ctx context.Context) error {
		l = listing[T]{}
		return l.read(begin(ctx))
	})
	if err != nil {
		return listing[T]{}, err
	}
	return l, nil
}

func (l *listing[T]) read(p pages[T]) error {
	for {
		item, err := p.next()
		if err != nil && !errors.Is(err, iterator.Done) {
			return err
		}
		if err := l.look(p.page()); err != nil {
			return err
		}
		if err != nil {
			return nil
		}
		l.items = append(l.items, item)
	}
}

// look notes what a page says it lacks.
func (l *listing[T]) look(page any) error {
	if p, ok := page.(interface{ GetUnreachables() []string }); ok {
		for _, scope := range p.GetUnreachables() {
			l.scope(scope, codeUnreachable)
		}
	}
	p, ok := page.(interface{ GetWarning() *computepb.Warning })
	if ok && p.GetWarning().GetCode() == codeUnreachable && len(l.unreachable) == 0 {
		return &unavailableError{errPartial}
	}
	return nil
}

// unavailableError is worth another try.
type unavailableError struct{ error }

const codeUnreachable = "UNREACHABLE"

// scope takes the warning of a part of an aggregated list, "zones/Z". A part
// without items is empty only if that is what the warning says.
func (l *listing[T]) scope(scope, warning string) {
	if name := Base(scope); warning == codeUnreachable && !slices.Contains(l.unreachable, name) {
		l.unreachable = append(l.unreachable, name)
	}
}
