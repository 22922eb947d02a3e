package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gc"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/rollout"
	fleetcloud "bigdisk/gcp/rollout/cloud"
	"bigdisk/gcp/rollout/lease"
	"bigdisk/gcp/rollout/state"
)

func newRollout() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Move hosts to a published version, wave by wave, and back",
		Long: `Attach a version's disks to the hosts, READ_ONLY, a wave at a time, and wait for
each host to report that it is healthy. What was done is remembered in the bucket:
start may be killed at any moment and goes on where it was, on any machine.`,
		Example: `  bigdisk rollout plan --version v12
  bigdisk rollout start --version v12
  bigdisk rollout status --watch
  bigdisk rollout pause --reason "looking at host errors"
  bigdisk rollout rollback --reason "v12 lacks python"`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return errNoSubcommand(cmd) },
	}
	cmd.AddCommand(newRolloutPlan(), newRolloutStart(), newRolloutStatus(),
		newRolloutAsk(state.Pause, "Begin with no further hosts; those in change end first"),
		newRolloutAsk(state.Resume, "Go on with a paused rollout, failed hosts included"),
		newRolloutAsk(state.Abort, "End the rollout where it is; hosts stay as they are"),
		newRolloutRollback(), newRolloutReconcile(), newRolloutHistory(), newRolloutServe())
	return cmd
}

// fleetOptions are of every command that works on a fleet.
type fleetOptions struct {
	Config string
	JSON   bool
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *fleetOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Config, "config", defaultFleet, "the fleet's configuration is this `FILE`")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

// controllerOptions are of the commands that change hosts.
type controllerOptions struct {
	Lease   time.Duration
	Ask     time.Duration
	Look    time.Duration
	Standby bool
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *controllerOptions) AddFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.Lease, "lease", 30*time.Second, "others take this controller for dead after so `LONG` without a heartbeat")
	f.DurationVar(&o.Ask, "report-interval", 10*time.Second, "read one host's report no more often than every so `LONG`; the service takes 10 a minute")
	f.DurationVar(&o.Look, "look-interval", 30*time.Second, "list hosts and disks every so `LONG`")
	f.BoolVar(&o.Standby, "standby", false, "wait for another controller to end, instead of failing")
}

func (o *controllerOptions) check() error {
	for name, d := range map[string]time.Duration{"lease": o.Lease, "report-interval": o.Ask, "look-interval": o.Look} {
		if d < 100*time.Millisecond {
			return usageError{fmt.Errorf("--%s: %v is too short", name, d), "give 100ms or more"}
		}
	}
	return nil
}

// connections are the clients behind a service.
type connections struct {
	storage *bucket.Client
	compute *gce.Client
}

// Close lets go of them.
func (c *connections) Close() error {
	var err error
	if c.compute != nil {
		err = c.compute.Close()
	}
	return errors.Join(err, c.storage.Close())
}

// How long the rollout's client tries and waits: longer ones are tried again by
// the rollout, which looks at the lease in between.
const (
	rolloutBudget    = 10 * time.Second
	rolloutOperation = 5 * time.Minute
	stateBudget      = 20 * time.Second
)

// connect makes the service of a configuration. Without compute it can only read
// and ask.
func connect(ctx context.Context, o *fleetOptions, compute bool, log io.Writer) (*rollout.Service, *connections, error) {
	config, err := loadFleet(o.Config)
	if err != nil {
		return nil, nil, err
	}
	if compute && config.Hosts.Filter == "" {
		return nil, nil, usageError{fmt.Errorf("configuration %s: hosts.filter is empty", o.Config), "say which instances are the fleet's, as labels.role=repl-host AND status=RUNNING"}
	}
	logger := newLogger(log)
	c := &connections{}
	if c.storage, err = bucket.New(ctx, bucket.Options{Budget: stateBudget, Logger: logger}); err != nil {
		return nil, nil, err
	}
	s := &rollout.Service{Config: config, Store: fleetcloud.NewStore(config, c.storage), Holder: holder()}
	s.Options.Log = logger
	if !compute {
		return s, c, nil
	}
	c.compute, err = newCompute(ctx, config, log)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	s.Cloud = fleetcloud.New(config, c.compute, logger)
	return s, c, nil
}

func newCompute(ctx context.Context, config *fleet.Config, log io.Writer) (*gce.Client, error) {
	return gce.New(ctx, gce.Options{
		Endpoint: config.ComputeEndpoint, MutationsPerSecond: config.Publish.MutationsPerSecond,
		Retry: gce.Retry{Budget: rolloutBudget}, OperationTimeout: rolloutOperation, Logger: newLogger(log),
	})
}

// holder is who runs this, for people.
func holder() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s@%s, process %d", name, host, os.Getpid())
}

// hinted adds what to do to the errors of rollouts.
func hinted(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rollout.ErrPaused):
		return hintedError{err, "look at bigdisk rollout status, then bigdisk rollout resume, rollback or abort"}
	case errors.Is(err, lease.ErrHeld):
		return hintedError{err, "watch it with bigdisk rollout status --watch; --standby waits for it to end"}
	case errors.Is(err, lease.ErrLost):
		return hintedError{err, "nothing is lost: run it again to go on"}
	case errors.Is(err, state.ErrForeign):
		return hintedError{err, "service, bucket and state in the configuration say where it is, and each fleet needs its own; where a fleet has moved, leave one of its old zones in targets for one bigdisk rollout reconcile"}
	case errors.Is(err, rollout.ErrReplaced):
		return hintedError{err, "bigdisk rollout history says what became of it; if the object was removed or overwritten by mistake, restore its earlier generation (it may be soft-deleted), and bigdisk rollout start goes on"}
	case errors.Is(err, state.ErrMalformed):
		return hintedError{err, "nothing is changed before it can be read: restore an earlier generation of the object (it may be soft-deleted), or remove it: then start takes the version that most hosts have as the one before"}
	case errors.Is(err, state.ErrNoPrevious):
		return hintedError{err, "publish another version, and bigdisk rollout start --version puts it on the hosts; bigdisk rollout abort ends what is under way before that"}
	case errors.Is(err, state.ErrRefused):
		return hintedError{err, "bigdisk rollout status says what is under way and what was last"}
	case errors.Is(err, rollout.ErrNoHosts):
		return hintedError{err, "hosts.filter in the configuration says which instances are the fleet's"}
	case errors.Is(err, rollout.ErrUnpublished), errors.Is(err, rollout.ErrNothing):
		return hintedError{err, "bigdisk publish makes disks; --version names one of the versions"}
	case errors.Is(err, gc.ErrUnread):
		return hintedError{err, "what is not affected was looked at all the same: run it again when the rest answers"}
	case errors.Is(err, context.Canceled):
		return hintedError{errors.New("interrupted; hosts in change are as they are"), "bigdisk rollout start goes on, on any machine"}
	}
	return err
}

// printJSON writes one value, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
