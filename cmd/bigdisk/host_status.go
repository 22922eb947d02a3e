package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"bigdisk/gcp/guest"
	"bigdisk/pipeline/host"
)

type hostStatusOptions struct {
	serviceOptions
	JSON bool
}

func newHostStatus() *cobra.Command {
	var opts hostStatusOptions
	cmd := &cobra.Command{
		Use:   "status --service NAME",
		Short: "Say what is attached, mounted, current and reported",
		Long: `Print which disks of the service are attached and mounted, which one is current,
and what was reported last. Nothing is changed, and nothing waited for. The exit
status is 1 if the last report says that a disk failed: what was current before it
still is.`,
		Example: `  bigdisk host status --service nix
  bigdisk host status --service nix --json
  bigdisk host status --service nix >/dev/null || echo "look at it"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.check(cmd); err != nil {
				return err
			}
			return runHostStatus(&opts, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	opts.AddFlags(f)
	opts.addDeviceDir(f)
	f.BoolVar(&opts.JSON, "json", false, "print it as JSON")
	return cmd
}

func runHostStatus(opts *hostStatusOptions, stdout io.Writer) error {
	s, err := host.ReadStatus(opts.options())
	if err != nil {
		return err
	}
	if opts.JSON {
		err = json.NewEncoder(stdout).Encode(s)
	} else {
		err = printStatus(stdout, s)
	}
	if r := s.Report; err == nil && r != nil && r.Health == guest.Failed {
		return hintedError{fmt.Errorf("service %s: version %s failed at %s: %s", s.Service, r.Version, r.Time.Format(time.RFC3339), r.Error),
			"bigdisk host mount tries it again, as host mount --watch does by itself"}
	}
	return err
}

func printStatus(w io.Writer, s *host.Status) error {
	p := &linePrinter{w: w}
	switch {
	case s.Current == "":
		p.line("%s: nothing is current", s.Service)
	case !s.Mounted:
		p.line("%s: %s is current, but not mounted", s.Service, s.Current)
	default:
		p.line("%s: %s is current, at %s", s.Service, s.Current, s.Path)
	}
	for _, v := range s.Versions {
		p.line("  mounted   %s  %s, from %s", v.Version, v.Format, v.Source)
	}
	for _, d := range s.Attached {
		p.line("  attached  %s  %s", d.Version, d.Path)
	}
	if r := s.Report; r != nil {
		p.line("  reported  %s  %s at %s", r.Version, r.Health, r.Time.Format(time.RFC3339))
		if r.Error != "" {
			p.line("            %s", r.Error)
		}
	}
	return p.err
}

// linePrinter writes lines until one cannot be written.
type linePrinter struct {
	w   io.Writer
	err error
}

func (p *linePrinter) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
