package gce

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/api/googleapi"
)

// Retry says how long, and how often, a call is made again.
type Retry struct {
	// Initial is the first wait's upper bound, 1 s by default. It doubles with
	// every wait, up to Max. Waits are between half of the bound and all of
	// it, at random, so that workers do not move in step.
	Initial time.Duration
	// Max is the longest wait, 30 s by default.
	Max time.Duration
	// Budget is how much time a step may take with all its retries, 10
	// minutes by default. Waiting for an operation does not count.
	Budget time.Duration
}

func (r Retry) withDefaults() Retry {
	if r.Initial <= 0 {
		r.Initial = time.Second
	}
	if r.Max <= 0 {
		r.Max = 30 * time.Second
	}
	if r.Budget <= 0 {
		r.Budget = 10 * time.Minute
	}
	return r
}

// attempts counts the waits of one step, and the time that is left for them.
type attempts struct {
	client *Client
	what   what
	bound  time.Duration
	left   time.Duration
}

func (c *Client) newAttempts(w what) *attempts {
	return &attempts{client: c, what: w, bound: c.retry.Initial, left: c.retry.Budget}
}

// again waits after err and returns nil when the call may be made again; else
// it returns err, or the context's error.
func (a *attempts) again(ctx context.Context, err error) error {
	d := a.delay(err)
	if d > a.left {
		return err
	}
	a.left -= d
	level := slog.LevelDebug
	if d >= 10*time.Second {
		level = slog.LevelWarn
	}
	a.client.log.Log(ctx, level, "trying again", "in", d.Round(time.Millisecond), "after", err)
	return Sleep(ctx, a.client.clock, d)
}

func (a *attempts) delay(err error) time.Duration {
	d := a.bound/2 + time.Duration(a.client.random()*float64(a.bound/2))
	a.bound = min(2*a.bound, a.client.retry.Max)
	return max(d, min(retryAfter(err), time.Minute))
}

// retryAfter is what the service asks for.
func retryAfter(err error) time.Duration {
	var api *googleapi.Error
	if !errors.As(err, &api) || api.Header == nil {
		return 0
	}
	seconds, err := strconv.Atoi(http.Header(api.Header).Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// call makes a call that has to be safe to repeat, as often as it takes.
func (c *Client) call(ctx context.Context, l *limiter, project string, a *attempts, f func(context.Context) error) error {
	for {
		if err := l.wait(ctx, project); err != nil {
			return a.what.refused(ctx, err)
		}
		began := c.clock.Now()
		err := f(ctx)
		if err == nil {
			return nil
		}
		a.left -= c.clock.Now().Sub(began)
		err = a.what.refused(ctx, err)
		if errors.Is(err, ErrRateLimit) {
			l.pause(project, a.bound)
		} else if !errors.Is(err, ErrUnavailable) {
			return err
		}
		if err := a.again(ctx, err); err != nil {
			return err
		}
	}
}
