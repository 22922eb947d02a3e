package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// s3DefaultRegion is the region of a bucket when nobody says another, as it is
// for Nix.
const s3DefaultRegion = "us-east-1"

// s3Fetcher gets the objects of a binary cache in a bucket of S3, or of a
// server that speaks its protocol, with GetObject.
type s3Fetcher struct {
	http   *httpFetcher
	path   string // of the bucket on the server, with a slash at its end
	prefix string
}

// newS3Fetcher returns a fetcher of objects whose names begin with prefix.
// Credentials, region and another server come from where AWS's own tools take
// them: the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_REGION,
// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, …), the files in ~/.aws, or the
// instance. Without credentials it asks without, as is enough for a public
// bucket.
func newS3Fetcher(ctx context.Context, bucket, prefix string, opts *Options) (*s3Fetcher, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("settings for S3: %w", err)
	}
	region := cmp.Or(settings.Region, s3DefaultRegion)
	base := &url.URL{Scheme: "https", Host: bucket + ".s3." + region + ".amazonaws.com"}
	path := "/"
	if server := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), aws.ToString(settings.BaseEndpoint)); server != "" {
		if base, err = url.Parse(server); err != nil || base.Host == "" {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL is not a server: %q", server)
		}
		path = strings.TrimSuffix(base.Path, "/") + "/" + bucket + "/"
	}
	f := newHTTPFetcher(base, &netrc{}, opts)
	f.client.Transport = &s3Transport{
		next: f.client.Transport, region: region, credentials: settings.Credentials, opts: opts,
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
	}
	f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return errS3Region }
	return &s3Fetcher{http: f, path: path, prefix: prefix}, nil
}

// errS3Region is what a redirection means.
var errS3Region = errors.New("the bucket is in another region: set AWS_REGION")

// fetch implements fetcher.
func (s *s3Fetcher) fetch(ctx context.Context, name string, from position) (*object, error) {
	if strings.Contains(name, "://") {
		return nil, fmt.Errorf("%q is not an object in the bucket", clip(name))
	}
	target := *s.http.base
	target.Path = s.path + s.prefix + name
	target.RawPath = s.path + strings.ReplaceAll(url.PathEscape(s.prefix+name), "%2F", "/")
	return s.http.get(ctx, &target, from)
}

// close implements fetcher.
func (s *s3Fetcher) close() error { return s.http.close() }

// s3Transport signs requests, if there is something to sign with.
type s3Transport struct {
	next        http.RoundTripper
	region      string
	credentials aws.CredentialsProvider
	signer      *v4.Signer
	opts        *Options
	once        sync.Once
	anonymous   bool
}

// RoundTrip implements http.RoundTripper.
func (t *s3Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	t.once.Do(func() {
		if _, err := t.retrieve(ctx); err != nil && ctx.Err() == nil {
			t.opts.Logger.Debug("asking S3 without credentials", "reason", err)
			t.anonymous = true
		}
	})
	if t.anonymous {
		return t.next.RoundTrip(r)
	}
	credentials, err := t.retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("credentials for S3: %w", err)
	}
	signed := r.Clone(ctx)
	empty := sha256.Sum256(nil)
	payload := hex.EncodeToString(empty[:])
	signed.Header.Set("X-Amz-Content-Sha256", payload)
	if err := t.signer.SignHTTP(ctx, credentials, signed, payload, "s3", t.region, time.Now()); err != nil {
		return nil, fmt.Errorf("signing a request to S3: %w", err)
	}
	return t.next.RoundTrip(signed)
}

func (t *s3Transport) retrieve(ctx context.Context) (aws.Credentials, error) {
	if t.credentials == nil {
		return aws.Credentials{}, errors.New("there are none")
	}
	return t.credentials.Retrieve(ctx)
}

// CloseIdleConnections is what http.Client looks for.
func (t *s3Transport) CloseIdleConnections() {
	if next, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}
