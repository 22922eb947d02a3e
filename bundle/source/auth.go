package source

import (
	"net/http"
	"net/url"
	"strings"
)

// authTransport adds credentials to each request by where it goes to, so that
// a redirect to another host takes none along.
type authTransport struct {
	next  *http.Transport
	base  *url.URL
	user  *url.Userinfo // for base alone
	netrc *netrc
}

// RoundTrip implements http.RoundTripper.
func (a *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if login, password, ok := a.credentials(req.URL); ok {
		req = req.Clone(req.Context())
		req.SetBasicAuth(login, password)
	}
	return a.next.RoundTrip(req)
}

// credentials returns those of the cache for the cache's own server, and those
// that the netrc has under another host's name for that host, if the
// connection to it is encrypted.
func (a *authTransport) credentials(to *url.URL) (login, password string, ok bool) {
	own := to.Scheme == a.base.Scheme && strings.EqualFold(to.Host, a.base.Host)
	if own && a.user != nil {
		password, _ = a.user.Password()
		return a.user.Username(), password, true
	}
	if !own && to.Scheme != "https" {
		return "", "", false
	}
	return a.netrc.find(to.Hostname(), own)
}

// CloseIdleConnections is what http.Client looks for.
func (a *authTransport) CloseIdleConnections() { a.next.CloseIdleConnections() }
