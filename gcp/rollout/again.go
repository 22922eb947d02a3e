package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
)

const (
	// againTimeout is how long a process tries to take a lease again that it lost,
	// and againEvery how often.
	againTimeout = time.Hour
	againEvery   = 10 * time.Second
)

// again runs f until it ends otherwise than by losing the lease: where the bucket
// could not be reached for longer than the lease lasts, the lease is taken again
// with take, unless somebody else has it by then. err is how f ended before.
func (s *Service) again(ctx context.Context, err error, take func(context.Context) (*lease.Keeper, error), f func(*lease.Keeper) error) error {
	for errors.Is(err, lease.ErrLost) && ctx.Err() == nil {
		s.Options.Log.Warn("the lease is to be taken again", "err", err)
		keeper, failed := s.retake(ctx, take)
		if failed != nil {
			return fmt.Errorf("%w; it cannot be taken again: %w", err, failed)
		}
		err = s.hold(ctx, keeper, f)
	}
	return err
}

// retake takes the lease as soon as the bucket answers.
func (s *Service) retake(ctx context.Context, take func(context.Context) (*lease.Keeper, error)) (*lease.Keeper, error) {
	began := time.Now()
	for {
		keeper, err := take(ctx)
		switch {
		case err == nil || errors.Is(err, lease.ErrHeld) || errors.Is(err, state.ErrMalformed) || errors.Is(err, state.ErrForeign):
			return keeper, err
		case ctx.Err() != nil || time.Since(began) > againTimeout:
			return nil, err
		}
		s.Options.Log.Warn("the lease cannot be taken", "err", err)
		if err := lease.Sleep(ctx, againEvery); err != nil {
			return nil, err
		}
	}
}

// ErrReplaced is wrapped by errors about a document that tells of another rollout
// than the one that was under way.
var ErrReplaced = errors.New("the state in the bucket is not this rollout's any more")

// ours is f for a lease that was taken again: for as long as nobody had it, somebody
// may have ended the rollout and begun another one, removed the document or put
// another one into its place. f goes on with the rollout that has the ID, or with
// its rollback, and with no other.
func ours(id string, f func(*lease.Keeper) error) func(*lease.Keeper) error {
	return func(k *lease.Keeper) error {
		found, same := "none", false
		k.Look(func(d *state.Document) {
			if same = d.Continues(id); d.Rollout != nil {
				found = d.Rollout.ID
			}
		})
		if !same {
			return fmt.Errorf("%w: it had rollout %s and has %s now", ErrReplaced, id, found)
		}
		return f(k)
	}
}

// idOf is the ID of the keeper's rollout.
func idOf(k *lease.Keeper) (id string) {
	k.Look(func(d *state.Document) { id = d.Rollout.ID })
	return id
}
