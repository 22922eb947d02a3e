package bucket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/bucket/buckettest"
)

const object = "disks/v1.tar.gz"

// content is parts of a few bytes each, and a tail that names all of them.
type content struct {
	identity string
	parts    int
	made     atomic.Int32
	fail     error
}

func (c *content) Identity() string     { return c.identity }
func (c *content) Parts() int           { return c.parts }
func (c *content) PartSize(i int) int64 { return int64(i%7 + 1) }

func (c *content) Part(_ context.Context, i int, buf []byte) ([]byte, string, error) {
	c.made.Add(1)
	return fmt.Appendf(buf[:0], "[%s part %d]", c.identity, i), fmt.Sprint(i), c.fail
}

// Join and Tail keep the first and last, so that each range has its own note.
func (c *content) Join(notes []string) (string, error) {
	first, _, _ := strings.Cut(notes[0], "-")
	last := notes[len(notes)-1]
	_, after, ok := strings.Cut(last, "-")
	if ok {
		last = after
	}
	return first + "-" + last, nil
}

func (c *content) Tail(note string) ([]byte, error) {
	return fmt.Appendf(nil, "[tail of %s]", note), nil
}

func (c *content) want() []byte {
	var b bytes.Buffer
	for i := range c.parts {
		fmt.Fprintf(&b, "[%s part %d]", c.identity, i)
	}
	fmt.Fprintf(&b, "[tail of 0-%d]", c.parts-1)
	return b.Bytes()
}

// progress adds up what was reported.
type progress struct{ n atomic.Int64 }

func (p *progress) options() bucket.UploadOptions {
	p.n.Store(0)
	return bucket.UploadOptions{
		ContentType: "application/gzip", Metadata: map[string]string{"mine": "kept"}, Parallel: 4,
		Progress: func(n int64) { p.n.Add(n) },
	}
}

func (p *progress) check(t *testing.T, c *content) {
	t.Helper()
	var want int64
	for i := range c.parts {
		want += c.PartSize(i)
	}
	if got := p.n.Load(); got != want {
		t.Errorf("progress of %d bytes, not %d", got, want)
	}
}

// checkWhole makes sure that the object is there, and nothing else.
func checkWhole(t *testing.T, s *buckettest.Server, c *content) {
	t.Helper()
	if got := s.Objects(t, name); len(got) != 1 || got[0] != object {
		t.Fatalf("there are %q", got)
	}
	if !bytes.Equal(s.Get(t, name, object), c.want()) {
		t.Error("the object has other bytes")
	}
}

func TestUpload(t *testing.T) {
	for _, parts := range []int{1, 31, 32, 33, 63, 31*32 + 1, 1100} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			s := buckettest.New(t, name)
			c, b, p := &content{identity: "one", parts: parts}, client(t, nil), new(progress)
			up, err := b.Upload(t.Context(), name, object, c, p.options())
			if err != nil {
				t.Fatal(err)
			}
			checkWhole(t, s, c)
			p.check(t, c)
			want := c.want()
			if up.Found || up.Parts != parts || up.Reused != 0 || up.Sent != int64(len(want)) || up.Size != up.Sent ||
				up.CRC32C != crc32.Checksum(want, crc32.MakeTable(crc32.Castagnoli)) || up.Metadata["mine"] != "kept" {
				t.Errorf("uploaded %+v", up)
			}
			again, err := b.Upload(t.Context(), name, object, c, p.options())
			if err != nil {
				t.Fatal(err)
			}
			p.check(t, c)
			if !again.Found || again.Generation != up.Generation || again.Sent != 0 || int(c.made.Load()) != parts {
				t.Errorf("the second run: %+v, %d parts made", again, c.made.Load())
			}
		})
	}
}

// However far a run got, the next one ends with the object and nothing else,
// and makes no part again that is there.
func TestKilledAnywhere(t *testing.T) {
	const parts = 35
	count := &buckettest.Transport{}
	buckettest.New(t, name)
	if _, err := client(t, count).Upload(t.Context(), name, object, &content{identity: "x", parts: parts}, bucket.UploadOptions{Parallel: 3}); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []buckettest.Fault{buckettest.Reset, buckettest.Lost} {
		for step := 1; step <= count.Count(); step++ {
			killed(t, step, fault, parts)
		}
	}
}

// killed ends a run at its nth request, and then has another one.
func killed(t *testing.T, step int, fault buckettest.Fault, parts int) {
	t.Helper()
	s := buckettest.New(t, name)
	ctx, cancel := context.WithCancel(t.Context())
	first := &content{identity: "x", parts: parts}
	transport := &buckettest.Transport{Fault: func(n int, _ *http.Request) buckettest.Fault {
		if n < step {
			return buckettest.None
		}
		if n > step {
			return buckettest.Reset
		}
		cancel()
		return fault
	}}
	if _, err := client(t, transport).Upload(ctx, name, object, first, bucket.UploadOptions{Parallel: 3}); err == nil {
		t.Errorf("step %d: the run went on", step)
	}
	left := 0
	for _, o := range s.Objects(t, name) {
		if strings.Contains(o, "/0-") {
			left++
		}
	}
	second := &content{identity: "x", parts: parts}
	up, err := client(t, nil).Upload(t.Context(), name, object, second, bucket.UploadOptions{Parallel: 3})
	if err != nil {
		t.Fatalf("step %d: %v", step, err)
	}
	checkWhole(t, s, second)
	if made := int(second.made.Load()); !up.Found && (made+up.Reused != parts || up.Reused < left) {
		t.Errorf("step %d: %d parts made and %d reused of %d, with %d left from before", step, made, up.Reused, parts, left)
	}
}

func TestFaults(t *testing.T) {
	for seed := range uint64(5) {
		s := buckettest.New(t, name)
		r, mu := rand.New(rand.NewPCG(seed, 0)), new(sync.Mutex)
		transport := &buckettest.Transport{Fault: func(int, *http.Request) buckettest.Fault {
			mu.Lock()
			defer mu.Unlock()
			return anyFault(r, 10)
		}}
		c, p := &content{identity: "faulty", parts: 200}, new(progress)
		if _, err := client(t, transport).Upload(t.Context(), name, object, c, p.options()); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s, c)
		p.check(t, c)
	}
}

// Several who upload the same at the same time all end with the one object.
func TestSameTime(t *testing.T) {
	s := buckettest.New(t, name)
	var group sync.WaitGroup
	for range 3 {
		b := client(t, nil)
		group.Go(func() {
			_, err := b.Upload(t.Context(), name, object, &content{identity: "same", parts: 100}, bucket.UploadOptions{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if _, err := client(t, nil).Upload(t.Context(), name, object, &content{identity: "same", parts: 100}, bucket.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, s, &content{identity: "same", parts: 100})
}

// What somebody else has put there stays.
func TestNotOverwritten(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		s := buckettest.New(t, name)
		s.Put(name, object, []byte("theirs"), nil)
		c := &content{identity: "mine", parts: 3}
		_, err := client(t, nil).Upload(t.Context(), name, object, c, bucket.UploadOptions{})
		checkTheirs(t, s, err)
		if c.made.Load() > 0 {
			t.Error("parts were made in vain")
		}
	})
	t.Run("meanwhile", func(t *testing.T) {
		s := buckettest.New(t, name)
		transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, object+"/compose") {
				if r.URL.Query().Get("ifGenerationMatch") != "0" {
					t.Error("composed without a condition")
				}
				s.Put(name, object, []byte("theirs"), nil)
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		_, err := client(t, transport).Upload(t.Context(), name, object, &content{identity: "mine", parts: 40}, bucket.UploadOptions{})
		checkTheirs(t, s, err)
	})
	t.Run("other image", func(t *testing.T) {
		buckettest.New(t, name)
		b := client(t, nil)
		if _, err := b.Upload(t.Context(), name, object, &content{identity: "old", parts: 3}, bucket.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Upload(t.Context(), name, object, &content{identity: "new", parts: 3}, bucket.UploadOptions{})
		if !errors.Is(err, bucket.ErrExists) || !strings.Contains(err.Error(), "it is old, not new") {
			t.Errorf("got %v", err)
		}
	})
}

func checkTheirs(t *testing.T, s *buckettest.Server, err error) {
	t.Helper()
	if !errors.Is(err, bucket.ErrExists) || !strings.Contains(err.Error(), "gs://images/"+object) {
		t.Errorf("got %v", err)
	}
	if got := s.Get(t, name, object); string(got) != "theirs" {
		t.Errorf("it was overwritten: %q", got)
	}
}

// Every write, also of a part, says which state it expects, and every source of
// a compose names its generation.
func TestConditions(t *testing.T) {
	buckettest.New(t, name)
	transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodPost && q.Get("ifGenerationMatch") != "0":
			t.Errorf("%s without a condition", r.URL)
		case r.Method == http.MethodDelete && !q.Has("generation"):
			t.Errorf("%s without a generation", r.URL)
		case strings.HasSuffix(r.URL.Path, "/compose"):
			checkSources(t, r)
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	if _, err := client(t, transport).Upload(t.Context(), name, object, &content{identity: "x", parts: 70}, bucket.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
}

func checkSources(t *testing.T, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var request struct {
		SourceObjects []struct{ Name, Generation string }
	}
	if err := json.Unmarshal(body, &request); err != nil || len(request.SourceObjects) == 0 {
		t.Errorf("compose of %s: %v", body, err)
	}
	for _, source := range request.SourceObjects {
		if source.Generation == "" || source.Generation == "0" {
			t.Errorf("source %s without a generation", source.Name)
		}
	}
}

// damage is a transport that changes a byte of one part on its way, and hides
// its checksum from the server if sum is set.
func damage(once *sync.Once, hide bool) http.RoundTripper {
	return buckettest.RoundTripFunc(func(r *http.Request) (resp *http.Response, err error) {
		if r.Method == http.MethodPost && strings.Contains(r.URL.Query().Get("name"), "/0-00000001") {
			once.Do(func() {
				r, err = buckettest.Replace(r, "part 1]", "part 7]")
				if err == nil && hide {
					r, err = buckettest.Replace(r, `"crc32c"`, `"ignore"`)
				}
			})
		}
		if err != nil {
			return nil, err
		}
		return http.DefaultTransport.RoundTrip(r)
	})
}

// A part that arrives damaged is noticed: by the server, which is told the
// checksum, and here, should the server not look.
func TestDamaged(t *testing.T) {
	c := &content{identity: "x", parts: 3}
	t.Run("server", func(t *testing.T) {
		s := buckettest.New(t, name)
		if _, err := client(t, damage(new(sync.Once), false)).Upload(t.Context(), name, object, c, bucket.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s, c)
	})
	t.Run("client", func(t *testing.T) {
		s := buckettest.New(t, name)
		transport := damage(new(sync.Once), true)
		_, err := client(t, transport).Upload(t.Context(), name, object, c, bucket.UploadOptions{})
		if !errors.Is(err, bucket.ErrChecksum) || !strings.Contains(err.Error(), "part 1") {
			t.Errorf("got %v", err)
		}
		if strings.Contains(strings.Join(s.Objects(t, name), " "), "/0-00000001") {
			t.Error("the damaged part was left")
		}
		if _, err := client(t, transport).Upload(t.Context(), name, object, c, bucket.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s, c)
	})
	t.Run("whole", func(t *testing.T) {
		s := buckettest.New(t, name)
		transport := buckettest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err == nil && strings.HasSuffix(r.URL.Path, object+"/compose") {
				var body []byte
				body, err = io.ReadAll(resp.Body)
				at := bytes.Index(body, []byte(`"crc32c":"`)) + len(`"crc32c":"`)
				body[at] ^= 1 // another letter of base 64
				resp.Body = io.NopCloser(bytes.NewReader(body))
			}
			return resp, err
		})
		_, err := client(t, transport).Upload(t.Context(), name, object, c, bucket.UploadOptions{})
		if !errors.Is(err, bucket.ErrChecksum) {
			t.Errorf("got %v", err)
		}
		if strings.Contains(strings.Join(s.Objects(t, name), " ")+" ", object+" ") {
			t.Error("the damaged object was left")
		}
	})
}

// Parts from before that are not what they claim to be are made again, and
// those of another image are thrown away.
func TestBadLeftovers(t *testing.T) {
	s := buckettest.New(t, name)
	c := &content{identity: "x", parts: 40}
	ctx, cancel := context.WithCancel(t.Context())
	transport := &buckettest.Transport{Fault: func(_ int, r *http.Request) buckettest.Fault {
		if strings.HasSuffix(r.URL.Path, "/compose") {
			cancel()
		}
		return buckettest.None
	}}
	if _, err := client(t, transport).Upload(ctx, name, object, c, bucket.UploadOptions{}); err == nil {
		t.Fatal("not interrupted")
	}
	var first string
	for _, o := range s.Objects(t, name) {
		if strings.HasSuffix(o, "/0-00000003") {
			first = o
		}
	}
	metadata := map[string]string{"bigdisk-identity": "x", "bigdisk-crc32c": "00000000", "bigdisk-size": "5"}
	s.Put(name, first, []byte("wrong"), metadata)
	s.Put(name, object+".parts/0123456789abcdef/0-00000000", []byte("of another image"), nil)
	if _, err := client(t, nil).Upload(t.Context(), name, object, c, bucket.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, s, c)
}

func TestUploadErrors(t *testing.T) {
	buckettest.New(t, name)
	b := client(t, nil)
	broken := errors.New("cannot be read")
	_, err := b.Upload(t.Context(), name, object, &content{identity: "x", parts: 50, fail: broken}, bucket.UploadOptions{})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "part ") {
		t.Errorf("a part that cannot be made: %v", err)
	}
	if _, err := b.Upload(t.Context(), name, object, &content{}, bucket.UploadOptions{}); err == nil {
		t.Error("nothing was uploaded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Upload(ctx, name, object, &content{identity: "x", parts: 2}, bucket.UploadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
