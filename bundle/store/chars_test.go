package store

import (
	"strings"
	"testing"
)

// The bits say what the alphabets do.
func TestCharacters(t *testing.T) {
	const name = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="
	for c := range 256 {
		if got, want := nameByte(byte(c)), c < 128 && strings.IndexByte(name, byte(c)) >= 0; got != want {
			t.Errorf("%#x in a name: %v", c, got)
		}
		inBase32 := strings.IndexByte(base32Chars, byte(c))
		if got := digestByte(byte(c)); got != (inBase32 >= 0) {
			t.Errorf("%#x in a digest: %v", c, got)
		}
		if got := base32Value(byte(c)); got != inBase32 {
			t.Errorf("%#x is worth %d, not %d", c, got, inBase32)
		}
	}
}
