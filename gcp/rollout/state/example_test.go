package state_test

import (
	"fmt"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
)

// A rollout begins, somebody pauses it, and it is written down.
func Example() {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d := state.New("nixmodules")
	d.Deployed = "v11"
	speed := state.Speed{
		Waves: []state.WaveConfig{{Name: "all", Hosts: fleet.Percent(100)}}, MaxConcurrent: 50, MaxPerZone: fleet.Percent(20),
		HealthTimeout: state.Duration(5 * time.Minute), OnFailure: fleet.OnFailurePause,
	}
	if err := d.Begin("v12", speed, "alice", now); err != nil {
		fmt.Println(err)
	}
	if err := d.Apply(&state.Request{Action: state.Pause, By: "bob", Reason: "lunch"}, now); err != nil {
		fmt.Println(err)
	}
	text, err := d.Encode()
	fmt.Println(len(text) > 0, err)
	back, err := state.Decode(text, "nixmodules")
	fmt.Println(back.Rollout.Phase, back.Rollout.Reason, err)
	// Output:
	// true <nil>
	// paused paused by bob: lunch <nil>
}
