package realise

import (
	"fmt"
	"testing"

	"bigdisk/bundle/nixcmd"
)

// TestBuilderFailed tells a builder that failed, which is not tried again,
// from a download that did, which is.
func TestBuilderFailed(t *testing.T) {
	for message, want := range map[string]bool{
		"builder for '/nix/store/x-bad.drv' failed with exit code 3":                true,
		"unable to download 'http://127.0.0.1:1/nix-cache-info': could not connect": false,
	} {
		var log nixcmd.Log
		fmt.Fprintf(&log, "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: %s\",\"raw_msg\":\"%s\"}\n", message, message)
		if len(log.Errors()) != 1 {
			t.Fatalf("%q: the log has the errors %q", message, log.Errors())
		}
		if got := builderFailed(&log); got != want {
			t.Errorf("%q: a builder failed: %v, want %v", message, got, want)
		}
	}
}
