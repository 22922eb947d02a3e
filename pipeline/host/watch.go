package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// WatchOptions are the choices of [Watch] alone.
type WatchOptions struct {
	// Poll is how often attached disks are looked for, Heartbeat how often a
	// report goes out though nothing has changed, Retry how soon a disk that was
	// refused is tried again. What failed for another reason, such as a manifest
	// that could not be fetched, is tried again after [FirstRetry], and then after
	// twice as long each time, up to Retry.
	Poll, Heartbeat, Retry time.Duration
	// Ready is called once, after the first look, with a line about it.
	Ready func(status string)
}

// The defaults of [WatchOptions]. A host's reports are read every 10 seconds or
// slower, and the service takes ten queries a minute.
const (
	DefaultPoll      = 2 * time.Second
	DefaultHeartbeat = 5 * time.Minute
	DefaultRetry     = 5 * time.Minute
	FirstRetry       = 5 * time.Second
)

func (w WatchOptions) fill() WatchOptions {
	if w.Poll <= 0 {
		w.Poll = DefaultPoll
	}
	if w.Heartbeat <= 0 {
		w.Heartbeat = DefaultHeartbeat
	}
	if w.Retry <= 0 {
		w.Retry = DefaultRetry
	}
	if w.Ready == nil {
		w.Ready = func(string) {}
	}
	return w
}

// Watch does what [Mount] does whenever disks come or go, or the current one is
// no longer mounted, and goes on until ctx ends. A heartbeat looks at the
// current disk again before it says that all is well. Failures are logged and
// reported, and end nothing.
func Watch(ctx context.Context, o Options, w WatchOptions) error {
	o, w = o.fill(), w.fill()
	l, err := newLayout(o.MountRoot, o.Service)
	if err != nil {
		return err
	}
	if o.Reporter != nil {
		t := newTeller(o.Reporter, o.Logger)
		var telling sync.WaitGroup
		defer telling.Wait()
		telling.Go(func() { t.run(ctx) })
		o.Reporter = t
	}
	tick := time.NewTicker(w.Poll)
	defer tick.Stop()
	watch := &watch{Options: o, every: w, layout: l}
	for first := true; ; first = false {
		watch.once(ctx)
		if first {
			w.Ready(watch.status)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watch is what has been seen so far.
type watch struct {
	Options
	every  WatchOptions
	layout layout

	seen   []Device      // at the last round
	left   bool          // the last round left a disk mounted as current
	last   time.Time     // of the last round
	retry  time.Duration // to the next one, if that did not end as it should; else 0
	said   string        // the last failure that was logged
	status string
}

// once looks for disks, and makes a round if there is a reason to.
func (w *watch) once(ctx context.Context) {
	devices, _ := w.attached() // why they cannot be listed is what the round says
	wait := w.every.Heartbeat
	if w.retry > 0 {
		wait = min(wait, w.retry)
	}
	if !w.last.IsZero() && slices.Equal(devices, w.seen) && !w.lost() && time.Since(w.last) < wait {
		return
	}
	result, err := Mount(ctx, w.Options)
	if ctx.Err() != nil || errors.Is(err, ErrBusy) {
		return
	}
	if !slices.Equal(devices, w.seen) {
		w.retry = 0
	}
	w.seen, w.last, w.retry = devices, time.Now(), w.nextRetry(err)
	w.left = result != nil && result.Current != ""
	if w.status = "nothing is mounted"; result != nil && result.Current != "" {
		w.status = fmt.Sprintf("%s is current", result.Path)
	}
	if result != nil && result.Switched {
		w.Logger.Info(w.status)
	}
	if err != nil {
		w.complain(err)
		return
	}
	w.said = ""
}

// lost reports whether somebody has unmounted what the last round left as the
// current disk, or taken its name away.
func (w *watch) lost() bool {
	if !w.left {
		return false
	}
	current, err := w.layout.current()
	if err != nil || current == "" {
		return err == nil
	}
	at, err := mountAt(w.layout.at(current))
	return err == nil && at == nil
}

// nextRetry is how long to wait after a round: 0 if all is well, and longer each
// time for what may pass by itself.
func (w *watch) nextRetry(err error) time.Duration {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrRefused):
		return w.every.Retry
	case w.retry == 0:
		return min(FirstRetry, w.every.Retry)
	}
	return min(2*w.retry, w.every.Retry)
}

// complain logs a failure, once.
func (w *watch) complain(err error) {
	if text := err.Error(); text != w.said {
		w.said = text
		w.Logger.Error(text)
	}
}
