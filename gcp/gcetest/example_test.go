package gcetest_test

import (
	"context"
	"fmt"
	"log"
	"time"

	compute "cloud.google.com/go/compute/apiv1"
	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

// A client makes a disk, loses the reply, and asks again with the same request
// ID: there is one disk.
func Example() {
	ctx := context.Background()
	s, err := gcetest.Start(gcetest.Options{Clock: gcetest.ScaledClock(1000), Latency: gcetest.Fixed(10 * time.Second)})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	s.AddImage("prod-1", &computepb.Image{Name: proto.String("nixmodules-v1"), DiskSizeGb: proto.Int64(40)})
	s.AddFault(gcetest.Fault{Kind: gcetest.ResetAfter, Method: "disks.insert", Count: 1})

	disks, err := compute.NewDisksRESTClient(ctx, option.WithEndpoint(s.URL()), option.WithoutAuthentication())
	if err != nil {
		log.Fatal(err)
	}
	defer disks.Close()
	req := &computepb.InsertDiskRequest{Project: "prod-1", Zone: "us-central1-a", RequestId: proto.String("4b0f2c9e-7a51-4d3e-9f77-0a4c8b1d2e3f"),
		DiskResource: &computepb.Disk{Name: proto.String("nixmodules-v1-a"), SourceImage: proto.String("global/images/nixmodules-v1")}}
	if _, err := disks.Insert(ctx, req); err != nil {
		fmt.Println("the reply was lost")
	}
	op, err := disks.Insert(ctx, req)
	if err != nil {
		log.Fatal(err)
	}
	if err := op.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	for d, err := range disks.List(ctx, &computepb.ListDisksRequest{Project: "prod-1", Zone: "us-central1-a"}).All() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.GetName(), d.GetStatus(), d.GetSizeGb(), "GB")
	}
	fmt.Println(len(s.Mutations()), "change,", len(s.Violations()), "violations")
	// Output:
	// the reply was lost
	// nixmodules-v1-a READY 40 GB
	// 1 change, 0 violations
}
