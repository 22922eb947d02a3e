package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/pipeline/host"
	"bigdisk/pipeline/host/modenv"
)

func newHost() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "On a host: mount, overlay, status, env",
		Long: `Find the disk that is attached to this machine, check it, mount it read-only and
make it current; stack a writable Nix store on it; and read from it.`,
		Example: `  bigdisk host mount --service nix --watch
  bigdisk host overlay --service nix --upper /var/lib/nix-upper
  env=$(bigdisk host env --service nix --keep PATH python-3.10) && eval "$env"`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return errNoSubcommand(cmd) },
	}
	cmd.AddCommand(newHostMount(), newHostOverlay(), newHostStatus(), newHostEnv())
	return cmd
}

// serviceOptions say which service, and where its disks are.
type serviceOptions struct {
	Service   string
	DeviceDir string
	MountRoot string
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *serviceOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.Service, "service", "", "the `NAME` that disks and directories are called after")
	f.StringVar(&o.MountRoot, "mount-root", host.DefaultMountRoot, "the `DIRECTORY` in which the service has its own")
}

func (o *serviceOptions) addDeviceDir(f *pflag.FlagSet) {
	f.StringVar(&o.DeviceDir, "device-dir", host.DefaultDeviceDir, "look for google-SERVICE-VERSION, a disk or an image file, in this `DIRECTORY`")
}

// check makes sure that there is a service, and that it can be one.
func (o *serviceOptions) check(cmd *cobra.Command) error {
	if o.Service == "" {
		return usageError{errors.New("it takes --service"), "see " + cmd.CommandPath() + " --help"}
	}
	if _, err := modenv.Current(o.MountRoot, o.Service); err != nil {
		return usageError{err, "see " + cmd.CommandPath() + " --help"}
	}
	return nil
}

func (o *serviceOptions) options() host.Options {
	return host.Options{Service: o.Service, DeviceDir: o.DeviceDir, MountRoot: o.MountRoot}
}

// onGoogle reports whether this is a machine of Compute Engine.
func onGoogle() bool {
	name, err := os.ReadFile("/sys/class/dmi/id/product_name")
	return err == nil && strings.HasPrefix(string(name), "Google")
}
