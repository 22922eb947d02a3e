package source_test

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
)

// TestS3 runs the sources' suite over a server that speaks S3, with a signature
// on every request, and none where there are no credentials.
func TestS3(t *testing.T) {
	for _, anonymous := range []bool{false, true} {
		for spec, prefix := range map[string]string{"s3://cache": "", "s3://cache/a b/nix": "a b/nix/"} {
			t.Run(strings.ReplaceAll(spec, "/", "_"), func(t *testing.T) {
				key := sourcetest.NewKey("test-1")
				var wrong atomic.Int64
				sourcetest.Run(t, func(t *testing.T, m *sourcetest.Memory) source.Source {
					backend := s3mem.New()
					server := httptest.NewServer(signed(gofakes3.New(backend).Server(), anonymous, &wrong))
					t.Cleanup(server.Close)
					setAWS(t, server.URL, anonymous)
					putS3(t, backend, m, prefix, key)
					s, err := source.Parse(spec, source.Options{Keys: key.Keys(t)})
					if err != nil {
						t.Fatal(err)
					}
					return s
				})
				if n := wrong.Load(); n > 0 {
					t.Errorf("%d requests were signed, or not, against what was to be", n)
				}
			})
		}
	}
}

// signed counts the requests that have a signature where there should be none,
// or have none.
func signed(next http.Handler, anonymous bool, wrong *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		has := strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIATEST/") && strings.Contains(auth, "/eu-west-1/s3/aws4_request")
		if has == anonymous {
			wrong.Add(1)
		}
		next.ServeHTTP(w, r)
	})
}

func setAWS(t *testing.T, server string, anonymous bool) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server, "AWS_ENDPOINT_URL_S3": "", "AWS_REGION": "eu-west-1", "AWS_PROFILE": "", "AWS_SESSION_TOKEN": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
		"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret",
	} {
		t.Setenv(name, value)
	}
	if anonymous {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	}
}

// putS3 puts the files of a cache into the bucket.
func putS3(t *testing.T, backend gofakes3.Backend, m *sourcetest.Memory, prefix string, key sourcetest.Key) {
	t.Helper()
	if err := backend.CreateBucket("cache"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m.WriteCache(t, dir, "zstd", key)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		_, err = backend.PutObject("cache", prefix+name, nil, bytes.NewReader(data), int64(len(data)), nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
