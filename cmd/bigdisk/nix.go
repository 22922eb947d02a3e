package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/pflag"

	"bigdisk/bundle/nixcmd"
	"bigdisk/image/atomicfile"
	"bigdisk/pipeline"
)

// nixOptions say which Nix is used, and what it builds from.
type nixOptions struct {
	Flake    string   `yaml:"flake"`
	Attr     string   `yaml:"flake-attr"`
	Store    string   `yaml:"nix-store"`
	Settings []string `yaml:"nix-option"`
}

// AddFlags binds the options to flags; flake says what --flake is for.
func (o *nixOptions) AddFlags(f *pflag.FlagSet, flake string) {
	f.StringVar(&o.Flake, "flake", "", flake)
	f.StringVar(&o.Attr, "flake-attr", "", "the flake's `ATTRIBUTE` with the modules (default \""+nixcmd.DefaultAttr+"\")")
	f.StringVar(&o.Store, "nix-store", "", "have Nix use this `STORE`, local?root=DIR for instance, instead of the one that it is configured for")
	f.StringArrayVar(&o.Settings, "nix-option", nil, "have Nix use this setting, `NAME=VALUE` (repeatable)")
}

// client is that Nix.
func (o *nixOptions) client() (nixcmd.Client, error) {
	for _, s := range o.Settings {
		if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
			return nixcmd.Client{}, usageError{fmt.Errorf("--nix-option: %q is not NAME=VALUE", s), "see the settings in the manual page nix.conf"}
		}
	}
	return nixcmd.Client{Store: o.Store, Settings: o.Settings}, nil
}

// resolve makes the flake relative to dir, unless it is a reference like
// github:OWNER/REPO.
func (o *nixOptions) resolve(dir string) {
	if o.Flake != "" && !strings.Contains(o.Flake, ":") {
		o.Flake = relativeTo(dir, o.Flake)
	}
}

// defaultStores are the stores that paths are taken from when none is named:
// Nix, where it is installed.
func defaultStores() []string {
	if _, err := exec.LookPath("nix-store"); err != nil {
		return nil
	}
	return []string{pipeline.NixStore}
}

// writeWhole writes a file that appears once it is whole.
func writeWhole(name string, write func(io.Writer) error) error {
	f, err := atomicfile.Create(name)
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := write(f); err != nil {
		return err
	}
	return f.Commit()
}

// writeText writes a text that appears once it is whole.
func writeText(name string, text []byte) error {
	return writeWhole(name, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}
