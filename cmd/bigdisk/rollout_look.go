package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/state"
)

func newRolloutStatus() *cobra.Command {
	var opts fleetOptions
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print how far the rollout is, and what is wrong",
		Long: `Print the rollout's progress by wave and by zone, the hosts in change, those that
failed and why, and about how long it will take. It reads one object in the bucket
and nothing else, so that it costs nothing to look often.`,
		Example: "  bigdisk rollout status --watch\n  bigdisk rollout status --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRolloutStatus(cmd.Context(), &opts, watch, every, cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&watch, "watch", false, "print it again and again until the rollout has ended")
	cmd.Flags().DurationVar(&every, "interval", 3*time.Second, "with --watch: print it every so `LONG`")
	return cmd
}

func runRolloutStatus(ctx context.Context, opts *fleetOptions, watch bool, every time.Duration, stdout io.Writer) error {
	if every < 100*time.Millisecond {
		return usageError{fmt.Errorf("--interval: %v is too short", every), "give 100ms or more"}
	}
	s, c, err := connect(ctx, opts, false, os.Stderr)
	if err != nil {
		return err
	}
	defer c.Close()
	if !watch {
		return printRollout(ctx, s, opts.JSON, stdout)
	}
	return watchStatus(ctx, s, opts.JSON, every, stdout)
}

// watchStatus prints until no rollout is under way or ctx ends.
func watchStatus(ctx context.Context, s *rollout.Service, asJSON bool, every time.Duration, stdout io.Writer) error {
	terminal := stdout == io.Writer(os.Stdout) && term.IsTerminal(int(os.Stdout.Fd()))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		var page bytes.Buffer
		if terminal && !asJSON {
			page.WriteString("\x1b[H\x1b[2J")
		}
		st, err := s.Status(ctx)
		if err != nil {
			return hinted(err)
		}
		if err := printJSONOr(&page, asJSON, st, st.Text); err != nil {
			return err
		}
		if _, err := stdout.Write(page.Bytes()); err != nil {
			return err
		}
		if r := st.Rollout; r == nil || r.Phase != state.Running && r.Phase != state.Paused {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func printRollout(ctx context.Context, s *rollout.Service, asJSON bool, stdout io.Writer) error {
	st, err := s.Status(ctx)
	if err != nil {
		return hinted(err)
	}
	return printJSONOr(stdout, asJSON, st, st.Text)
}

// printJSONOr writes a value as JSON, or as text writes it.
func printJSONOr(w io.Writer, asJSON bool, v any, text func(io.Writer) error) error {
	if asJSON {
		return printJSON(w, v)
	}
	return text(w)
}

// newRolloutAsk makes the commands that ask the controller for something.
func newRolloutAsk(action, short string) *cobra.Command {
	var opts fleetOptions
	var reason string
	cmd := &cobra.Command{
		Use:   action,
		Short: short,
		Long: short + `.

The request goes to the controller that is at work, which answers within seconds;
where none is, it takes effect at once, and bigdisk rollout start goes on from
there.`,
		Example: fmt.Sprintf("  bigdisk rollout %s --reason \"as discussed\"", action),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, c, err := connect(cmd.Context(), &opts, false, os.Stderr)
			if err != nil {
				return err
			}
			defer c.Close()
			asked := s.Ask(cmd.Context(), action, reason, nil)
			if asked != nil {
				return hinted(asked)
			}
			return printRollout(cmd.Context(), s, opts.JSON, cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	return cmd
}

func newRolloutHistory() *cobra.Command {
	var opts fleetOptions
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "List the rollouts that ended",
		Long:    "List the rollouts and rollbacks that ended, the oldest first, with how they ended\nand why.",
		Example: "  bigdisk rollout history --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, c, err := connect(cmd.Context(), &opts, false, os.Stderr)
			if err != nil {
				return err
			}
			defer c.Close()
			d, err := s.Document(cmd.Context())
			if err != nil {
				return err
			}
			return printHistory(cmd.OutOrStdout(), opts.JSON, d.History)
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func printHistory(w io.Writer, asJSON bool, past []state.Past) error {
	if asJSON {
		if past == nil {
			past = []state.Past{}
		}
		return printJSON(w, past)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "STARTED\tTOOK\tWHAT\tFROM\tTO\tENDED\tHOSTS\tFAILED\tBY\tWHY")
	for _, p := range past {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", p.Started.UTC().Format("2006-01-02 15:04Z"),
			p.Ended.Sub(p.Started).Round(time.Second), p.Kind, p.Previous, p.Version, p.Phase, p.Done, p.Failed, p.By, p.Reason)
	}
	return t.Flush()
}
