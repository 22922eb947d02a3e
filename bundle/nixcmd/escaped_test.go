package nixcmd

import "testing"

func TestEscaped(t *testing.T) {
	for installable, want := range map[string]bool{
		"git+file:///a%20b?rev=0#modules":             true,
		"git+file:///repo?dir=a%2Fb&rev=0#modules":    false,
		"git+file:///repo?rev=0#modules":              false,
		"git+https://example.org/a%20b?rev=0#modules": false,
	} {
		if got := escaped(installable); got != want {
			t.Errorf("%s: %t", installable, got)
		}
	}
}
