package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/lock/worktree"
)

// lockFlake is what --flake is for where a lock file is updated.
const lockFlake = "the flake's `DIRECTORY`, in a Git work tree (default the lock file's)"

func newLock() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Keep the lock file: update, verify, check",
		Long: `Keep the lock file, which says for each version of each module its commit and its
store path. It only ever grows at its end.`,
		Example: `  bigdisk lock update && git commit -m "Lock modules" modules.json
  bigdisk lock verify
  bigdisk lock check --upstream origin/main`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return errNoSubcommand(cmd) },
	}
	cmd.AddCommand(newLockUpdate(), newLockVerify(), newLockCheck())
	return cmd
}

// noSubcommand refuses a command that a group of them does not have.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0]), "see " + cmd.CommandPath() + " --help"}
}

func errNoSubcommand(cmd *cobra.Command) error {
	return usageError{fmt.Errorf("%s takes a command", cmd.CommandPath()), "see " + cmd.CommandPath() + " --help"}
}

type lockUpdateOptions struct {
	nixOptions
	Lock  string
	Dirty bool
	JSON  bool
}

func (o *lockUpdateOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.Lock, "lock", defaultLock, "the lock `FILE`")
	o.nixOptions.AddFlags(f, lockFlake)
	f.BoolVar(&o.Dirty, "dirty", false, "evaluate the work tree with its changes, and lock that for the commit before them")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

// update evaluates the flake.
func (o *lockUpdateOptions) update(ctx context.Context) (*worktree.Update, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	return worktree.NewUpdate(ctx, worktree.UpdateOptions{Lock: o.Lock, Flake: o.Flake, Attr: o.Attr, Dirty: o.Dirty, Client: client})
}

func newLockUpdate() *cobra.Command {
	var opts lockUpdateOptions
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Lock the versions of modules that are not locked yet",
		Long: `Evaluate the modules of the flake at the commit that is checked out and append to
the lock file each whose path is not that of its newest version, as
ID:vN-YYYYMMDD-SHORTSHA. What is there stays, byte for byte. After a merge
conflict, take upstream's lock file as it is, finish the merge and run this.`,
		Example: `  bigdisk lock update
  bigdisk lock update --lock locks/modules.json --flake . --flake-attr deploymentModules`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLockUpdate(cmd.Context(), &opts, cmd.OutOrStdout())
		},
	}
	opts.addFlags(cmd)
	return cmd
}

func runLockUpdate(ctx context.Context, opts *lockUpdateOptions, stdout io.Writer) error {
	u, err := opts.update(ctx)
	if err != nil {
		return err
	}
	if len(u.Entries) > 0 {
		if err := writeText(opts.Lock, u.Text); err != nil {
			return err
		}
	}
	if opts.JSON {
		return printLocked(stdout, u)
	}
	for _, e := range u.Entries {
		fmt.Fprintf(stdout, "%s %s\n", e.Key(), e.Path)
	}
	_, err = fmt.Fprintf(stdout, "%s: %d added at commit %s\n", opts.Lock, len(u.Entries), u.Commit)
	return err
}

// printLocked writes entries as JSON.
func printLocked(w io.Writer, u *worktree.Update) error {
	type entry struct {
		ID   string `json:"id"`
		Path string `json:"path"`
	}
	result := struct {
		Commit string  `json:"commit"`
		Added  []entry `json:"added"`
	}{u.Commit.String(), []entry{}}
	for _, e := range u.Entries {
		result.Added = append(result.Added, entry{e.Key(), string(e.Path)})
	}
	return json.NewEncoder(w).Encode(result)
}

func newLockVerify() *cobra.Command {
	var opts lockUpdateOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Fail if bigdisk lock update would change the lock file",
		Long: `Evaluate the modules of the flake as bigdisk lock update does, and list the
versions that it would add. Then the exit status is 1.`,
		Example: "  bigdisk lock verify --lock modules.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := opts.update(cmd.Context())
			if err != nil {
				return err
			}
			return reportVerified(&opts, u, cmd.OutOrStdout())
		},
	}
	opts.addFlags(cmd)
	return cmd
}

func reportVerified(opts *lockUpdateOptions, u *worktree.Update, stdout io.Writer) error {
	var err error
	if opts.JSON {
		err = printLocked(stdout, u)
	} else {
		for _, e := range u.Entries {
			fmt.Fprintf(stdout, "%s %s\n", e.Key(), e.Path)
		}
	}
	if err != nil || len(u.Entries) == 0 {
		return err
	}
	return hintedError{fmt.Errorf("%s is not up to date with commit %s: %d to add", opts.Lock, u.Commit, len(u.Entries)), "run bigdisk lock update, and commit what it writes"}
}

// hintedError is a failure that says what to do.
type hintedError struct {
	err  error
	hint string
}

// Error is the error without its hint.
func (e hintedError) Error() string { return e.err.Error() }

// Unwrap returns the error without its hint.
func (e hintedError) Unwrap() error { return e.err }

// errBroken ends a check that has found something.
var errBroken = errors.New("the lock file breaks rules")

func newLockCheck() *cobra.Command {
	var opts worktree.CheckOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that the lock file was only ever added to, and agrees with the history",
		Long: `Check the lock file without evaluating anything: the form of every ID, tag,
commit and store path; that every commit is in the history of what is checked
out and made on the day of the tag; that no two versions of a module have the same
number; and with --upstream, that every entry of that revision's file is still
there, unchanged and in its place. Each rule that is broken is a line on standard
output; then the exit status is 1.`,
		Example: `  bigdisk lock check --upstream origin/main
  bigdisk lock check --json --lock locks/modules.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLockCheck(cmd.Context(), opts, asJSON, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&opts.Lock, "lock", defaultLock, "the lock `FILE`, in a Git work tree")
	f.StringVar(&opts.Upstream, "upstream", "", "compare with the lock file of this `REVISION`, origin/main for instance")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func runLockCheck(ctx context.Context, opts worktree.CheckOptions, asJSON bool, stdout io.Writer) error {
	report, err := worktree.Check(ctx, opts)
	if err != nil {
		return err
	}
	if asJSON {
		err = json.NewEncoder(stdout).Encode(report)
	} else {
		err = printLockReport(stdout, opts, report)
	}
	if err == nil && len(report.Problems) > 0 {
		err = hintedError{fmt.Errorf("%s: %w", opts.Lock, errBroken), "after a merge conflict, " + worktree.Fix}
	}
	return err
}

func printLockReport(w io.Writer, opts worktree.CheckOptions, r *worktree.Report) error {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	compared := "not compared with an upstream file"
	if r.Upstream != "" {
		compared = "compared with " + opts.Upstream
	}
	_, err := fmt.Fprintf(w, "%s: %d entries of %d commits, %d problems, %s\n", opts.Lock, r.Entries, r.Commits, len(r.Problems), compared)
	return err
}

// readLockFile reads a lock file; errors name it.
func readLockFile(name string) (*lock.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := lock.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}
