package rollout

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
)

// outage is a bucket that one process cannot reach for a while.
type outage struct {
	lease.Store
	out atomic.Bool
}

func (o *outage) Read(ctx context.Context) ([]byte, int64, error) {
	if o.out.Load() {
		return nil, 0, errors.New("503 the bucket cannot be reached")
	}
	return o.Store.Read(ctx)
}

func (o *outage) Write(ctx context.Context, data []byte, generation int64) (int64, error) {
	if o.out.Load() {
		return 0, errors.New("503 the bucket cannot be reached")
	}
	return o.Store.Write(ctx, data, generation)
}

// cutOff has a service that cannot reach the bucket from the fifth minute to the
// tenth, while f does something with what it can reach.
func cutOff(t *testing.T, run func(context.Context, *Service) error, f func(*sim, *object)) (s *sim, o *object, ended chan error) {
	s, o = published(t, testConfig(3, 100), 1, 30)
	service := s.service(o)
	store := &outage{Store: service.Store}
	service.Store = store
	ended = make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	go func() {
		defer cancel()
		ended <- run(ctx, service)
	}()
	time.Sleep(5 * time.Minute)
	store.out.Store(true)
	time.Sleep(time.Minute)
	f(s, o)
	time.Sleep(4 * time.Minute)
	store.out.Store(false)
	return s, o, ended
}

// TestBucketIsAwayForMinutes goes on with rollouts, rollbacks and reconciliations
// when the bucket is back.
func TestBucketIsAwayForMinutes(t *testing.T) {
	start := func(ctx context.Context, s *Service) error { return s.Start(ctx, "v2") }
	nothing := func(*sim, *object) {}
	t.Run("start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, ended := cutOff(t, start, nothing)
			if err := <-ended; err != nil || s.versions()["v2"] != 30 {
				t.Errorf("%v; hosts run %v", err, s.versions())
			}
		})
	})
	t.Run("reconcile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			watch := func(ctx context.Context, s *Service) error { return s.Reconcile(ctx, true) }
			s, o, ended := cutOff(t, watch, func(s *sim, _ *object) { s.recreate("prod-1/us-east1-a/host-0") })
			time.Sleep(10 * time.Minute)
			repairs(t, s, o, "v1")
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	})
	t.Run("rollback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var began time.Time
			back := func(ctx context.Context, s *Service) error {
				killed, cancel := context.WithTimeout(ctx, 4*time.Minute+50*time.Second)
				defer cancel()
				if err := s.Start(killed, "v2"); !errors.Is(err, context.DeadlineExceeded) {
					return err
				}
				began = time.Now()
				_, err := s.Rollback(ctx, "", nil)
				return err
			}
			s, _, ended := cutOff(t, back, func(s *sim, _ *object) {
				s.mu.Lock()
				s.rolledBack = true
				s.mu.Unlock()
			})
			if err := <-ended; err != nil || s.versions()["v1"] != 30 || time.Since(began) < 5*time.Minute {
				t.Errorf("%v after %s; hosts run %v", err, time.Since(began), s.versions())
			}
		})
	})
	t.Run("aborted meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, o, ended := cutOff(t, start, func(s *sim, o *object) {
				if err := s.service(o).Ask(t.Context(), state.Abort, "", nil); err != nil && !errors.Is(err, ErrUnanswered) {
					t.Error(err)
				}
			})
			if err := <-ended; !errors.Is(err, ErrNotDone) || s.versions()["v2"] > 3 {
				t.Errorf("%v; the rollout is %s, hosts run %v", err, o.doc(t).Rollout.Phase, s.versions())
			}
		})
	})
	t.Run("rolled back meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, o, ended := cutOff(t, start, func(s *sim, o *object) {
				s.mu.Lock()
				s.rolledBack = true
				s.mu.Unlock()
				if byController, err := s.service(o).Rollback(t.Context(), "", nil); byController || err != nil {
					t.Errorf("by the one that is cut off: %v; %v", byController, err)
				}
			})
			if err := <-ended; err == nil || s.versions()["v1"] != 30 || o.doc(t).Deployed != "v1" {
				t.Errorf("%v; hosts run %v", err, s.versions())
			}
		})
	})
	t.Run("somebody else has it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var other *starter
			s, _, ended := cutOff(t, start, func(s *sim, o *object) { other = s.starting(o, "v2") })
			if err := <-ended; !errors.Is(err, lease.ErrHeld) {
				t.Errorf("beside another one: %v", err)
			}
			if err := <-other.ended; err != nil || s.versions()["v2"] != 30 {
				t.Errorf("%v; hosts run %v", err, s.versions())
			}
		})
	})
}
