package world

import (
	"encoding/json"
	"fmt"
	"testing"

	"bigdisk/gcp/fleet"
)

func TestIDs(t *testing.T) {
	for text, want := range map[ID]bool{"p/z/n": true, "p/z": false, "": false, "p//n": false, "p/z/n/x": false, "domain.com:p/z/n": true} {
		if text.Valid() != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
	id := IDOf("prod-1", "us-central1-a", "host-1")
	if id.Zone().Project() != "prod-1" || id.Zone().Name() != "us-central1-a" || id.Name() != "host-1" {
		t.Errorf("%s falls into %s, %s", id, id.Zone(), id.Name())
	}
}

func TestSameVersion(t *testing.T) {
	odd := "V1 of 2026"
	device := fleet.DeviceName("svc", odd)[len("svc-"):]
	for _, c := range []struct {
		version, reported string
		want              bool
	}{
		{"v1", "v1", true}, {"v1", "v2", false}, {"v1", "", false},
		{odd, odd, true}, {odd, device, true}, {"v1 of 2026", device, false},
	} {
		if got := SameVersion("svc", c.version, c.reported); got != c.want {
			t.Errorf("%q reported as %q: %v", c.version, c.reported, got)
		}
	}
}

func ExampleSet() {
	text, err := json.Marshal(SetOf("prod-1/us-central1-a/host-2", "prod-1/us-central1-a/host-1", "prod-1/us-east1-b/host-3"))
	fmt.Println(string(text), err)
	// Output: {"prod-1/us-central1-a":["host-1","host-2"],"prod-1/us-east1-b":["host-3"]} <nil>
}
