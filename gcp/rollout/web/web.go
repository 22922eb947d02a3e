package web

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/status"
	"bigdisk/gcp/rollout/world"
)

// Options say what is shown.
type Options struct {
	// Service is the service's name.
	Service string
	// Document reads the rollout's document.
	Document func(context.Context) (*state.Document, error)
	// Look reads hosts and disks, for the metrics; nil leaves their counts out.
	Look func(context.Context) (*world.World, error)
	// LookEvery is the least time between two looks; 1 minute by default.
	LookEvery time.Duration
	// Log is told what cannot be read; nil tells nobody.
	Log *slog.Logger
	// Now is the time; nil is the system's clock.
	Now func() time.Time
}

const (
	documentEvery   = time.Second
	documentTimeout = 20 * time.Second
	lookTimeout     = 50 * time.Second
	patience        = 7 * time.Second // of a request; Prometheus gives a scrape 10 s
	maxHistory      = 20              // ended rollouts on the page
)

// Handler serves the page and the metrics. It may be used from many goroutines.
type Handler struct {
	opt      Options
	snapshot *cached[*snapshot]
	world    *cached[*world.World] // nil without
	mux      *http.ServeMux
	policy   string
}

// snapshot is a document as it was read, made ready for everybody who asks.
type snapshot struct {
	status  *status.Status
	history []state.Past
	json    json.RawMessage
}

// New makes a handler. Nothing is read before it is asked for.
func New(opt Options) *Handler {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.LookEvery <= 0 {
		opt.LookEvery = time.Minute
	}
	h := &Handler{opt: opt, mux: http.NewServeMux(), policy: policy(page)}
	h.snapshot = &cached[*snapshot]{every: documentEvery, timeout: documentTimeout, now: opt.Now, read: h.read}
	if opt.Look != nil {
		h.world = &cached[*world.World]{every: opt.LookEvery, timeout: lookTimeout, now: opt.Now, read: h.look}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&collector{h})
	h.mux.HandleFunc("GET /{$}", h.servePage)
	h.mux.HandleFunc("GET /status.json", h.serveStatus)
	h.mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 10, Timeout: time.Minute}))
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	return h
}

// read reads the document.
func (h *Handler) read(ctx context.Context) (*snapshot, error) {
	d, err := h.opt.Document(ctx)
	if err != nil {
		h.opt.Log.Warn("the rollout's state cannot be read", "err", err)
		return nil, err
	}
	s := &snapshot{status: status.Of(d, h.opt.Now()), history: []state.Past{}}
	for _, p := range slices.Backward(d.History) {
		s.history = append(s.history, p)
	}
	s.json, err = json.Marshal(map[string]any{"status": s.status, "history": s.history[:min(len(s.history), maxHistory)]})
	return s, err
}

func (h *Handler) look(ctx context.Context) (*world.World, error) {
	w, err := h.opt.Look(ctx)
	if err != nil {
		h.opt.Log.Warn("hosts and disks cannot be listed", "err", err)
	}
	return w, err
}

// ServeHTTP answers a request, under the headers that all answers have.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", h.policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// page has everything in it that it needs, but for what it shows.
//
//go:embed page.html
var page string

// policy lets a browser run the page's own script and style, by their hashes,
// and ask this server for data: nothing else.
func policy(page string) string {
	return fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		hashOf(page, "script"), hashOf(page, "style"))
}

// hashOf is the hash of what the element holds, as a policy names it.
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (h *Handler) servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// A client that has gone needs no page.
	_, _ = w.Write([]byte(page))
}

// answer is /status.json.
type answer struct {
	// Data is the status, the last that was read; null if none was.
	Data json.RawMessage `json:"data"`
	// Age is how long ago that was, in seconds.
	Age float64 `json:"ageSeconds"`
	// Error is why it could not be read since.
	Error string `json:"error,omitempty"`
}

func (h *Handler) serveStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	got := h.snapshot.get(ctx)
	a := answer{Data: json.RawMessage("null")}
	if got.value != nil {
		a.Data, a.Age = got.value.json, max(0, h.opt.Now().Sub(got.at).Seconds())
	}
	if got.err != nil {
		a.Error = got.err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	if a.Error != "" && got.value == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(a)
}

// shutdownTimeout is how long requests under way may take when the server ends.
const shutdownTimeout = 5 * time.Second

// Serve serves until ctx ends, then lets requests under way end.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 75 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(closing)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		ended <- err
	})
	err := server.Serve(l)
	if !stop() && errors.Is(err, http.ErrServerClosed) {
		return <-ended
	}
	return err
}
