package gce

import (
	"net/http"
	"testing"
	"time"
)

// TestNow goes by the server's clock from its first answer on, whatever the
// answer is, and by its own where there is none that tells the time.
func TestNow(t *testing.T) {
	theirs := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	dated := func(a answer, at string) answer {
		a.header = map[string]string{"Date": at}
		return a
	}
	refused := refusal(403, "forbidden", "no")
	c, _, clock := start(t, dated(refused, "not a date"), dated(refused, theirs.Format(http.TimeFormat)), dated(refused, ""))
	is := func(when string, want time.Time) {
		t.Helper()
		if got := c.Now(); !got.Equal(want) {
			t.Errorf("%s it is %s, not %s", when, got, want)
		}
	}
	is("at first", clock.Now())
	for range 2 {
		_ = insertDisk(t.Context(), c) // it is refused
		if c.Now().Equal(theirs) {
			break
		}
		is("after an answer without a date", clock.Now())
	}
	is("after an answer", theirs)
	clock.After(time.Hour)
	is("an hour later", theirs.Add(time.Hour))
	_ = insertDisk(t.Context(), c) // it is refused
	is("after another answer without a date", theirs.Add(time.Hour))
}
