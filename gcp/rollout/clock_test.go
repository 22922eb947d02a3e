package rollout_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/gcetest"
	"bigdisk/gcp/guest"
	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/state"
)

// off is a clock that is ahead of the controllers'.
type off time.Duration

func (o off) Now() time.Time                       { return time.Now().Add(time.Duration(o)) }
func (off) After(d time.Duration) <-chan time.Time { return time.After(d) }

// TestControllersClockIsOff rolls out and back from a machine whose clock is wrong:
// by minutes and by hours, either way.
func TestControllersClockIsOff(t *testing.T) {
	for _, ahead := range []time.Duration{-26 * time.Hour, -time.Hour, -2 * time.Minute, 2 * time.Minute, time.Hour, 26 * time.Hour} {
		t.Run(fmt.Sprint("by ", -ahead), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newYardAt(t, off(ahead), []string{"us-central1-a", "us-east1-b"}, 12, nil, nil)
				defer y.close()
				var log strings.Builder
				for _, version := range []string{"v2", "v1"} {
					log.Reset()
					p := y.start(version, rollout.Options{StopWhenPaused: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
					if err := y.wait(p); err != nil || y.running()[version] != 12 {
						t.Errorf("to %s: %v; hosts run %v", version, err, y.running())
					}
					if said := strings.Count(log.String(), "this machine's clock is wrong"); said != 1 {
						t.Errorf("it is said %d times that the clock is wrong:\n%s", said, log.String())
					}
					time.Sleep(time.Minute)
				}
			})
		})
	}
}

// TestSlowClockBelievesNoOldReport has a controller whose clock is behind, and a
// host whose agent died after it had said that it runs the version to come: that
// is from before the change, whatever the controller's clock says.
func TestSlowClockBelievesNoOldReport(t *testing.T) {
	silent := func(_, version string, _ int) gcetest.Behaviour {
		if version == "v2" {
			return gcetest.Silent
		}
		return gcetest.Healthy
	}
	for _, ahead := range []time.Duration{0, 8 * time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			y := newYardAt(t, off(ahead), []string{"us-central1-a"}, 3, silent, nil)
			defer y.close()
			time.Sleep(10 * time.Minute)
			for host := range y.hosts.Current() {
				old := guest.Report{Version: "v2", Health: guest.OK, Current: "v2", BootID: "b", Time: y.server.Clock().Now().Add(-2 * time.Minute)}
				y.server.SetGuestAttributes(project, "us-central1-a", host, service, old.Attributes())
			}
			p := y.start("v2", rollout.Options{StopWhenPaused: true})
			err := y.wait(p)
			if r := y.state.doc(t).Rollout; err == nil || len(r.Done) > 0 || r.Phase != state.Paused {
				t.Errorf("controller behind by %s: %v; %s with %d hosts done", ahead, err, r.Phase, len(r.Done))
			}
		})
	}
}
