package source

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ErrSpec is wrapped by errors about how a source is spelled.
var ErrSpec = errors.New("not a source of store paths")

// Parse makes a source of what --from names:
//
//	DIR                   a Nix store below that directory; / is this machine's
//	file:///DIR           a binary cache in a directory
//	http(s)://HOST[/PATH] a binary cache on a web server
//	gs://BUCKET[/PREFIX]  a binary cache in a bucket of Cloud Storage
//	s3://BUCKET[/PREFIX]  a binary cache in a bucket of S3
//
// A local store is opened at once; a binary cache is first asked when it is
// first used. Sources that are used together should share opts.Memory.
func Parse(spec string, opts Options) (Source, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	scheme, _, isURL := strings.Cut(spec, "://")
	if !isURL {
		return parseDir(spec)
	}
	u, err := url.Parse(spec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, redact(err))
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return nil, fmt.Errorf("%w: %s: leave out what follows the %q: parameters are not taken here", ErrSpec, u.Redacted(), u.Path)
	}
	switch scheme {
	case "file":
		return parseFile(spec, u, opts)
	case "http", "https":
		return parseHTTP(u, opts)
	case "gs":
		return parseBucket(u, opts, func(bucket, prefix string) (fetcher, error) { return newGCSFetcher(bucket, prefix, &opts) })
	case "s3":
		return parseBucket(u, opts, func(bucket, prefix string) (fetcher, error) {
			return newS3Fetcher(context.Background(), bucket, prefix, &opts)
		})
	}
	return nil, fmt.Errorf("%w: %q: there are DIR, file:///DIR, http://HOST, https://HOST, gs://BUCKET and s3://BUCKET", ErrSpec, u.Redacted())
}

// redact keeps the URL, and so any password, out of the error.
func redact(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return fmt.Errorf("malformed URL: %w", e.Err)
	}
	return err
}

func parseDir(spec string) (Source, error) {
	if spec == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrSpec)
	}
	d, err := OpenDir(spec)
	if err == nil {
		return d, nil
	}
	if _, statErr := os.Stat(spec); statErr != nil {
		return nil, fmt.Errorf("%w: %q is neither a directory nor starts with file://, http://, https://, gs:// or s3://: %w", ErrSpec, spec, errors.Unwrap(statErr))
	}
	return nil, err
}

func parseFile(spec string, u *url.URL, opts Options) (Source, error) {
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return nil, fmt.Errorf("%w: %q: a directory's URL has three slashes and the whole path: file:///DIR", ErrSpec, spec)
	}
	return newCache(spec, &fileFetcher{dir: filepath.Clean(u.Path)}, opts, true), nil
}

func parseHTTP(u *url.URL, opts Options) (Source, error) {
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%w: %q has no host", ErrSpec, u.Redacted())
	}
	rc, err := loadNetrc(opts.Netrc)
	if err != nil {
		return nil, err
	}
	// A user name may be a token, so it is not shown either.
	clean := *u
	clean.User = nil
	return newCache(clean.String(), newHTTPFetcher(u, rc, &opts), opts, false), nil
}

func parseBucket(u *url.URL, opts Options, open func(bucket, prefix string) (fetcher, error)) (Source, error) {
	if u.Host == "" || u.Host != u.Hostname() || u.User != nil {
		return nil, fmt.Errorf("%w: %q: a bucket's URL is %s://BUCKET or %s://BUCKET/PREFIX", ErrSpec, u.Redacted(), u.Scheme, u.Scheme)
	}
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	f, err := open(u.Host, prefix)
	if err != nil {
		return nil, err
	}
	return newCache(u.String(), f, opts, false), nil
}
