// Command bigdisk-env is bigdisk host env by itself: a program that is small
// enough to start, and to be read from a cold disk, in a few milliseconds.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"bigdisk/bundle/environment"
	"bigdisk/pipeline/host/modenv"
)

// The exit statuses are those of bigdisk.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole command: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	f := pflag.NewFlagSet("bigdisk-env", pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.SortFlags = false
	service := f.String("service", "", "the `NAME` that disks and directories are called after")
	mountRoot := f.String("mount-root", "/mnt", "the `DIRECTORY` in which the service has its own")
	root := f.String("root", "", "read the disk that is mounted at this `DIRECTORY` (default the service's current one)")
	keep := f.StringArray("keep", nil, "let the variable `NAME`, such as PATH, go on with what it is already (repeatable)")
	asJSON := f.Bool("json", false, "print the environment, and how it was resolved, as JSON")
	f.Usage = func() {
		fmt.Fprintf(stdout, "usage: bigdisk-env (--service NAME|--root DIR) [flags] ID\n%s", f.FlagUsages())
	}
	err := f.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err == nil && (f.NArg() != 1 || (*root == "") == (*service == "")) {
		err = errors.New("it takes one module, and either --service or --root")
	}
	if err == nil && *root == "" {
		*root, err = modenv.Current(*mountRoot, *service)
	}
	if err != nil {
		report(stderr, err, "see bigdisk-env --help")
		return exitUsage
	}
	if err := print(*root, f.Arg(0), stdout, stderr, *asJSON, *keep); err != nil {
		report(stderr, err, hintFor(err))
		return exitFailure
	}
	return 0
}

// report prints err, and what to do about it if that is known.
func report(stderr io.Writer, err error, hint string) {
	fmt.Fprintf(stderr, "bigdisk-env: %v\n", err)
	if hint != "" {
		fmt.Fprintf(stderr, "bigdisk-env: hint: %s\n", hint)
	}
}

// hintFor tells what bigdisk host env tells.
func hintFor(err error) string {
	switch {
	case errors.Is(err, environment.ErrStale):
		return "check the disk with bigdisk verify: an environment is made when the disk is"
	case errors.Is(err, modenv.ErrNoDisk):
		return "bigdisk host mount mounts a disk, bigdisk host status shows which one is current"
	}
	return ""
}

func print(root, id string, stdout, stderr io.Writer, asJSON bool, keep []string) error {
	m, err := modenv.Read(root, id)
	if err != nil {
		return err
	}
	skipped, err := m.Write(stdout, asJSON, keep...)
	for _, name := range skipped {
		fmt.Fprintf(stderr, "bigdisk-env: warning: %s: left out %q, which a shell does not let be set: see --json\n", m.Version.ID, name)
	}
	return err
}
