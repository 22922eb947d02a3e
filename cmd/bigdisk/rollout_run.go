package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/plan"
	"bigdisk/gcp/rollout/state"
)

func newRolloutPlan() *cobra.Command {
	var opts fleetOptions
	var version string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what a rollout would do, and what is in its way",
		Long: `Read hosts and disks, and print waves, the disks and attachments to be made, and
what is in the way. Nothing is changed. The exit status is 1 if something is in
the way.`,
		Example: "  bigdisk rollout plan --version v12 --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRolloutPlan(cmd.Context(), &opts, version, cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&version, "version", "", "plan a rollout of version `V` (default the one under way)")
	return cmd
}

func runRolloutPlan(ctx context.Context, opts *fleetOptions, version string, stdout io.Writer) error {
	s, c, err := connect(ctx, opts, true, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := s.Plan(ctx, version)
	if err != nil {
		return hinted(err)
	}
	if err := printPlan(stdout, opts.JSON, p); err != nil {
		return err
	}
	if len(p.Blockers) > 0 {
		return fmt.Errorf("something is in the way of a rollout of %s: %s", p.Version, p.Blockers[0])
	}
	return nil
}

func printPlan(w io.Writer, asJSON bool, p *plan.Plan) error {
	if asJSON {
		return printJSON(w, p)
	}
	return p.Text(w)
}

func newRolloutStart() *cobra.Command {
	var opts fleetOptions
	var run controllerOptions
	var version string
	var stopWhenPaused bool
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Roll a version out, or go on with the rollout under way",
		Long: `Carry out a rollout until it ends. It may be killed at any moment; start goes on
with it, on any machine, as soon as the lease of the one that was killed has run
out. When too many hosts fail, the rollout pauses itself (or rolls itself back:
onFailure), and start waits for bigdisk rollout resume, rollback or abort. A
bigdisk rollout reconcile --watch that is at work makes room for it. The exit
status is 0 only if the version is on the hosts.`,
		Example: `  bigdisk rollout start --version v12
  bigdisk rollout start                       # go on with what is under way
  bigdisk rollout start --version v12 --stop-when-paused    # in CI`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return controlled(cmd.Context(), &opts, &run, func(s *rollout.Service) error {
				s.Options.StopWhenPaused = stopWhenPaused
				return printed(cmd.Context(), s, &opts, cmd.OutOrStdout(), s.Start(cmd.Context(), version))
			})
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&version, "version", "", "roll out version `V` (default: go on with the rollout under way)")
	cmd.Flags().BoolVar(&stopWhenPaused, "stop-when-paused", false, "exit with status 1 when the rollout pauses, instead of waiting")
	run.AddFlags(cmd.Flags())
	return cmd
}

// controlled runs f with a service that can change hosts.
func controlled(ctx context.Context, opts *fleetOptions, run *controllerOptions, f func(*rollout.Service) error) error {
	if err := run.check(); err != nil {
		return err
	}
	s, c, err := connect(ctx, opts, true, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	s.TTL, s.Standby = run.Lease, run.Standby
	s.Options.AskEvery, s.Options.LookEvery = run.Ask, run.Look
	return hinted(f(s))
}

// printed writes the status in the end, whatever the end was.
func printed(ctx context.Context, s *rollout.Service, opts *fleetOptions, stdout io.Writer, ended error) error {
	reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateBudget)
	defer cancel()
	if err := printRollout(reading, s, opts.JSON, stdout); ended == nil {
		return err
	}
	return ended // where that is why the status cannot be read, once is enough
}

func newRolloutReconcile() *cobra.Command {
	var opts fleetOptions
	var run controllerOptions
	var watch bool
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Give hosts that lost their disk, or never had it, what they should have",
		Long: `Compare every host with the version that it should have, and attach it where it
is missing, within the rollout's limits: managed instance groups make hosts anew
without the disks that were attached to them. Hosts that have it are asked whether
they are well, and told of if they are not. A rollout or rollback that is under
way and that no controller carries out, or that somebody asks for meanwhile, it
carries out first; while one is paused, it repairs hosts. With --watch it makes
room for bigdisk rollout start, and comes back when that has ended or died; several
may run, of which one works. The
exit status is 1 if hosts are left without, or are not well.`,
		Example: "  bigdisk rollout reconcile\n  bigdisk rollout reconcile --watch     # as a service",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return controlled(cmd.Context(), &opts, &run, func(s *rollout.Service) error {
				return printed(cmd.Context(), s, &opts, cmd.OutOrStdout(), s.Reconcile(cmd.Context(), watch))
			})
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&watch, "watch", false, "go on for ever")
	run.AddFlags(cmd.Flags())
	return cmd
}

// rollbackOptions are a rollback's own speed.
type rollbackOptions struct {
	Reason        string
	Waves         []string
	MaxConcurrent int
	MaxPerZone    string
	MaxFailures   string
	KeepNew       bool
}

func newRolloutRollback() *cobra.Command {
	var opts fleetOptions
	var run controllerOptions
	var back rollbackOptions
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Take every host back to the version before",
		Long: `End the rollout and begin one back to the version before it: of all hosts in one
wave, unless --wave says otherwise, as many at a time as in the rollout. The new
disk is taken away: that takes seconds and no attachment where hosts kept the old
one, and programs that have files of the new version open get I/O errors. With
--keep-new hosts get another disk of the old version instead, and keep the new one
until their next rollout. Hosts that fail do not stop it unless --max-failures says
so: the others go back all the same.

A controller at work is asked to do it, and the command returns as soon as it has
begun; otherwise this command does it, and the exit status is 1 if more hosts
failed to go back than the configuration's maxFailures.`,
		Example: `  bigdisk rollout rollback --reason "v12 lacks python"
  bigdisk rollout rollback --keep-new    # nothing runs from v11 any more, much from v12
  bigdisk rollout rollback --wave 10%:5m --wave 100%`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return controlled(cmd.Context(), &opts, &run, func(s *rollout.Service) error {
				return runRollback(cmd.Context(), s, &opts, &back, cmd.OutOrStdout())
			})
		},
	}
	opts.AddFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&back.Reason, "reason", "", "why, for the history")
	f.StringArrayVar(&back.Waves, "wave", nil, "waves of so many hosts, SHARE or SHARE:BAKE (repeatable; the last one is 100%)")
	f.IntVar(&back.MaxConcurrent, "max-concurrent", 0, "`N` hosts in change at once (default as in the rollout)")
	f.StringVar(&back.MaxPerZone, "max-per-zone", "", "`SHARE` of a zone's hosts in change at once (default as in the rollout)")
	f.StringVar(&back.MaxFailures, "max-failures", "", "pause when more than this `SHARE` of a wave's hosts failed (default: go on until all others are back)")
	f.BoolVar(&back.KeepNew, "keep-new", false, "leave the new disk attached, since programs may have files open on it, and attach another one of the old version")
	run.AddFlags(f)
	return cmd
}

func runRollback(ctx context.Context, s *rollout.Service, opts *fleetOptions, back *rollbackOptions, stdout io.Writer) error {
	speed, err := back.speed(s.Config)
	if err != nil {
		return err
	}
	asked, err := s.Rollback(ctx, back.Reason, speed)
	if asked && err == nil {
		fmt.Fprintln(os.Stderr, "bigdisk: the controller at work rolls back; watch it with bigdisk rollout status --watch")
	}
	return printed(ctx, s, opts, stdout, err)
}

// speed is what the flags ask for; nil if they say nothing.
func (o *rollbackOptions) speed(config *fleet.Config) (*state.Speed, error) {
	if len(o.Waves) == 0 && o.MaxConcurrent == 0 && o.MaxPerZone == "" && o.MaxFailures == "" && !o.KeepNew {
		return nil, nil
	}
	speed := state.RollbackSpeed(state.SpeedOf(config.Rollout))
	speed.KeepPrevious = o.KeepNew
	if o.MaxConcurrent < 0 {
		return nil, usageError{fmt.Errorf("--max-concurrent: %d is less than none", o.MaxConcurrent), "see bigdisk rollout rollback --help"}
	}
	if o.MaxConcurrent > 0 {
		speed.MaxConcurrent = o.MaxConcurrent
	}
	for name, to := range map[string]*fleet.Share{"max-per-zone": &speed.MaxPerZone, "max-failures": &speed.MaxFailures} {
		text := map[string]string{"max-per-zone": o.MaxPerZone, "max-failures": o.MaxFailures}[name]
		if text == "" {
			continue
		}
		share, err := fleet.ParseShare(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s: %w", name, err), "a number, or a percentage as in 20%"}
		}
		*to = share
	}
	if err := o.waves(&speed); err != nil {
		return nil, err
	}
	if err := speed.Check(); err != nil {
		return nil, usageError{err, "see bigdisk rollout rollback --help"}
	}
	return &speed, nil
}

// waves puts the waves asked for into speed.
func (o *rollbackOptions) waves(speed *state.Speed) error {
	if len(o.Waves) == 0 {
		return nil
	}
	speed.Waves = nil
	for i, text := range o.Waves {
		wave, err := parseWave(text, i+1)
		if err != nil {
			return usageError{fmt.Errorf("--wave %s: %w", text, err), "write it as 10% or 10%:5m"}
		}
		speed.Waves = append(speed.Waves, wave)
	}
	if last := speed.Waves[len(speed.Waves)-1]; last.Hosts != fleet.Percent(100) {
		return usageError{errors.New("--wave: the last one has to be 100%"), "add --wave 100%"}
	}
	return nil
}

// parseWave reads SHARE or SHARE:BAKE.
func parseWave(text string, n int) (state.WaveConfig, error) {
	share, bake, hasBake := strings.Cut(text, ":")
	hosts, err := fleet.ParseShare(share)
	if err != nil {
		return state.WaveConfig{}, err
	}
	wave := state.WaveConfig{Name: fmt.Sprintf("wave-%d", n), Hosts: hosts, Min: 1}
	if hasBake {
		d, err := time.ParseDuration(bake)
		if err != nil {
			return wave, err
		}
		wave.Bake = state.Duration(d)
	}
	return wave, nil
}
