package source

import (
	"log/slog"
	"time"

	"bigdisk/bundle/spool"
	"bigdisk/bundle/store"
)

// The defaults of [Options].
const (
	// DefaultMemory is the size in bytes of the budget that a source makes for
	// itself when it is not given one.
	DefaultMemory = 96 << 20
	// DefaultMaxInMemory is the size in bytes up to which a path is received
	// into memory and not into a file.
	DefaultMaxInMemory = 32 << 20
	// DefaultRequests is the number of requests under way at one cache.
	DefaultRequests = 32
	// DefaultAttempts is how often one object is asked for in all.
	DefaultAttempts = 5
	// DefaultRetryDelay is how long the first wait before another attempt is.
	DefaultRetryDelay = 250 * time.Millisecond
	// DefaultStallTimeout is how long a server may send nothing.
	DefaultStallTimeout = 30 * time.Second
	// DefaultTimeout is how long one object may take in all; see
	// [Options.Timeout].
	DefaultTimeout = 10 * time.Minute
	// connectTimeout is how long a connection may take to be made.
	connectTimeout = 15 * time.Second
	// slowest is the rate in bytes per second that a transfer is given time for.
	slowest = 64 << 10
)

// Options say how sources are used. The zero value is a sensible default.
type Options struct {
	// Keys may sign the paths of a binary cache; nil is cache.nixos.org's key.
	Keys store.Keys
	// NoCheckSigs takes paths that nobody trusted has signed.
	NoCheckSigs bool
	// Netrc is a file with credentials in the format of curl's .netrc. "" is
	// the file that the environment variable NETRC names, else ~/.netrc, if
	// there is such a file.
	Netrc string

	// ScratchDir holds temporary files; "" is the system's directory for them.
	ScratchDir string
	// Memory bounds what is received into memory and not read yet, in bytes,
	// over all sources that share it; nil is a budget of [DefaultMemory].
	Memory *spool.Budget
	// MaxInMemory is the size in bytes up to which a path is received into
	// memory; 0 is [DefaultMaxInMemory], less than 0 is none.
	MaxInMemory int64

	// Requests is how many requests may be under way at one cache; 0 is
	// [DefaultRequests].
	Requests int
	// Attempts is how often an object is asked for in a row before it is given
	// up; 0 is [DefaultAttempts].
	Attempts int
	// RetryDelay is the first wait between attempts, which then doubles; 0 is
	// [DefaultRetryDelay].
	RetryDelay time.Duration
	// StallTimeout bounds the time in which nothing arrives; 0 is
	// [DefaultStallTimeout].
	StallTimeout time.Duration
	// Timeout bounds the time for one object, all attempts included, to which a
	// second is added for every 64 KiB of it; 0 is [DefaultTimeout].
	Timeout time.Duration

	// Logger is told of attempts that failed and of sources passed over; nil
	// drops it.
	Logger *slog.Logger
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Keys == nil && !o.NoCheckSigs {
		key, err := store.ParsePublicKey(store.CacheNixOSOrgKey)
		if err != nil {
			return o, err
		}
		o.Keys = store.Keys{key}
	}
	if o.Memory == nil {
		o.Memory = spool.NewBudget(DefaultMemory)
	}
	setDefault(&o.MaxInMemory, DefaultMaxInMemory)
	setDefault(&o.Requests, DefaultRequests)
	setDefault(&o.Attempts, DefaultAttempts)
	setDefault(&o.RetryDelay, DefaultRetryDelay)
	setDefault(&o.StallTimeout, DefaultStallTimeout)
	setDefault(&o.Timeout, DefaultTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func setDefault[T int | int64 | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// trust returns nil if the info may be believed.
func (o *Options) trust(info *store.PathInfo) error {
	if o.NoCheckSigs {
		return nil
	}
	if _, ok := info.Certified(); ok {
		return nil
	}
	return o.Keys.Check(info)
}

// hold returns contents that are held to the content address, if that is what
// the info is trusted for.
func (o *Options) hold(info *store.PathInfo, contents store.Contents) store.Contents {
	ca, ok := info.Certified()
	if o.NoCheckSigs || !ok || o.Keys.Check(info) == nil {
		return contents
	}
	return ca.Check(contents)
}
