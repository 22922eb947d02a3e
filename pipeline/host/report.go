package host

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"bigdisk/gcp/guest"
)

// report tells what has become of it.
func (r *run) report(ctx context.Context, result *Result, err error) {
	r.step("report")
	if result.Version == "" {
		result.Version = r.subject()
	}
	if result.Version == "" {
		return // there is nothing that it could be about
	}
	if current, _ := r.layout.current(); current != "" && result.Current == "" {
		if m, _ := mountAt(r.layout.at(current)); isDisk(m) {
			result.setCurrent(r.layout, current)
		}
	}
	health, why := guest.OK, ""
	if err != nil {
		health, why = guest.Failed, err.Error()
	}
	r.tell(ctx, result, health, why)
}

// subject is what a report is about that comes of no disk: the newest one, as
// far as can be told, or what is current.
func (r *run) subject() string {
	devices, _ := r.attached()
	if s, err := r.layout.loadState(); err == nil {
		devices = s.arrange(r.boot, devices)
	}
	if len(devices) > 0 {
		return devices[len(devices)-1].Version
	}
	current, _ := r.layout.current()
	return current
}

// tell sends a report, and remembers it.
func (r *run) tell(ctx context.Context, result *Result, health guest.Health, why string) {
	report := guest.Report{
		Version: result.Version, Health: health, Error: why, Current: result.Current, BootID: r.boot,
		Time: time.Now().UTC().Truncate(time.Second),
	}
	if r.state != nil {
		r.state.Report = &report
		if err := r.layout.saveState(r.state); err != nil {
			r.Logger.Warn(err.Error())
		}
	}
	if r.Reporter == nil {
		return
	}
	r.telling.Go(func() {
		if err := r.Reporter.Write(ctx, report); err != nil && ctx.Err() == nil {
			r.Logger.Warn("report: " + err.Error())
		}
	})
}

// DefaultResend is how soon a report that could not be written is tried again.
const DefaultResend = 15 * time.Second

// teller hands reports on, the newest alone, so that nobody waits for a metadata
// server that is slow or gone. What cannot be written is tried again until there
// is something newer.
type teller struct {
	to     Reporter
	resend time.Duration
	log    *slog.Logger
	news   chan struct{} // holds one element while there is something to write

	mu     sync.Mutex
	newest guest.Report
}

func newTeller(to Reporter, log *slog.Logger) *teller {
	return &teller{to: to, resend: DefaultResend, log: log, news: make(chan struct{}, 1)}
}

// Write implements [Reporter]. It never waits or fails.
func (t *teller) Write(_ context.Context, r guest.Report) error {
	t.mu.Lock()
	t.newest = r
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
	return nil
}

// run writes reports until ctx ends.
func (t *teller) run(ctx context.Context) {
	said := ""
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.news:
		case <-again:
		}
		t.mu.Lock()
		r := t.newest
		t.mu.Unlock()
		err := t.to.Write(ctx, r)
		if again = nil; err == nil || ctx.Err() != nil {
			said = ""
			continue
		}
		if text := "report: " + err.Error(); text != said {
			said = text
			t.log.Warn(text)
		}
		if !errors.Is(err, guest.ErrDisabled) {
			again = time.After(cmp.Or(t.resend, DefaultResend))
		}
	}
}
