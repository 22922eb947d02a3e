// Package buckettest is Cloud Storage for tests: fake-gcs-server, a real server
// over HTTP, with the checks that it leaves out, and a transport that loses and
// refuses requests.
//
// fake-gcs-server checks generations and checksums on multipart uploads, and
// the generation named in a delete. It does not look at preconditions on
// compose and delete, nor at the generations of a compose's sources: the server
// here does, with the statuses that Google documents in "Request
// preconditions".
package buckettest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

// Server is a Cloud Storage server.
type Server struct {
	// URL is what STORAGE_EMULATOR_HOST has to be; "" for one that was made by
	// [NewHandler].
	URL string

	fake *fakestorage.Server
	mu   sync.Mutex // one change at a time, so that a check holds until it is made
}

// NewHandler makes a server with those buckets that listens nowhere: it is an
// [http.Handler].
func NewHandler(buckets ...string) (*Server, error) {
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true})
	if err != nil {
		return nil, fmt.Errorf("make a Cloud Storage server: %w", err)
	}
	for _, name := range buckets {
		fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
	}
	return &Server{fake: fake}, nil
}

// New starts a server with those buckets, and points STORAGE_EMULATOR_HOST at
// it until the test ends.
func New(t testing.TB, buckets ...string) *Server {
	t.Helper()
	s := Start(t, buckets...)
	t.Setenv("STORAGE_EMULATOR_HOST", s.URL)
	return s
}

// Start starts a server with those buckets, for tests that run beside others: it
// is theirs to point STORAGE_EMULATOR_HOST of other processes at it.
func Start(t testing.TB, buckets ...string) *Server {
	t.Helper()
	s, err := NewHandler(buckets...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Objects returns the names of a bucket's objects.
func (s *Server) Objects(t testing.TB, bucket string) []string {
	t.Helper()
	list, _, err := s.fake.ListObjects(bucket, "", "", false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range list {
		names = append(names, o.Name)
	}
	return names
}

// Get returns an object's bytes, which must exist.
func (s *Server) Get(t testing.TB, bucket, object string) []byte {
	t.Helper()
	o, err := s.fake.GetObject(bucket, object)
	if err != nil {
		t.Fatalf("%s/%s: %v", bucket, object, err)
	}
	return o.Content
}

// Put makes or replaces an object, as somebody else would.
func (s *Server) Put(bucket, object string, data []byte, metadata map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fake.CreateObject(fakestorage.Object{
		ObjectAttrs: fakestorage.ObjectAttrs{BucketName: bucket, Name: object, Metadata: metadata}, Content: data,
	})
}

// generation returns an object's generation, 0 if there is none.
func (s *Server) generation(bucket, object string) int64 {
	o, err := s.fake.GetObject(bucket, object)
	if err != nil {
		return 0
	}
	return o.Generation
}

// ServeHTTP checks a request before fake-gcs-server gets it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		s.fake.HTTPHandler().ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	if status, why := s.check(r, body); status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"code":%d,"message":%q}}`, status, why)
		return
	}
	s.fake.HTTPHandler().ServeHTTP(w, r)
}

var (
	composePath = regexp.MustCompile(`^/storage/v1/b/([^/]+)/o/(.+)/compose$`)
	objectPath  = regexp.MustCompile(`^/storage/v1/b/([^/]+)/o/([^/]+)$`)
)

// check returns the status that a request is refused with, or 0.
func (s *Server) check(r *http.Request, body []byte) (status int, why string) {
	path := r.URL.EscapedPath()
	if m := composePath.FindStringSubmatch(path); m != nil && r.Method == http.MethodPost {
		bucket, object := unescape(m[1]), unescape(m[2])
		if status, why := s.precondition(r, bucket, object); status != 0 {
			return status, why
		}
		return s.checkSources(bucket, body)
	}
	if m := objectPath.FindStringSubmatch(path); m != nil && r.Method == http.MethodDelete {
		return s.precondition(r, unescape(m[1]), unescape(m[2]))
	}
	return 0, ""
}

func unescape(s string) string {
	plain, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return plain
}

// precondition checks ifGenerationMatch.
func (s *Server) precondition(r *http.Request, bucket, object string) (status int, why string) {
	q := r.URL.Query()
	if !q.Has("ifGenerationMatch") {
		return 0, ""
	}
	want, err := strconv.ParseInt(q.Get("ifGenerationMatch"), 10, 64)
	if err != nil {
		return http.StatusBadRequest, "invalid ifGenerationMatch"
	}
	if s.generation(bucket, object) != want {
		return http.StatusPreconditionFailed, "At least one of the pre-conditions you specified did not hold."
	}
	return 0, ""
}

// checkSources checks what a compose call names.
func (s *Server) checkSources(bucket string, body []byte) (status int, why string) {
	var request struct {
		SourceObjects []struct {
			Name       string
			Generation int64 `json:",string"`
		}
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return http.StatusBadRequest, err.Error()
	}
	if n := len(request.SourceObjects); n < 1 || n > 32 {
		return http.StatusBadRequest, fmt.Sprintf("%d source objects", n)
	}
	for _, source := range request.SourceObjects {
		have := s.generation(bucket, source.Name)
		if have == 0 || source.Generation != 0 && source.Generation != have {
			return http.StatusNotFound, fmt.Sprintf("No such object: %s/%s#%d", bucket, source.Name, source.Generation)
		}
	}
	return 0, ""
}
