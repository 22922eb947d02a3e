package buckettest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
)

// Fault is what happens to a request.
type Fault int

const (
	// None lets the request through.
	None Fault = iota
	// Refused answers 503; the server does not see the request.
	Refused
	// Reset loses the connection; the server does not see the request.
	Reset
	// Lost loses the connection after the server has answered.
	Lost
)

// Transport carries requests and lets things happen to them.
type Transport struct {
	// Fault, if not nil, decides on the nth request, counted from 1.
	Fault func(n int, r *http.Request) Fault

	mu    sync.Mutex
	count int
}

// Count returns how many requests there were.
func (t *Transport) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	t.count++
	n := t.count
	t.mu.Unlock()
	fault := None
	if t.Fault != nil {
		fault = t.Fault(n, r)
	}
	switch fault {
	case Refused:
		drop(r)
		return respond(r, http.StatusServiceUnavailable), nil
	case Reset:
		drop(r)
		return nil, syscall.ECONNRESET
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if fault == Lost && err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return nil, errors.Join(syscall.ECONNRESET, err, resp.Body.Close())
	}
	return resp, err
}

// drop closes a request's body, as a transport has to.
func drop(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

func respond(r *http.Request, status int) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: make(http.Header), Body: io.NopCloser(strings.NewReader("")),
	}
}

// Replace returns the request with each old in its body replaced by new, which
// must be as long.
func Replace(r *http.Request, old, new string) (*http.Request, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if len(old) != len(new) {
		return nil, errors.New("replacement of another length")
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(bytes.ReplaceAll(body, []byte(old), []byte(new))))
	return r, nil
}

// RoundTripFunc is a transport.
type RoundTripFunc func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f RoundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
