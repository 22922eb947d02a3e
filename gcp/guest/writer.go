package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// DefaultHost is the metadata server, as Google's own libraries call it.
const DefaultHost = "metadata.google.internal"

// HostVariable is the environment variable that names another metadata server,
// HOST or HOST:PORT.
const HostVariable = "GCE_METADATA_HOST"

// BootIDFile is where Linux tells which boot this is.
const BootIDFile = "/proc/sys/kernel/random/boot_id"

const (
	// requestTimeout is for one try.
	requestTimeout = 10 * time.Second
	tries          = 4
	// pace is the time between two requests: the service takes three a second,
	// and drops what is more.
	pace = 400 * time.Millisecond
	// firstPause comes before the second try; it doubles from there on.
	firstPause = time.Second
)

// ErrDisabled is wrapped by errors of hosts that may not write guest attributes.
var ErrDisabled = errors.New("guest attributes are disabled: set enable-guest-attributes=TRUE in the metadata of the instance or its project")

// Options are the choices of [NewWriter]; the zero value of each is sensible.
type Options struct {
	// Host is the metadata server, HOST or HOST:PORT; "" is what
	// [HostVariable] says or else [DefaultHost].
	Host string
	// Client sends the requests; nil is one that uses no proxy.
	Client *http.Client
	// Pace is the time between two requests, and Pause that before the second
	// try; 0 is what the service asks for.
	Pace, Pause time.Duration
}

// Writer writes reports of one service. It may be used from many goroutines.
type Writer struct {
	base   string
	client *http.Client
	pace   time.Duration
	pause  time.Duration

	mu      sync.Mutex
	written map[string]string // what the server has, as far as is known
	changed bool              // the last Write wrote more than the time
	last    time.Time         // of the last request
}

// NewWriter returns a writer into the namespace of a service.
func NewWriter(service string, o Options) (*Writer, error) {
	if service == "" || strings.ContainsAny(service, "/?#%") {
		return nil, fmt.Errorf("guest attributes: %q cannot be a namespace", service)
	}
	host := cmp.Or(o.Host, os.Getenv(HostVariable), DefaultHost)
	w := &Writer{
		base:   "http://" + host + "/computeMetadata/v1/instance/guest-attributes/" + url.PathEscape(service) + "/",
		client: o.Client, pace: cmp.Or(o.Pace, pace), pause: cmp.Or(o.Pause, firstPause),
		written: make(map[string]string),
	}
	if w.client == nil {
		w.client = &http.Client{Transport: &http.Transport{Proxy: nil, MaxIdleConns: 1, IdleConnTimeout: time.Minute}, Timeout: requestTimeout}
	}
	return w, nil
}

// Write writes what differs from the report before, sum last. The first Write,
// and the first one after an error, writes all: what the server has is not
// known then. So does the first one that says nothing new after one that did,
// since the service may have dropped some of that without saying so.
func (w *Writer) Write(ctx context.Context, r Report) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	attributes := r.Attributes()
	news := w.news(attributes)
	if w.changed && !news {
		clear(w.written)
	}
	w.changed = news
	for _, k := range append(keys[:], keySum) {
		v := attributes[k]
		if old, known := w.written[k]; known && old == v {
			continue
		}
		if err := w.put(ctx, k, v); err != nil {
			clear(w.written)
			return fmt.Errorf("guest attribute %s: %w", k, err)
		}
		w.written[k] = v
	}
	return nil
}

// news reports whether anything but the time is new.
func (w *Writer) news(attributes map[string]string) bool {
	for _, k := range keys {
		if old, known := w.written[k]; k != keyTime && (!known || old != attributes[k]) {
			return true
		}
	}
	return false
}

// put writes one key, again and again if the server is not well.
func (w *Writer) put(ctx context.Context, key, value string) error {
	pause := w.pause
	for try := 1; ; try++ {
		if err := sleep(ctx, w.pace-time.Since(w.last)); err != nil {
			return err
		}
		again, err := w.request(ctx, key, value)
		w.last = time.Now()
		if err == nil || !again || try == tries {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// request sends one PUT and says whether another may help.
func (w *Writer) request(ctx context.Context, key, value string) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, w.base+key, strings.NewReader(value))
	if err != nil {
		return false, err
	}
	req.Header.Set("Metadata-Flavor", "Google")
	resp, err := w.client.Do(req)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case resp.StatusCode < 300:
		return false, nil
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusNotFound:
		return false, fmt.Errorf("%w (the metadata server says %s: %s)", ErrDisabled, resp.Status, clip(string(text)))
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500,
		fmt.Errorf("the metadata server says %s: %s", resp.Status, clip(string(text)))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BootID returns the ID of this boot of the kernel.
func BootID() (string, error) {
	text, err := os.ReadFile(BootIDFile)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}
