package rollout

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/rollout/world"
)

// TestStepsAreFew has a thousand changes end at once while a step takes a second, as
// with a hundred thousand hosts: there is not one step for each of them.
func TestStepsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := published(t, testConfig(1, 100), 1, 1)
		service := s.service(o)
		k, err := service.acquire(t.Context(), purposeRollout, false)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close(context.Background())
		c := New(s.cfg, service.Cloud, k, Options{})
		c.world = world.New()
		steps := 0
		err = c.loop(t.Context(), func(ctx context.Context) (bool, error) {
			for i := range 1000 * (1 - min(1, steps)) {
				id := world.IDOf("p", "z", fmt.Sprint("h", i))
				c.changing[id] = &change{host: id}
				c.spawn(ctx, func() { send(ctx, c.results, result{host: id, outcome: stopped}) })
			}
			steps++
			time.Sleep(time.Second)
			return len(c.changing) == 0, nil
		})
		if err != nil || steps > 2 {
			t.Errorf("%v; %d steps for 1000 hosts", err, steps)
		}
	})
}
