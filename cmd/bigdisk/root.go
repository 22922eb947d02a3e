package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "bigdisk",
		Short:         "Turn a lock file of Nix modules into disks that thousands of hosts mount",
		Example:       "  bigdisk build --lock modules.json --from https://cache.example.org -o disk.sqsh",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("no command given"), "see bigdisk --help"}
			}
			return unknownCommand(cmd, args[0])
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("bigdisk {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{plainFlagError(err), "see " + cmd.CommandPath() + " --help"}
	})
	root.AddCommand(newBuild(), newPack(), newPublish(), newConfig(), newVerify(), newInspect(), newLs(), newCat(), newDiff(), newLock(), newModules(), newHost(), newRollout(), newGC(), newRelease())
	return root
}

// plainFlagError says of a wrong value which flag it is for, and in plain words
// what is wrong.
func plainFlagError(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	if errors.As(err, new(*strconv.NumError)) {
		return fmt.Errorf("--%s: %q is not a number that will do", invalid.GetFlag().Name, invalid.GetValue())
	}
	return fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := "see bigdisk --help"
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = "did you mean bigdisk " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("unknown command %q", name), hint}
}

// noArgs refuses what is left on a command line once the flags are read.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{
		fmt.Errorf("%s takes no arguments, and %q is one", cmd.CommandPath(), args[0]),
		"see " + cmd.CommandPath() + " --help",
	}
}
