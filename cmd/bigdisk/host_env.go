package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bigdisk/bundle/environment"
	"bigdisk/pipeline/host/modenv"
)

type hostEnvOptions struct {
	serviceOptions
	Root string
	Keep []string
	JSON bool
}

func newHostEnv() *cobra.Command {
	var opts hostEnvOptions
	cmd := &cobra.Command{
		Use:   "env (--service NAME|--root DIR) ID",
		Short: "Print a module's environment, from the disk",
		Long: `Follow the disk's automatic upgrades from a module, as bigdisk modules resolve does,
and print the environment of the version where they end: as commands for a POSIX
shell, or as JSON. It was computed when the disk was built, and is checked against
the store path that it was made from. The program bigdisk-env is the same, and
quicker to start.`,
		Example: `  env=$(bigdisk host env --service nix --keep PATH python-3.10) && eval "$env"
  bigdisk host env --root /mnt/image --json python-3.10:v1-20230525-c48c43c`,
		Args: func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 1, 1) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if (opts.Root == "") == (opts.Service == "") {
				return usageError{errors.New("it takes either --service or --root"), "see bigdisk host env --help"}
			}
			return runHostEnv(&opts, args[0], cmd.OutOrStdout(), os.Stderr)
		},
	}
	f := cmd.Flags()
	opts.AddFlags(f)
	f.StringVar(&opts.Root, "root", "", "read the disk that is mounted at this `DIRECTORY` (default the service's current one)")
	f.StringArrayVar(&opts.Keep, "keep", nil, "let the variable `NAME`, such as PATH, go on with what it is already (repeatable)")
	f.BoolVar(&opts.JSON, "json", false, "print the environment, and how it was resolved, as JSON")
	return cmd
}

func runHostEnv(opts *hostEnvOptions, id string, stdout, stderr io.Writer) error {
	root := opts.Root
	if root == "" {
		var err error
		if root, err = modenv.Current(opts.MountRoot, opts.Service); err != nil {
			return usageError{err, "see bigdisk host env --help"}
		}
	}
	m, err := modenv.Read(root, id)
	if errors.Is(err, environment.ErrStale) {
		return hintedError{err, "check the disk with bigdisk verify: an environment is made when the disk is"}
	}
	if errors.Is(err, modenv.ErrNoDisk) {
		return hintedError{err, "bigdisk host mount mounts a disk, bigdisk host status shows which one is current"}
	}
	if err != nil {
		return err
	}
	skipped, err := m.Write(stdout, opts.JSON, opts.Keep...)
	for _, name := range skipped {
		fmt.Fprintf(stderr, "bigdisk: warning: %s: left out %q, which a shell does not let be set: see --json\n", m.Version.ID, name)
	}
	return err
}
