package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects   = 10
	maxHeaderBytes = 64 << 10
	userAgent      = "bigdisk"
)

// httpFetcher gets the objects of a binary cache on a web server.
type httpFetcher struct {
	base   *url.URL // without user and password
	client *http.Client
	stall  time.Duration
	// version tells from a response's header which state of an object it is.
	version func(http.Header) string
}

// newHTTPFetcher returns a fetcher below base, whose user and password are for
// that server alone.
func newHTTPFetcher(base *url.URL, rc *netrc, opts *Options) *httpFetcher {
	user := base.User
	clean := *base
	clean.User = nil
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConnsPerHost:    opts.Requests,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		// A connection that died must not take every later request with it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: opts.StallTimeout / 2, PingTimeout: opts.StallTimeout / 2},
	}
	return &httpFetcher{
		base:    &clean,
		stall:   opts.StallTimeout,
		version: etag,
		client: &http.Client{
			Transport:     &authTransport{next: transport, base: &clean, user: user, netrc: rc},
			CheckRedirect: checkRedirect,
		},
	}
}

// errRedirect is wrapped when a redirect is not followed.
var errRedirect = errors.New("redirect not followed")

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return fmt.Errorf("%w: to %q, which is neither http nor https", errRedirect, clip(req.URL.Redacted()))
	}
	return nil
}

// fetch implements fetcher.
func (f *httpFetcher) fetch(ctx context.Context, name string, from position) (*object, error) {
	target, err := f.resolve(name)
	if err != nil {
		return nil, err
	}
	return f.get(ctx, target, from)
}

// get opens what is at that URL.
func (f *httpFetcher) get(ctx context.Context, target *url.URL, from position) (*object, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	if from.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from.offset))
		if from.version != "" {
			req.Header.Set("If-Range", from.version)
		}
	}
	dog := &watchdog{limit: f.stall, cancel: cancel}
	dog.wake()
	resp, err := f.client.Do(req)
	dog.rest()
	if err != nil {
		err = requestError(ctx, err)
		cancel(nil)
		return nil, err
	}
	o, err := f.object(resp, from)
	if err != nil {
		resp.Body.Close()
		cancel(nil)
		return nil, err
	}
	o.body = &httpBody{ctx: ctx, body: resp.Body, dog: dog}
	return o, nil
}

// resolve says where the object of that name is: narinfos may give a whole URL.
func (f *httpFetcher) resolve(name string) (*url.URL, error) {
	if strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://") {
		return url.Parse(name)
	}
	return url.Parse(strings.TrimSuffix(f.base.String(), "/") + "/" + strings.TrimPrefix(name, "/"))
}

// object reads the head of a response.
func (f *httpFetcher) object(resp *http.Response, from position) (*object, error) {
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, fmt.Errorf("the server sends it with Content-Encoding %q, which was not asked for", clip(e))
	}
	o := &object{size: -1, version: f.version(resp.Header)}
	switch resp.StatusCode {
	case http.StatusOK:
		o.size = resp.ContentLength
		return o, nil
	case http.StatusPartialContent:
		var err error
		o.offset, o.size, err = parseContentRange(resp.Header.Get("Content-Range"))
		return o, err
	case http.StatusRequestedRangeNotSatisfiable:
		if from.offset > 0 {
			return nil, errChanged
		}
	}
	return nil, statusError(resp)
}

// etag is the version that a web server gives, if it stands for the same bytes.
func etag(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return ""
}

// parseContentRange reads "bytes FIRST-LAST/SIZE"; the size is -1 if unknown.
func parseContentRange(s string) (offset, size int64, err error) {
	bad := fmt.Errorf("the server sends the Content-Range %q", clip(s))
	span, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, _, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 || !strings.HasPrefix(s, "bytes ") {
		return 0, 0, bad
	}
	if offset, err = strconv.ParseInt(first, 10, 64); err != nil || offset < 0 {
		return 0, 0, bad
	}
	if total == "*" {
		return offset, -1, nil
	}
	if size, err = strconv.ParseInt(total, 10, 64); err != nil || size < offset {
		return 0, 0, bad
	}
	return offset, size, nil
}

// statusError says what a status means. 403 is what S3 says of objects that
// are not there, so Nix takes it for that, too.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("HTTP status %s", clip(resp.Status))
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound, code == http.StatusGone:
		return ErrNotFound
	case code == http.StatusForbidden:
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: it needs credentials, or others: put them into ~/.netrc, or for a bucket run \"gcloud auth application-default login\"", err)
	case code == http.StatusNotImplemented, code == http.StatusHTTPVersionNotSupported,
		code == http.StatusNetworkAuthenticationRequired:
		return err
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return &transientError{err: err, after: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return err
}

// retryAfter reads seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// requestError sorts out why there was no response.
func requestError(ctx context.Context, err error) error {
	if stalled := (errStalled{}); errors.As(context.Cause(ctx), &stalled) {
		return &transientError{err: stalled}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e := (*url.Error)(nil); errors.As(err, &e) {
		err = e.Err // the caller knows the URL
	}
	var (
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		dns     *net.DNSError
		dial    *net.OpError
	)
	switch {
	case errors.Is(err, errRedirect), errors.As(err, &cert), errors.As(err, &unknown):
		return err
	case errors.As(err, &dns) && dns.IsNotFound:
		return err
	case errors.As(err, &dial) && dial.Op == "dial":
		return &transientError{err: err, unreachable: true}
	}
	return &transientError{err: err}
}

// httpBody is a response's body whose errors say whether to try again.
type httpBody struct {
	ctx  context.Context
	body io.ReadCloser
	dog  *watchdog
}

// Read implements io.Reader.
func (b *httpBody) Read(p []byte) (int, error) {
	b.dog.wake()
	n, err := b.body.Read(p)
	b.dog.rest()
	if err == nil || err == io.EOF {
		return n, err
	}
	if stalled := (errStalled{}); errors.As(context.Cause(b.ctx), &stalled) {
		return n, &transientError{err: stalled}
	}
	return n, &transientError{err: err}
}

// Close implements io.Closer.
func (b *httpBody) Close() error {
	b.dog.rest()
	b.dog.cancel(nil)
	return b.body.Close()
}

// watchdog cancels what has been waited for too long.
type watchdog struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (w *watchdog) wake() {
	if w.timer == nil {
		w.timer = time.AfterFunc(w.limit, func() { w.cancel(errStalled{w.limit}) })
		return
	}
	w.timer.Reset(w.limit)
}

func (w *watchdog) rest() { w.timer.Stop() }

// close implements fetcher.
func (f *httpFetcher) close() error {
	f.client.CloseIdleConnections()
	return nil
}
