package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

const (
	gcsEndpoint     = "https://storage.googleapis.com"
	gcsScope        = "https://www.googleapis.com/auth/devstorage.read_only"
	gcsEmulatorHost = "STORAGE_EMULATOR_HOST"
	gcsGeneration   = "X-Goog-Generation"
)

// gcsFetcher gets the objects of a binary cache in a bucket of Cloud Storage,
// with "Objects: get" of its JSON API.
type gcsFetcher struct {
	http           *httpFetcher
	bucket, prefix string
}

// newGCSFetcher returns a fetcher of objects whose names begin with prefix. It
// uses the Application Default Credentials if there are any, and asks without
// where there are not, as is enough for a public bucket. The environment
// variable STORAGE_EMULATOR_HOST names another server, which is asked without.
func newGCSFetcher(bucket, prefix string, opts *Options) (*gcsFetcher, error) {
	base, emulator, err := gcsBase()
	if err != nil {
		return nil, err
	}
	f := newHTTPFetcher(base, &netrc{}, opts)
	f.version = func(h http.Header) string { return h.Get(gcsGeneration) }
	if !emulator {
		authorize(f.client, opts)
	}
	return &gcsFetcher{http: f, bucket: bucket, prefix: prefix}, nil
}

// gcsBase says which server to ask.
func gcsBase() (base *url.URL, emulator bool, err error) {
	host := os.Getenv(gcsEmulatorHost)
	if host == "" {
		base, err = url.Parse(gcsEndpoint)
		return base, false, err
	}
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	if base, err = url.Parse(host); err != nil || base.Host == "" {
		return nil, false, fmt.Errorf("the environment variable %s is not a server: %q", gcsEmulatorHost, host)
	}
	return base, true, nil
}

// authorize adds a token to each request. Nothing else is asked through this
// client, and the server does not redirect.
func authorize(client *http.Client, opts *Options) {
	tokens, err := google.DefaultTokenSource(context.Background(), gcsScope)
	if err != nil {
		opts.Logger.Debug("asking Cloud Storage without credentials", "reason", err)
		return
	}
	client.Transport = &oauthTransport{oauth2.Transport{Source: tokens, Base: client.Transport}}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
}

// oauthTransport is an oauth2.Transport that http.Client can close.
type oauthTransport struct{ oauth2.Transport }

// CloseIdleConnections is what http.Client looks for.
func (t *oauthTransport) CloseIdleConnections() {
	if base, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// fetch implements fetcher. An object is received further in the generation in
// which it was opened.
func (g *gcsFetcher) fetch(ctx context.Context, name string, from position) (*object, error) {
	if strings.Contains(name, "://") {
		return nil, fmt.Errorf("%q is not an object in the bucket", clip(name))
	}
	target := *g.http.base
	path := "/storage/v1/b/" + g.bucket + "/o/"
	target.Path, target.RawPath = path+g.prefix+name, path+url.PathEscape(g.prefix+name)
	query := url.Values{"alt": {"media"}}
	if from.offset > 0 && from.version != "" {
		query.Set("generation", from.version)
	}
	target.RawQuery = query.Encode()
	o, err := g.http.get(ctx, &target, position{offset: from.offset})
	if errors.Is(err, ErrNotFound) && from.offset > 0 {
		return nil, errChanged
	}
	return o, err
}

// close implements fetcher.
func (g *gcsFetcher) close() error { return g.http.close() }
