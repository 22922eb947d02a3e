package gcetest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/api/googleapi"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault   gcetest.Fault
		code    int // 0: a broken connection; 200: in the operation
		reason  string
		applied bool
	}{
		{gcetest.Fault{Kind: gcetest.ErrorBefore}, 503, "backendError", false},
		{gcetest.Fault{Kind: gcetest.ErrorBefore, Status: 500}, 500, "internalError", false},
		{gcetest.Fault{Kind: gcetest.ErrorAfter, Status: 502}, 502, "backendError", true},
		{gcetest.Fault{Kind: gcetest.ResetBefore}, 0, "", false},
		{gcetest.Fault{Kind: gcetest.ResetAfter}, 0, "", true},
		{gcetest.Fault{Kind: gcetest.RateLimited403}, 403, "rateLimitExceeded", false},
		{gcetest.Fault{Kind: gcetest.RateLimited429}, 429, "rateLimitExceeded", false},
		{gcetest.Fault{Kind: gcetest.QuotaExceeded}, 403, "quotaExceeded", false},
		{gcetest.Fault{Kind: gcetest.PermissionDenied}, 403, "forbidden", false},
		{gcetest.Fault{Kind: gcetest.OpQuotaExceeded}, 200, "QUOTA_EXCEEDED", false},
		{gcetest.Fault{Kind: gcetest.OpStockout}, 200, "ZONE_RESOURCE_POOL_EXHAUSTED", false},
		{gcetest.Fault{Kind: gcetest.OpStockoutLong}, 200, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", false},
		{gcetest.Fault{Kind: gcetest.OpRateExceeded}, 200, "RESOURCE_OPERATION_RATE_EXCEEDED", false},
		{gcetest.Fault{Kind: gcetest.OpInternal}, 200, "INTERNAL_ERROR", false},
	} {
		t.Run(fmt.Sprint(tt.fault.Kind, tt.fault.Status), func(t *testing.T) {
			c := newCloud(t, gcetest.Options{})
			tt.fault.Method, tt.fault.Count = "disks.insert", 1
			hits := c.AddFault(tt.fault)
			req := &computepb.InsertDiskRequest{Project: project, Zone: zone, RequestId: newID(),
				DiskResource: &computepb.Disk{Name: proto.String("d")}}
			op, err := c.disks.Insert(c.ctx, req)
			var ge *googleapi.Error
			switch {
			case tt.code == 200:
				pb := c.await(zone, op, err)
				if got := pb.GetError().GetErrors(); len(got) != 1 || got[0].GetCode() != tt.reason {
					t.Errorf("the operation ended with %v", got)
				}
			case tt.code == 0:
				if err == nil || errors.As(err, &ge) {
					t.Errorf("got %v, want a broken connection", err)
				}
			default:
				wantError(t, err, tt.code, tt.reason)
			}
			if got := len(c.Mutations()) > 0; got != (tt.applied || tt.code == 200) {
				t.Errorf("mutations: %v", c.Mutations())
			}
			if hits() != 1 || c.Calls("disks.insert")[0].Fault != tt.fault.Kind {
				t.Errorf("%d hits, logged %v", hits(), c.Calls("disks.insert"))
			}
			// The same request again finds the first one where that was applied.
			op, err = c.disks.Insert(c.ctx, req)
			pb := c.await(zone, op, err)
			if again := c.Calls("disks.insert")[1]; again.Repeated != (tt.applied || tt.code == 200) {
				t.Errorf("the second call: %+v", again)
			}
			if failed := pb.Error != nil; failed != (tt.code == 200) {
				t.Errorf("the second operation: %v", pb)
			}
			c.noViolations()
		})
	}
}

func TestStuckOperation(t *testing.T) {
	c := newCloud(t, gcetest.Options{Clock: gcetest.ScaledClock(1000)})
	c.AddFault(gcetest.Fault{Kind: gcetest.OpStuck, Resource: "d*"})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	if err != nil {
		t.Fatal(err)
	}
	pb, err := c.zoneOps.Wait(c.ctx, &computepb.WaitZoneOperationRequest{Project: project, Zone: zone, Operation: op.Name()})
	if err != nil || pb.GetStatus() != computepb.Operation_RUNNING {
		t.Errorf("after waiting: %v, %v", pb, err)
	}
	if got := c.Stuck(); len(got) != 1 || got[0] != op.Name() {
		t.Errorf("stuck: %v", got)
	}
	c.Release()
	c.succeed(zone, op, nil)
	if got := c.disk("d").GetStatus(); got != "READY" {
		t.Errorf("status %s", got)
	}
}

func TestFailedOperationWithoutStatus(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	c.AddFault(gcetest.Fault{Kind: gcetest.OpQuotaExceeded, NoHTTPStatus: true})
	op, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")})
	pb := c.await(zone, op, err)
	if pb.HttpErrorStatusCode != nil || pb.Error == nil {
		t.Errorf("got %v, want an error and no status", pb)
	}
	_, err = c.disks.Get(c.ctx, &computepb.GetDiskRequest{Project: project, Zone: zone, Disk: "d"})
	wantError(t, err, 404, "notFound")
}

func TestFaultsChooseCalls(t *testing.T) {
	c := newCloud(t, gcetest.Options{Seed: 7})
	hits := c.AddFault(gcetest.Fault{Kind: gcetest.ErrorBefore, Method: "disks.*", Zone: zone, Probability: 0.25, Skip: 10})
	for n := range 210 {
		_, err := c.insertDisk(&computepb.Disk{Name: proto.String(fmt.Sprint("d-", n))})
		if n < 10 && err != nil {
			t.Errorf("call %d was hit: %v", n, err)
		}
	}
	if got := hits(); got < 25 || got > 75 {
		t.Errorf("%d of 200 calls were hit, want about 50", got)
	}
	c.ClearFaults()
	before := hits()
	_, err := c.insertDisk(&computepb.Disk{Name: proto.String("last")})
	if err != nil || hits() != before {
		t.Errorf("hit after the faults were cleared: %v", err)
	}
}

func TestSlowReply(t *testing.T) {
	c := newCloud(t, gcetest.Options{Clock: gcetest.ScaledClock(100)})
	c.AddFault(gcetest.Fault{Kind: gcetest.Slow, Delay: 10 * time.Second, Count: 1})
	start := c.Clock().Now()
	if _, err := c.insertDisk(&computepb.Disk{Name: proto.String("d")}); err != nil {
		t.Fatal(err)
	}
	if took := c.Clock().Now().Sub(start); took < 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestRateLimit(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c := newCloud(t, gcetest.Options{Clock: clock, RateLimits: map[gcetest.Group]gcetest.RateLimit{gcetest.Mutations: {Calls: 3, Per: time.Minute}}})
	insert := func(n int) error {
		_, err := c.insertDisk(&computepb.Disk{Name: proto.String(fmt.Sprint("d-", n))})
		return err
	}
	clock.Advance(50 * time.Second)
	for n := range 3 {
		if err := insert(n); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, insert(3), 403, "rateLimitExceeded")
	clock.Advance(9 * time.Second)
	wantError(t, insert(3), 403, "rateLimitExceeded")
	clock.Advance(time.Second) // the next full minute
	if err := insert(3); err != nil {
		t.Error(err)
	}
	if got := c.Peak(project, gcetest.Mutations, time.Second); got != 4 {
		t.Errorf("%d calls within a second, want 4", got)
	}
	if got := c.Peak("", gcetest.Mutations, time.Minute); got != 6 {
		t.Errorf("%d calls within a minute, want 6", got)
	}
	if got := c.Peak("other", gcetest.Mutations, time.Minute); got != 0 {
		t.Errorf("%d calls of another project", got)
	}
}
