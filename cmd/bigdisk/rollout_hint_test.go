package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/state"
)

// TestDamagedStateHasAHint says what to do where no command can read the rollout's state.
func TestDamagedStateHasAHint(t *testing.T) {
	var hint hintedError
	if err := hinted(fmt.Errorf("gs://b/state/svc.rollout.json: %w", state.ErrMalformed)); !errors.As(err, &hint) || !errors.Is(err, state.ErrMalformed) {
		t.Errorf("%v has no hint", err)
	}
}

// TestRefusalsHaveAHint asks for what cannot be done: the first rollout has nothing
// to go back to, whether it is under way or was aborted, and people are told of start.
func TestRefusalsHaveAHint(t *testing.T) {
	speed := state.SpeedOf(rolloutSection().Rollout)
	now := time.Now()
	for _, aborted := range []bool{false, true} {
		d := state.New("svc")
		for action, want := range map[string]string{state.Rollback: "rollout status", state.Resume: "rollout status"} {
			wantHint(t, "before any rollout, "+action, d.Apply(&state.Request{Action: action, Plan: &speed}, now), want)
		}
		if err := d.Begin("v1", speed, "t", now); err != nil {
			t.Fatal(err)
		}
		if aborted {
			d.End(state.Aborted, "enough", now)
		}
		back := state.RollbackSpeed(speed)
		wantHint(t, "rollback of the first", d.Apply(&state.Request{Action: state.Rollback, Plan: &back}, now), "rollout start --version")
	}
}

// TestReplacedStateHasAHint says what to do where the rollout's state was removed or
// overwritten in the middle.
func TestReplacedStateHasAHint(t *testing.T) {
	wantHint(t, "another fleet's", fmt.Errorf("%w: it tells of others", state.ErrForeign), "each fleet needs its own")
	wantHint(t, "replaced", fmt.Errorf("%w: it had a and has b now", rollout.ErrReplaced), "restore its earlier generation")
}

func wantHint(t *testing.T, what string, err error, want string) {
	t.Helper()
	var hint hintedError
	if err = hinted(err); !errors.As(err, &hint) || !strings.Contains(hint.hint, want) {
		t.Errorf("%s: %v, with the hint %q; want %q in it", what, err, hint.hint, want)
	}
}
