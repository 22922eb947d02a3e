package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/web"
)

// serveOptions are the flags of bigdisk rollout serve.
type serveOptions struct {
	Config string
	Listen string
	Look   time.Duration
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *serveOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Config, "config", defaultFleet, "the fleet's configuration is this `FILE`")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "serve at this `ADDRESS`; there is no login")
	f.DurationVar(&o.Look, "look-interval", time.Minute, "list hosts and disks, for the metrics, no more often than every so `LONG`; 0 leaves their counts out")
}

func newRolloutServe() *cobra.Command {
	var opts serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Show the rollout as a web page, and as metrics for Prometheus",
		Long: `Serve a page that follows the rollout, and /metrics for Prometheus. Nothing can
be changed through it. The rollout's state is read at most once a second however
many look, and not at all while nobody does. There is no login: what is not for
everybody belongs behind a proxy that has one.`,
		Example: "  bigdisk rollout serve\n  bigdisk rollout serve --listen :9090 --look-interval 0",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRolloutServe(cmd.Context(), &opts)
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func runRolloutServe(ctx context.Context, opts *serveOptions) (err error) {
	if opts.Look != 0 && opts.Look < time.Second {
		return usageError{fmt.Errorf("--look-interval: %v is too short", opts.Look), "give 1s or more, or 0"}
	}
	s, c, err := connect(ctx, &fleetOptions{Config: opts.Config}, opts.Look > 0, os.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	l, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return hintedError{err, "give another --listen ADDRESS"}
	}
	fmt.Fprintf(os.Stderr, "bigdisk: serving http://%s\n", l.Addr())
	return web.Serve(ctx, l, web.New(webOptions(s, opts)))
}

// webOptions have the page read what the service reads.
func webOptions(s *rollout.Service, opts *serveOptions) web.Options {
	o := web.Options{Service: s.Config.Service, Document: s.Document, LookEvery: opts.Look, Log: s.Options.Log}
	if s.Cloud != nil {
		o.Look = s.Cloud.Look
	}
	return o
}
