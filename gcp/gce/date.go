package gce

import (
	"net/http"
	"sync"
	"time"
)

// dated is a connection that remembers the time that answers carry in their
// header Date: it is the service's, whatever this machine's clock says.
type dated struct {
	next  http.RoundTripper
	clock Clock

	mu   sync.Mutex
	said time.Time // by the last answer; zero before the first
	at   time.Time // when that came, by clock
}

// RoundTrip implements [http.RoundTripper].
func (d *dated) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if said, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.said, d.at = said, d.clock.Now()
	}
	return resp, nil
}

func (d *dated) now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock.Now()
	if d.said.IsZero() {
		return now
	}
	return d.said.Add(now.Sub(d.at))
}

// Now is the time by Compute Engine's clock, as the header Date of its last answer
// told it: behind by a second, and what the answer took, at most. Its timestamps
// are by that clock, and so are those of instances that keep their time as Google
// asks them to. Before the first answer it is the time of Options.Clock.
func (c *Client) Now() time.Time { return c.dated.now() }
