package main

import (
	"errors"
	"fmt"
	"testing"

	"bigdisk/gcp/rollout/state"
)

// TestDamagedStateHasAHint says what to do where no command can read the rollout's state.
func TestDamagedStateHasAHint(t *testing.T) {
	var hint hintedError
	if err := hinted(fmt.Errorf("gs://b/state/svc.rollout.json: %w", state.ErrMalformed)); !errors.As(err, &hint) || !errors.Is(err, state.ErrMalformed) {
		t.Errorf("%v has no hint", err)
	}
}
