package publish

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"cloud.google.com/go/compute/metadata"

	"bigdisk/gcp/fleet"
)

// metadataPatience is how long the metadata server may take to answer.
const metadataPatience = 5 * time.Second

// Self fills in what a builder lacks: with the machine that this runs on, as
// Compute Engine's metadata server, or that in GCE_METADATA_HOST, tells.
func Self(ctx context.Context, b fleet.Builder) (fleet.Builder, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataPatience)
	defer cancel()
	server := metadata.NewClient(&http.Client{Timeout: metadataPatience})
	for _, field := range []struct {
		name  string
		value *string
		ask   func(context.Context) (string, error)
	}{
		{"project", &b.Project, server.ProjectIDWithContext},
		{"zone", &b.Zone, server.ZoneWithContext},
		{"instance", &b.Instance, server.InstanceNameWithContext},
	} {
		if *field.value != "" {
			continue
		}
		value, err := field.ask(ctx)
		if err != nil {
			return b, fmt.Errorf("the builder's %s is not given, and the metadata server does not tell it: %w", field.name, err)
		}
		*field.value = value
	}
	return b, nil
}
