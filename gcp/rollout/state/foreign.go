package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"bigdisk/gcp/fleet"
)

// ErrForeign is wrapped by errors about a document that tells of hosts of another
// fleet.
var ErrForeign = errors.New("the state in the bucket is another fleet's")

// Foreign is the error of a document that was last written about zones none of which
// is in the configuration: two fleets that share one would be given each other's
// versions. It is nil for a document that knows no zones yet.
func (d *Document) Foreign(cfg *fleet.Config) error {
	zones := slices.Sorted(maps.Keys(d.Zones))
	for _, zone := range zones {
		if _, _, ours := cfg.Zone(zone.Project(), zone.Name()); ours {
			return nil
		}
	}
	if len(zones) == 0 {
		return nil
	}
	return fmt.Errorf("%w: it tells of %d hosts in %s, and no zone that it knows is in the configuration", ErrForeign, d.Zones[zones[0]].Hosts, zones[0])
}
