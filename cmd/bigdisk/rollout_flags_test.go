package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"bigdisk/gcp/fleet"
)

// rolloutSection is a configuration's, as it is after loading.
func rolloutSection() *fleet.Config {
	return &fleet.Config{Rollout: fleet.Rollout{
		Waves: []fleet.Wave{{Name: "all", Hosts: fleet.Percent(100)}}, MaxConcurrent: 50, MaxPerZone: fleet.Percent(20),
		HealthTimeout: 5 * time.Minute, MaxFailures: fleet.Percent(2), OnFailure: fleet.OnFailurePause,
	}}
}

func TestRollbackFlagsRefused(t *testing.T) {
	for name, o := range map[string]rollbackOptions{
		"bake below zero":      {Waves: []string{"50%:-5m", "100%"}},
		"last bake below zero": {Waves: []string{"100%:-5m"}},
		"wave of none":         {Waves: []string{"0%", "100%"}},
		"last wave of half":    {Waves: []string{"50%"}},
		"none of a zone":       {MaxPerZone: "0%"},
		"negative":             {MaxConcurrent: -1},
		"far too many":         {MaxConcurrent: 2_000_000_000},
		"no share":             {MaxFailures: "many"},
	} {
		var usage usageError
		if speed, err := o.speed(rolloutSection()); !errors.As(err, &usage) {
			t.Errorf("%s: %+v, %v", name, speed, err)
		}
	}
}

func TestRollbackFlags(t *testing.T) {
	o := rollbackOptions{Waves: []string{"10%:5m", "100%"}, MaxConcurrent: 200, MaxPerZone: "7", MaxFailures: "3%"}
	speed, err := o.speed(rolloutSection())
	if err != nil {
		t.Fatal(err)
	}
	if len(speed.Waves) != 2 || time.Duration(speed.Waves[0].Bake) != 5*time.Minute || speed.MaxConcurrent != 200 ||
		speed.MaxPerZone != fleet.Count(7) || speed.MaxFailures != fleet.Percent(3) {
		t.Errorf("%+v", speed)
	}
	if speed, err = (&rollbackOptions{MaxConcurrent: 9}).speed(rolloutSection()); err != nil || speed.MaxFailures != fleet.Percent(100) {
		t.Errorf("without --max-failures a rollback stops at %+v, %v", speed, err)
	}
	config := rolloutSection()
	config.Rollout.KeepPrevious = true
	for _, keep := range []bool{false, true} {
		if speed, err = (&rollbackOptions{MaxConcurrent: 9, KeepNew: keep}).speed(config); err != nil || speed.KeepPrevious != keep {
			t.Errorf("--keep-new=%v: hosts keep the new disk: %v, %v", keep, speed.KeepPrevious, err)
		}
	}
	if help := newRolloutRollback().Long; !strings.Contains(help, "--max-failures") {
		t.Error("the help does not tell of --max-failures")
	}
}
