package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"bigdisk/gcp/fleet"
)

// defaultFleet is the fleet's configuration when none is named.
const defaultFleet = "fleet.yaml"

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Look at configuration files",
		Example: "  bigdisk config check fleet.yaml",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes a command", cmd.CommandPath()), "see bigdisk config --help"}
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(newConfigCheck())
	return cmd
}

func newConfigCheck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a fleet's configuration without touching anything",
		Long: `Read a fleet.yaml as publish, rollout and gc do, and say what it comes to. Each
fault is told with its line and key. Nobody is asked whether projects, zones and
buckets exist: bigdisk publish --dry-run does that.`,
		Example: "  bigdisk config check\n  bigdisk config check --json configs/fleet.yaml",
		Args:    func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 0, 1) },
		RunE: func(cmd *cobra.Command, args []string) error {
			file := defaultFleet
			if len(args) > 0 {
				file = args[0]
			}
			return runConfigCheck(file, asJSON, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the file comes to, defaults filled in, as JSON")
	return cmd
}

func runConfigCheck(file string, asJSON bool, stdout io.Writer) error {
	config, err := fleet.Load(file)
	if err != nil {
		return err
	}
	if asJSON {
		text, err := config.JSON()
		if err != nil {
			return err
		}
		_, err = stdout.Write(text)
		return err
	}
	zones, disks := 0, 0
	for _, t := range config.Targets {
		zones += len(t.Zones)
		for _, z := range t.Zones {
			disks += z.Copies
		}
	}
	_, err = fmt.Fprintf(stdout, "%s: service %s, %d projects, %d zones, %d disks a version, %d waves\n",
		file, config.Service, len(config.Projects()), zones, disks, len(config.Rollout.Waves))
	return err
}

// loadFleet reads the configuration that a command of the fleet works with.
func loadFleet(file string) (*fleet.Config, error) {
	config, err := fleet.Load(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("configuration: %w", err), "check it with bigdisk config check " + file}
	}
	return config, nil
}
