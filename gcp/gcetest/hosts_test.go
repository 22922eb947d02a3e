package gcetest_test

import (
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/guest"
)

const service = "nixmodules"

func addVersion(c *cloud, version string) {
	c.AddDisk(project, zone, &computepb.Disk{Name: proto.String(service + "-" + version),
		Labels: map[string]string{"service": service, "version": version}})
}

// fleet has hosts that run v1, and v2's disk is there.
func fleet(t *testing.T, clock gcetest.Clock, count int, behave func(host, version string, nth int) gcetest.Behaviour) (*cloud, *gcetest.Hosts) {
	t.Helper()
	c := newCloud(t, gcetest.Options{Clock: clock})
	addVersion(c, "v1")
	addVersion(c, "v2")
	hosts, err := c.AddHosts(gcetest.HostSpec{Project: project, Zones: []string{zone}, Count: count, Service: service,
		Labels: map[string]string{"role": "repl-host"}, Behave: behave,
		Disk: func(string, int) (string, string) { return service + "-v1", service + "-v1" }})
	if err != nil {
		t.Fatal(err)
	}
	return c, hosts
}

func (c *cloud) report(host string) (guest.Report, error) {
	reply, err := c.instances.GetGuestAttributes(c.ctx, &computepb.GetGuestAttributesInstanceRequest{Project: project, Zone: zone, Instance: host,
		QueryPath: proto.String(service + "/")})
	if err != nil {
		return guest.Report{}, err
	}
	attributes := map[string]string{}
	for _, e := range reply.GetQueryValue().GetItems() {
		attributes[e.GetKey()] = e.GetValue()
	}
	return guest.Parse(attributes)
}

func (c *cloud) id(host string) uint64 {
	vm, err := c.instances.Get(c.ctx, &computepb.GetInstanceRequest{Project: project, Zone: zone, Instance: host})
	if err != nil {
		c.t.Fatal(err)
	}
	return vm.GetId()
}

func TestHostsReport(t *testing.T) {
	const host = "host-" + zone + "-0"
	for _, tt := range []struct {
		does   gcetest.Behaviour
		after  time.Duration
		health guest.Health
		about  string
		runs   string
	}{
		{gcetest.Healthy, 10 * time.Second, guest.OK, "v2", "v2"},
		{gcetest.SlowHost, 10 * time.Second, guest.Pending, "v2", "v1"},
		{gcetest.SlowHost, 5 * time.Minute, guest.OK, "v2", "v2"},
		{gcetest.Sick, 10 * time.Second, guest.Failed, "v2", "v1"},
		{gcetest.Silent, time.Hour, guest.OK, "v1", "v1"},
	} {
		t.Run(string(tt.does), func(t *testing.T) {
			clock := gcetest.NewManualClock(newYear)
			c, hosts := fleet(t, clock, 1, func(string, string, int) gcetest.Behaviour { return tt.does })
			before, err := c.report(host)
			if err != nil || before.Health != guest.OK || before.Version != "v1" {
				t.Fatalf("at first: %+v, %v", before, err)
			}
			c.attachNow(clock, host, "v2")
			clock.Advance(tt.after)
			r, err := c.report(host)
			if err != nil || r.Health != tt.health || r.Version != tt.about || r.BootID != before.BootID {
				t.Errorf("after %v: %+v, %v", tt.after, r, err)
			}
			if (tt.health == guest.Failed) != (r.Error != "") {
				t.Errorf("the error is %q", r.Error)
			}
			if got := hosts.Current()[host]; got != tt.runs {
				t.Errorf("runs %q, want %q", got, tt.runs)
			}
			if age := clock.Now().Sub(r.Time); (age > 6*time.Minute) != (tt.does == gcetest.Silent) {
				t.Errorf("the report is %v old", age)
			}
			c.noViolations()
		})
	}
}

// attachNow attaches a version's disk and lets the operation end.
func (c *cloud) attachNow(clock *gcetest.ManualClock, host, version string) {
	c.t.Helper()
	op, err := c.attach(host, service+"-"+version, service+"-"+version, "READ_ONLY")
	if err != nil {
		c.t.Fatal(err)
	}
	clock.Advance(time.Second)
	c.succeed(zone, op, nil)
}

func (c *cloud) detachNow(clock *gcetest.ManualClock, host, version string) {
	c.t.Helper()
	op, err := c.detach(host, service+"-"+version)
	if err != nil {
		c.t.Fatal(err)
	}
	clock.Advance(time.Second)
	c.succeed(zone, op, nil)
}

func TestHostsComeAndGo(t *testing.T) {
	const host = "host-" + zone + "-0"
	clock := gcetest.NewManualClock(newYear)
	does := gcetest.Recreated
	c, hosts := fleet(t, clock, 2, func(name, version string, nth int) gcetest.Behaviour {
		if name != host || nth > 0 {
			return gcetest.Healthy
		}
		return does
	})
	id := c.id(host)
	before, err := c.report(host)
	if err != nil {
		t.Fatal(err)
	}
	c.attachNow(clock, host, "v2")
	clock.Advance(6 * time.Second) // it looks, and is deleted
	if _, ok := hosts.Current()[host]; ok {
		t.Error("the host is still there")
	}
	clock.Advance(time.Minute)
	if again := c.id(host); again == id {
		t.Errorf("the ID is still %d", id)
	}
	if len(c.disk(service+"-v2").GetUsers()) != 0 {
		t.Error("the disk is still attached")
	}
	_, err = c.report(host)
	wantError(t, err, 404, "notFound")
	c.attachNow(clock, host, "v2")
	clock.Advance(time.Minute)
	if r, err := c.report(host); err != nil || r.Health != guest.OK || r.BootID == before.BootID {
		t.Errorf("after it came back: %+v, %v", r, err)
	}
	if !hosts.Fail(host, "input/output error") {
		t.Error("the host was not found")
	}
	if r, err := c.report(host); err != nil || r.Health != guest.Failed || !strings.Contains(r.Error, "input/output") {
		t.Errorf("after it failed: %+v, %v", r, err)
	}
	if !hosts.Remove(host) || hosts.Remove(host) || hosts.Recreate(host) {
		t.Error("a host that was removed was found")
	}
	if len(hosts.Names()) != 2 || len(hosts.Current()) != 1 {
		t.Errorf("hosts %v, of which are there %v", hosts.Names(), hosts.Current())
	}
}

func TestGuestQueriesAreLimited(t *testing.T) {
	const host = "host-" + zone + "-0"
	clock := gcetest.NewManualClock(newYear)
	c, _ := fleet(t, clock, 1, nil)
	refused := 0
	for range 20 {
		clock.Advance(100 * time.Millisecond)
		if _, err := c.report(host); err != nil {
			wantError(t, err, 404, "notFound")
			refused++
		}
	}
	if got := c.GuestQueriesOverLimit(); got != refused || refused < 10 {
		t.Errorf("%d queries were refused, %d counted", refused, got)
	}
	clock.Advance(time.Minute)
	if _, err := c.report(host); err != nil {
		t.Error(err)
	}
}

func TestGoodDiskIsKept(t *testing.T) {
	const host = "host-" + zone + "-0"
	for _, tt := range []struct {
		name  string
		does  gcetest.Behaviour
		wait  time.Duration
		which string
		want  int
	}{
		{"old one after the new one is ok", gcetest.Healthy, time.Minute, "v1", 0},
		{"old one too early", gcetest.Healthy, 0, "v1", 1},
		{"old one though the new one failed", gcetest.Sick, time.Minute, "v1", 1},
		{"new one that failed", gcetest.Sick, time.Minute, "v2", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := gcetest.NewManualClock(newYear)
			c, hosts := fleet(t, clock, 1, func(string, string, int) gcetest.Behaviour { return tt.does })
			c.attachNow(clock, host, "v2")
			clock.Advance(tt.wait)
			c.detachNow(clock, host, tt.which)
			if v := c.Violations(); len(v) != tt.want {
				t.Errorf("violations %v, want %d", v, tt.want)
			}
			clock.Advance(time.Minute)
			if tt.which == "v2" && hosts.Current()[host] != "v1" {
				t.Errorf("after going back it runs %q", hosts.Current()[host])
			}
		})
	}
}

func TestConcurrencyIsChecked(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c, hosts := fleet(t, clock, 6, nil)
	c.SetChecks(gcetest.Checks{Service: service, MaxConcurrent: 3, MaxPerZone: func(string, string) int { return 2 }})
	names := hosts.Names()
	want := 0
	for n, name := range names[:4] {
		if _, err := c.attach(name, service+"-v2", service+"-v2", "READ_ONLY"); err != nil {
			t.Fatal(err)
		}
		if want += []int{0, 0, 1, 2}[n]; len(c.Violations()) != want {
			t.Errorf("after %d changes: %v, want %d", n+1, c.Violations(), want)
		}
	}
	clock.Advance(time.Minute) // all are ok
	c.attachNow(clock, names[4], "v2")
	if len(c.Violations()) != want {
		t.Errorf("after the others were done: %v", c.Violations())
	}
	if all, zone := c.PeakChanging(); all != 4 || zone != 4 {
		t.Errorf("at most %d, %d in a zone were in change", all, zone)
	}
}

func TestChangesTimeOut(t *testing.T) {
	clock := gcetest.NewManualClock(newYear)
	c, hosts := fleet(t, clock, 2, func(string, string, int) gcetest.Behaviour { return gcetest.Silent })
	c.SetChecks(gcetest.Checks{MaxConcurrent: 1, ChangeTimeout: 5 * time.Minute})
	c.attachNow(clock, hosts.Names()[0], "v2")
	clock.Advance(6 * time.Minute)
	c.attachNow(clock, hosts.Names()[1], "v2")
	c.noViolations()
}

func TestAttachRules(t *testing.T) {
	c := newCloud(t, gcetest.Options{ReaderLimits: map[string]int{"pd-ssd": 1}})
	addVersion(c, "v1")
	for _, vm := range []string{"a", "b", "builder"} {
		addVM(c, vm)
	}
	c.SetChecks(gcetest.Checks{Builders: []string{"builder"}, DeleteGuard: time.Hour})
	attach := func(vm string, mode *string) {
		t.Helper()
		op, err := c.instances.AttachDisk(c.ctx, &computepb.AttachDiskInstanceRequest{Project: project, Zone: zone, Instance: vm, RequestId: newID(),
			AttachedDiskResource: &computepb.AttachedDisk{Source: c.disk(service + "-v1").SelfLink, DeviceName: proto.String("d"), Mode: mode}})
		c.await(zone, op, err)
	}
	detach := func(vm string) {
		t.Helper()
		op, err := c.detach(vm, "d")
		c.succeed(zone, op, err)
	}
	remove := func() error {
		_, err := c.disks.Delete(c.ctx, &computepb.DeleteDiskRequest{Project: project, Zone: zone, Disk: service + "-v1", RequestId: newID()})
		return err
	}
	attach("builder", proto.String("READ_WRITE"))
	detach("builder")
	c.noViolations()
	var want []string
	expect := func(text string) {
		t.Helper()
		want = append(want, text)
		v := c.Violations()
		if len(v) < len(want) || !strings.Contains(v[len(want)-1], text) {
			t.Fatalf("violations %v, want the last about %q", v, text)
		}
	}
	attach("a", proto.String("READ_WRITE"))
	expect("is to be attached READ_WRITE")
	detach("a")
	attach("a", nil)
	expect("without a mode")
	expect("is to be attached READ_WRITE")
	detach("a")
	attach("a", proto.String("READ_ONLY"))
	attach("b", proto.String("READ_ONLY"))
	expect("has 1 instances already")
	wantError(t, remove(), 400, "resourceInUseByAnotherResource")
	expect("it is attached to")
	detach("a")
	if err := remove(); err != nil {
		t.Error(err)
	}
	expect("it was attached until")
}
