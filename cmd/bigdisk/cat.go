package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

func newCat() *cobra.Command {
	return &cobra.Command{
		Use:     "cat IMAGE PATH",
		Short:   "Print a file of an image, without mounting it",
		Example: "  bigdisk cat disk.sqsh /etc/nixmodules/modules.json",
		Args:    func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 2, 2) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCat(cmd.Context(), args[0], args[1], cmd.OutOrStdout())
		},
	}
}

func runCat(ctx context.Context, name, path string, stdout io.Writer) error {
	im, err := read.Open(name)
	if err != nil {
		return err
	}
	defer im.Close()
	n, err := im.Lookup(path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch n.Kind {
	case store.Regular:
	case store.Symlink:
		return fmt.Errorf("%s: %s is a symlink to %s: give that path instead", name, path, printable(n.Target))
	default:
		return fmt.Errorf("%s: %s is not a regular file", name, path)
	}
	if err := read.Guard("reading "+path, func() error { return im.CopyNode(ctx, stdout, n) }); err != nil {
		return fmt.Errorf("%s: %s: %w", name, path, err)
	}
	return nil
}
