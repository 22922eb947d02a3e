package gce_test

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gce"
	"bigdisk/gcp/gcetest"
)

// A disk is made; making it again says that it is there.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// made
	// READY, 10 GB
	// there is one already
	// deleted
}

func example(ctx context.Context) error {
	server, err := gcetest.Start(gcetest.Options{})
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := gce.New(ctx, gce.Options{Endpoint: server.URL()})
	if err != nil {
		return err
	}
	defer client.Close()

	disk := &computepb.Disk{Name: proto.String("d"), SizeGb: proto.Int64(10)}
	if err := client.InsertDisk(ctx, "prod-1", "us-central1-a", disk); err != nil {
		return err
	}
	fmt.Println("made")
	got, err := client.Disk(ctx, "prod-1", "us-central1-a", "d")
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d GB\n", got.GetStatus(), got.GetSizeGb())
	if err := client.InsertDisk(ctx, "prod-1", "us-central1-a", disk); errors.Is(err, gce.ErrExists) {
		fmt.Println("there is one already")
	}
	if err := client.DeleteDisk(ctx, "prod-1", "us-central1-a", "d"); err != nil {
		return err
	}
	fmt.Println("deleted")
	return nil
}
