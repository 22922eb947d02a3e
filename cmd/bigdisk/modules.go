package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/pipeline"
	"bigdisk/pipeline/progress"
)

func newModules() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "What hosts know about modules: upgrade-maps, active, resolve",
		Long: `Make the files about modules that hosts read, and follow the upgrade maps as hosts
do.`,
		Example: `  bigdisk modules upgrade-maps --mapping mapping.yaml -o maps
  bigdisk modules active --from / -o active-modules.json
  bigdisk modules resolve go-1.20 --mapping mapping.yaml`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return errNoSubcommand(cmd) },
	}
	cmd.AddCommand(newUpgradeMaps(), newActive(), newResolve())
	return cmd
}

type upgradeMapsOptions struct{ Lock, Mapping, Output string }

func newUpgradeMaps() *cobra.Command {
	var opts upgradeMapsOptions
	cmd := &cobra.Command{
		Use:   "upgrade-maps --mapping FILE -o DIR",
		Short: "Make auto-upgrade.json and recommend-upgrade.json",
		Long: `Make the upgrade maps that hosts follow from a mapping, a YAML or JSON file:

  "a:v1-20240301-c48c43c": {to: "a:v2-20240302-15011da", auto: true, changelog: "faster"}
  linear: [go-1.20, python-3.10]   # each locked version leads to the next
  step: ["b:v1-20240301-c48c43c", "c:v1-20240302-15011da"]   # each leads to the next

Versions that are not locked, upgrades that go round in a circle and automatic
ones that do not end at a locked version are refused.`,
		Example: "  bigdisk modules upgrade-maps --lock modules.json --mapping mapping.yaml -o maps",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runUpgradeMaps(&opts, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.Lock, "lock", defaultLock, "the lock `FILE`")
	f.StringVar(&opts.Mapping, "mapping", "", "the mapping, a YAML or JSON `FILE`")
	f.StringVarP(&opts.Output, "output", "o", "", "write the maps into this `DIRECTORY`")
	return cmd
}

func runUpgradeMaps(opts *upgradeMapsOptions, stdout io.Writer) error {
	if opts.Mapping == "" || opts.Output == "" {
		return usageError{errors.New("it takes --mapping and -o"), "see bigdisk modules upgrade-maps --help"}
	}
	maps, _, err := readMaps(opts.Lock, opts.Mapping)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(opts.Output, 0o755); err != nil {
		return err
	}
	for _, m := range []struct {
		name     string
		upgrades map[string]modules.Upgrade
	}{{"auto-upgrade.json", maps.Auto}, {"recommend-upgrade.json", maps.Recommend}} {
		text, err := modules.Encode(m.upgrades)
		if err != nil {
			return err
		}
		name := filepath.Join(opts.Output, m.name)
		if err := writeText(name, text); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: %d upgrades\n", name, len(m.upgrades))
	}
	return nil
}

// readMaps makes the maps from a mapping.
func readMaps(lockName, mapping string) (*modules.Maps, *lock.File, error) {
	file, err := readLockFile(lockName)
	if err != nil {
		return nil, nil, err
	}
	m, err := modules.ReadMapping(mapping)
	if err != nil {
		return nil, nil, err
	}
	maps, err := m.Maps(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", mapping, err)
	}
	return maps, file, nil
}

type activeOptions struct {
	nixOptions
	Lock        string
	Output      string
	From        []string
	TrustedKeys []string
	NoCheckSigs bool
	SkipMissing bool
	Jobs        int
	Progress    string
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *activeOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Lock, "lock", defaultLock, "the lock `FILE`")
	f.StringVarP(&o.Output, "output", "o", "", "write to this `FILE` (default standard output)")
	f.StringArrayVar(&o.From, "from", nil, "read modules from this `STORE`, as bigdisk build does (repeatable; default nix where it is installed)")
	f.StringArrayVar(&o.TrustedKeys, "trusted-key", nil, "accept what `NAME:BASE64` has signed (repeatable; default cache.nixos.org-1's)")
	f.BoolVar(&o.NoCheckSigs, "no-check-sigs", false, "accept what nobody has signed")
	o.nixOptions.AddFlags(f, "list only the modules that this `FLAKE` has, in its work tree if it is a directory")
	f.BoolVar(&o.SkipMissing, "skip-missing", false, "give modules that cannot be had their IDs as names")
	f.IntVar(&o.Jobs, "jobs", 0, "`N` workers (default the number of CPUs)")
	f.StringVar(&o.Progress, "progress", string(progress.Auto), "show progress as `MODE`: auto, plain, json or none")
}

func newActive() *cobra.Command {
	var opts activeOptions
	cmd := &cobra.Command{
		Use:   "active [-o FILE]",
		Short: "Make active-modules.json",
		Long: `List the active modules for a registry: for each what its newest locked version
says about itself, name and description, and its tag, version, commit and path,
and the tags of all its versions. All locked modules are active, unless --flake
says which still are.`,
		Example: `  bigdisk modules active --from / -o active-modules.json
  bigdisk modules active --flake . --from https://cache.example.org -o active-modules.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runActive(cmd.Context(), &opts, cmd.OutOrStdout()) },
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func runActive(ctx context.Context, opts *activeOptions, stdout io.Writer) error {
	mode, err := progress.ParseMode(opts.Progress)
	if err != nil {
		return usageError{fmt.Errorf("--progress: %w", err), "see bigdisk modules active --help"}
	}
	client, err := opts.client()
	if err != nil {
		return err
	}
	build := pipeline.BuildOptions{
		Lock: opts.Lock, From: opts.From, TrustedKeys: opts.TrustedKeys, NoCheckSigs: opts.NoCheckSigs,
		Nix: client, Flake: opts.Flake, FlakeAttr: opts.Attr, SkipMissing: opts.SkipMissing, Jobs: opts.Jobs,
		Progress: progress.New(nil),
	}
	if len(build.From) == 0 {
		build.From = defaultStores()
	}
	for i := range build.From {
		if build.From[i], err = resolveStore(".", build.From[i]); err != nil {
			return err
		}
	}
	display := progress.Show(build.Progress, mode, os.Stderr)
	build.Logger = newLogger(display)
	text, err := pipeline.ActiveModules(ctx, build)
	display.Close()
	if err != nil {
		return err
	}
	if opts.Output != "" {
		return writeText(opts.Output, text)
	}
	_, err = stdout.Write(text)
	return err
}

type resolveOptions struct {
	Lock, Mapping, Auto, Recommend string
	JSON                           bool
}

func newResolve() *cobra.Command {
	var opts resolveOptions
	cmd := &cobra.Command{
		Use:   "resolve ID",
		Short: "Follow the upgrade maps from a module, as a host would",
		Long: `Follow the automatic upgrades from a version (ID:TAG), a name that is upgraded, or
a module's ID, which stands for its newest version, and say where they end and
what would be recommended there.`,
		Example: `  bigdisk modules resolve go-1.20:v1-20230623-0b7a606 --mapping mapping.yaml
  bigdisk modules resolve bun --auto-upgrade auto-upgrade.json --recommend-upgrade recommend-upgrade.json --json`,
		Args: func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 1, 1) },
		RunE: func(cmd *cobra.Command, args []string) error { return runResolve(&opts, args[0], cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.Lock, "lock", defaultLock, "the lock `FILE`")
	f.StringVar(&opts.Mapping, "mapping", "", "make the maps from this mapping, a YAML or JSON `FILE`")
	f.StringVar(&opts.Auto, "auto-upgrade", "", "the `FILE` with automatic upgrades")
	f.StringVar(&opts.Recommend, "recommend-upgrade", "", "the `FILE` with recommended upgrades")
	f.BoolVar(&opts.JSON, "json", false, "print the result as JSON")
	return cmd
}

func runResolve(opts *resolveOptions, id string, stdout io.Writer) error {
	maps, file, err := opts.read()
	if err != nil {
		return err
	}
	r, err := maps.Resolve(file, id)
	if err != nil {
		return err
	}
	if opts.JSON {
		return json.NewEncoder(stdout).Encode(r)
	}
	return printResolution(stdout, r)
}

// read reads the lock file and the maps.
func (o *resolveOptions) read() (*modules.Maps, *lock.File, error) {
	if o.Mapping != "" {
		if o.Auto != "" || o.Recommend != "" {
			return nil, nil, usageError{errors.New("--mapping makes the maps that --auto-upgrade and --recommend-upgrade give"), "leave one or the other out"}
		}
		return readMaps(o.Lock, o.Mapping)
	}
	file, err := readLockFile(o.Lock)
	if err != nil {
		return nil, nil, err
	}
	maps := new(modules.Maps)
	if maps.Auto, err = readMap(o.Auto); err != nil {
		return nil, nil, err
	}
	maps.Recommend, err = readMap(o.Recommend)
	return maps, file, err
}

// readMap reads a map, if there is one.
func readMap(name string) (map[string]modules.Upgrade, error) {
	if name == "" {
		return nil, nil
	}
	return modules.ReadMap(name)
}

// printResolution writes a resolution for people: a line a step.
func printResolution(w io.Writer, r *modules.Resolution) error {
	print := func(what string, steps []modules.Step) {
		for _, s := range steps {
			fmt.Fprintf(w, "%s %s -> %s\n", what, s.From, s.To)
			if s.Changelog != "" {
				fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(strings.TrimSpace(s.Changelog), "\n", "\n  "))
			}
		}
	}
	print("upgrade", r.Auto)
	fmt.Fprintf(w, "%s %s\n", r.Version.ID, r.Version.Path)
	if r.Recommended == nil {
		return nil
	}
	print("recommend", r.Recommend)
	_, err := fmt.Fprintf(w, "recommended: %s %s\n", r.Recommended.ID, r.Recommended.Path)
	return err
}
