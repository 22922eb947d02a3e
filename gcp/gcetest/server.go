package gcetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is one Compute Engine with all its projects. All methods may be called
// by many goroutines.
type Server struct {
	opt   Options
	clock Clock
	base  string // http://host:port once started
	mux   *http.ServeMux
	http  *http.Server

	closing   chan struct{}
	closeOnce sync.Once
	wake      chan struct{}
	owned     sync.WaitGroup // goroutines that Close waits for
	ctx       context.Context
	cancel    context.CancelFunc

	mu        sync.Mutex // everything below
	rand      *rand.Rand
	events    eventHeap
	eventSeq  uint64
	eventTime time.Time // of the event that is happening, else zero
	lastID    uint64

	zones       []string // sorted
	unreachable map[string]bool
	images      collection[*image]
	disks       collection[*disk]
	snapshots   collection[*snapshot]
	instances   collection[*instance]
	templates   collection[*template]
	operations  collection[*operation]
	requests    map[requestKey]*operation

	calls      []*Call
	faults     []*Fault
	rates      map[rateKey]*rateWindow
	hosts      []*Hosts
	checks     Checks
	changing   map[*instance]time.Time
	violations []string
	guestOver  int
	peakAll    int // instances in change at once
	peakZone   int
}

// New makes a server that listens nowhere: it is an [http.Handler], and Start
// gives it an address. Close must be called in either case.
func New(opt Options) *Server {
	opt.fill()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		opt: opt, clock: opt.Clock, ctx: ctx, cancel: cancel,
		closing: make(chan struct{}), wake: make(chan struct{}, 1),
		rand: rand.New(rand.NewPCG(opt.Seed, 0x6763656661)), lastID: 1 << 60,
		unreachable: map[string]bool{},
		images:      collection[*image]{}, disks: collection[*disk]{}, snapshots: collection[*snapshot]{},
		instances: collection[*instance]{}, templates: collection[*template]{}, operations: collection[*operation]{},
		requests: map[requestKey]*operation{}, rates: map[rateKey]*rateWindow{}, changing: map[*instance]time.Time{},
	}
	s.AddZones(opt.Zones...)
	s.mux = s.newMux()
	s.owned.Add(1)
	go s.runEvents()
	return s
}

// Start makes a server that listens on Options.Addr.
func Start(opt Options) (*Server, error) {
	s := New(opt)
	l, err := net.Listen("tcp", s.opt.Addr)
	if err != nil {
		_ = s.Close() // nothing is open yet
		return nil, fmt.Errorf("listen for compute API calls: %w", err)
	}
	s.base = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	s.owned.Add(1)
	go func() {
		defer s.owned.Done()
		_ = s.http.Serve(l) // ends with ErrServerClosed
	}()
	return s, nil
}

// URL is the endpoint to give to clients, without a slash at its end. It is
// empty for a server that was not started.
func (s *Server) URL() string { return s.base }

// Clock is the clock that the server goes by.
func (s *Server) Clock() Clock { return s.clock }

// Close drops all connections and waits for the server's goroutines. It may be
// called twice.
func (s *Server) Close() error {
	s.cancel()
	s.closeOnce.Do(func() { close(s.closing) })
	var err error
	if s.http != nil {
		if err = s.http.Close(); errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
	}
	s.owned.Wait()
	return err
}

// ServeHTTP answers one call of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// newID gives the next resource ID; s.mu is held. IDs tell incarnations of one
// name apart.
func (s *Server) newID() uint64 {
	s.lastID += 1 + s.rand.Uint64N(1<<20)
	return s.lastID
}

// timestamp writes a time as the service does, to the millisecond.
func timestamp(t time.Time) *string {
	text := t.UTC().Format("2006-01-02T15:04:05.000-07:00")
	return &text
}

func (s *Server) now() *string { return timestamp(s.present()) }

// locked runs f while nothing else happens on the server, with everything done that
// was due. f must not call the server.
func (s *Server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
	f()
}
