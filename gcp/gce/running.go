package gce

import (
	"context"

	"cloud.google.com/go/compute/apiv1/computepb"
)

// Running lists the operations of a zone that have not ended, whoever began
// them.
func (c *Client) Running(ctx context.Context, project, zone string) ([]*computepb.Operation, error) {
	filter := "status != DONE"
	l, err := collect(ctx, c, what{"list", "projects/" + project + "/zones/" + zone + "/operations"}, project, func(ctx context.Context) pages[*computepb.Operation] {
		it := c.zoneOps.List(ctx, &computepb.ListZoneOperationsRequest{Project: project, Zone: zone, Filter: &filter}, single(callTimeout)...)
		return pages[*computepb.Operation]{it.Next, func() any { return it.Response }}
	})
	return l.items, err
}
