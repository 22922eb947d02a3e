package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/bucket/buckettest"
)

const name = "images"

// client returns a client of the server that STORAGE_EMULATOR_HOST names, which
// does not wait long between attempts.
func client(t testing.TB, transport http.RoundTripper) *bucket.Client {
	t.Helper()
	c, err := bucket.New(t.Context(), bucket.Options{Transport: transport, Delay: time.Millisecond, Budget: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestReadWrite(t *testing.T) {
	buckettest.New(t, name)
	c, ctx := client(t, nil), t.Context()
	if _, _, err := c.Read(ctx, name, "state"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("read before the first write: %v", err)
	}
	first, err := c.WriteIf(ctx, name, "state", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteIf(ctx, name, "state", []byte("other"), 0); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("made twice: %v", err)
	}
	second, err := c.WriteIf(ctx, name, "state", []byte("two"), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteIf(ctx, name, "state", []byte("late"), first); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("an old generation replaced: %v", err)
	}
	data, generation, err := c.Read(ctx, name, "state")
	if err != nil || string(data) != "two" || generation != second || first == second {
		t.Errorf("read %q in generation %d, %v; want \"two\" in %d", data, generation, err, second)
	}
	if _, err := c.WriteIf(ctx, name, "gone", []byte("x"), first); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("an object that is not there replaced: %v", err)
	}
}

func TestNoBucket(t *testing.T) {
	buckettest.New(t)
	c := client(t, nil)
	_, err := c.WriteIf(t.Context(), "nowhere", "state", nil, 0)
	if !errors.Is(err, bucket.ErrNotFound) || !strings.Contains(err.Error(), "gs://nowhere/state") {
		t.Errorf("write to no bucket: %v", err)
	}
	if _, err := c.List(t.Context(), "nowhere", ""); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("list of no bucket: %v", err)
	}
}

// Of many who count, none loses another's step.
func TestNoLostUpdate(t *testing.T) {
	s := buckettest.New(t, name)
	r := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	c := client(t, &buckettest.Transport{Fault: func(int, *http.Request) buckettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		return anyFault(r, 10)
	}})
	const writers, steps = 4, 10
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range steps {
				if err := increment(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := len(s.Get(t, name, "count")); got != writers*steps {
		t.Errorf("%d steps were counted, not %d", got, writers*steps)
	}
}

// increment makes the object a byte longer.
func increment(ctx context.Context, c *bucket.Client) error {
	for {
		data, generation, err := c.Read(ctx, name, "count")
		if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return err
		}
		_, err = c.WriteIf(ctx, name, "count", append(data, '.'), generation)
		if !errors.Is(err, bucket.ErrPrecondition) {
			return err
		}
	}
}

// anyFault is one in percent of the cases.
func anyFault(r *rand.Rand, percent int) buckettest.Fault {
	if r.IntN(100) >= percent {
		return buckettest.None
	}
	return []buckettest.Fault{buckettest.Refused, buckettest.Reset, buckettest.Lost}[r.IntN(3)]
}

// A write whose reply is lost succeeds at once, and is there once.
func TestLostReply(t *testing.T) {
	s := buckettest.New(t, name)
	transport := &buckettest.Transport{Fault: func(n int, _ *http.Request) buckettest.Fault {
		if n == 1 {
			return buckettest.Lost
		}
		return buckettest.None
	}}
	generation, err := client(t, transport).WriteIf(t.Context(), name, "lock", []byte("me"), 0)
	if err != nil {
		t.Fatal(err)
	}
	data, there, err := client(t, nil).Read(t.Context(), name, "lock")
	if err != nil || there != generation || string(data) != "me" {
		t.Errorf("%q in generation %d, %v; the write said %d", data, there, err, generation)
	}
	// The same bytes from somebody else are not one's own write.
	s.Put(name, "other", []byte("me"), nil)
	if _, err := client(t, nil).WriteIf(t.Context(), name, "other", []byte("me"), 0); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("somebody else's object was taken for one's own: %v", err)
	}
}

// A write that was lost and overwritten is known to have happened, and its
// writer cannot overwrite the other.
func TestSuperseded(t *testing.T) {
	buckettest.New(t, name)
	other := client(t, nil)
	if _, err := other.WriteIf(t.Context(), name, "state", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	_, generation, err := other.Read(t.Context(), name, "state")
	if err != nil {
		t.Fatal(err)
	}
	lost := false
	transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil || lost || r.Method != http.MethodPost {
			return resp, err
		}
		lost = true
		resp.Body.Close()
		_, now, err := other.Read(t.Context(), name, "state")
		if err == nil {
			_, err = other.WriteIf(t.Context(), name, "state", []byte("2"), now)
		}
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	})
	c := client(t, transport)
	got, err := c.WriteIf(t.Context(), name, "state", []byte("1"), generation)
	if err != nil || got != bucket.Superseded {
		t.Errorf("generation %d, %v", got, err)
	}
	if _, err := c.WriteIf(t.Context(), name, "state", []byte("3"), got); !errors.Is(err, bucket.ErrPrecondition) {
		t.Errorf("a write on top of a superseded one: %v", err)
	}
}

func TestListDelete(t *testing.T) {
	s := buckettest.New(t, name)
	for _, object := range []string{"a/2", "a/1", "b", "a.b"} {
		s.Put(name, object, []byte(object), map[string]string{"k": "v"})
	}
	c := client(t, nil)
	list, err := c.List(t.Context(), name, "a/")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "a/1" || list[1].Name != "a/2" || list[0].Size != 3 || list[0].Metadata["k"] != "v" {
		t.Errorf("listed %+v", list)
	}
	if err := c.Delete(t.Context(), name, "a/1", list[0].Generation+1); err != nil {
		t.Errorf("deleting a generation that is gone: %v", err)
	}
	if got := strings.Join(s.Objects(t, name), " "); !strings.Contains(got, "a/1") {
		t.Errorf("another generation was deleted; left: %s", got)
	}
	for range 2 {
		if err := c.Delete(t.Context(), name, "a/1", list[0].Generation); err != nil {
			t.Error(err)
		}
	}
	if err := c.Delete(t.Context(), name, "b", 0); err != nil {
		t.Error(err)
	}
	if got := s.Objects(t, name); len(got) != 2 {
		t.Errorf("left: %q", got)
	}
}

func TestCreate(t *testing.T) {
	s := buckettest.New(t, name)
	c := client(t, nil)
	for i, want := range []bool{false, true} {
		attrs, found, err := c.Create(t.Context(), name, "manifest", []byte("{}"), "application/json")
		if err != nil || found != want || attrs.Size != 2 {
			t.Errorf("time %d: found %v, %v", i, found, err)
		}
	}
	_, _, err := c.Create(t.Context(), name, "manifest", []byte("[]"), "application/json")
	if !errors.Is(err, bucket.ErrExists) || string(s.Get(t, name, "manifest")) != "{}" {
		t.Errorf("other contents: %v", err)
	}
}

func TestReaderAt(t *testing.T) {
	s := buckettest.New(t, name)
	want := make([]byte, 20_000_000)
	rand.NewChaCha8([32]byte{3}).Read(want)
	s.Put(name, "image", want, nil)
	r := rand.New(rand.NewPCG(5, 6))
	c := client(t, &buckettest.Transport{Fault: func(int, *http.Request) buckettest.Fault { return anyFault(r, 30) }})
	o, err := c.OpenReaderAt(t.Context(), name, "image")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct {
		off  int64
		n, m int
		err  error
	}{
		{0, 10, 10, nil}, {12_345_678, 70_000, 70_000, nil}, {19_999_990, 10, 10, nil},
		{19_999_990, 11, 10, io.EOF}, {20_000_000, 1, 0, io.EOF}, {1 << 40, 5, 0, io.EOF}, {7, 0, 0, nil},
	} {
		p := make([]byte, at.n)
		n, err := o.ReadAt(p, at.off)
		if n != at.m || err != at.err || n > 0 && !bytes.Equal(p[:n], want[at.off:at.off+int64(n)]) {
			t.Errorf("%d bytes at %d: %d, %v", at.n, at.off, n, err)
		}
	}
	if _, err := o.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the start")
	}
	all, _, err := c.Open(t.Context(), name, "image")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if got, err := io.ReadAll(all); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	s.Put(name, "image", []byte("another"), nil)
	if _, err := o.ReadAt(make([]byte, 5), 0); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("a replaced object: %v", err)
	}
}

// What is not there any better after a minute is not asked for again.
func TestGiveUp(t *testing.T) {
	buckettest.New(t, name)
	for status, attempts := range map[int]int{403: 1, 401: 1, 400: 1, 503: 2, 429: 2, 408: 2, 500: 2} {
		n := 0
		transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			n++
			body := fmt.Sprintf(`{"error":{"code":%d,"message":"because"}}`, status)
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})
		c, err := bucket.New(t.Context(), bucket.Options{Transport: transport, Delay: time.Millisecond, Budget: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.Read(t.Context(), name, "x")
		if err == nil || n < attempts || attempts == 1 && n > 1 || !strings.Contains(err.Error(), "gs://images/x") {
			t.Errorf("status %d: %d attempts, %v", status, n, err)
		}
	}
}

// A server that does not answer is asked again.
func TestNoAnswer(t *testing.T) {
	s := buckettest.New(t, name)
	var asked atomic.Int32
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		if asked.Add(1)%3 != 0 {
			r = r.Clone(r.Context())
			r.URL.Host = strings.TrimPrefix(silent.URL, "http://")
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	c, err := bucket.New(t.Context(), bucket.Options{Transport: transport, Delay: time.Millisecond, Attempt: 20 * time.Millisecond, Budget: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := c.Upload(t.Context(), name, object, &content{identity: "x", parts: 3}, bucket.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, s, &content{identity: "x", parts: 3})
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestParseURL(t *testing.T) {
	for url, want := range map[string][2]string{
		"gs://b": {"b", ""}, "gs://b/": {"b", ""}, "gs://b/o": {"b", "o"}, "gs://my.bucket-1/a/b/": {"my.bucket-1", "a/b/"},
	} {
		b, o, err := bucket.ParseURL(url)
		if err != nil || b != want[0] || o != want[1] {
			t.Errorf("%s: %q, %q, %v", url, b, o, err)
		}
	}
	for _, url := range []string{"", "b", "gs:/b", "gs://", "gs:///o", "s3://b", "https://b/o", "gs://user@b/o", "gs://b?x/o", "gs://b:80/o"} {
		if b, o, err := bucket.ParseURL(url); err == nil {
			t.Errorf("%s: %q, %q", url, b, o)
		}
	}
}

func ExampleClient_WriteIf() {
	ctx := context.Background()
	c, err := bucket.New(ctx, bucket.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	state, generation, err := c.Read(ctx, "nixmodules-images", "state/rollout.json")
	if err != nil {
		log.Fatal(err)
	}
	state = append(state, '\n')
	_, err = c.WriteIf(ctx, "nixmodules-images", "state/rollout.json", state, generation)
	if errors.Is(err, bucket.ErrPrecondition) {
		log.Fatal("somebody else was faster: read again")
	}
}
