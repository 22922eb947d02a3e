package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

type lsOptions struct {
	Long, Recursive, JSON bool
}

func newLs() *cobra.Command {
	var opts lsOptions
	cmd := &cobra.Command{
		Use:   "ls IMAGE [PATH]",
		Short: "List a directory of an image, without mounting it",
		Example: `  bigdisk ls disk.sqsh /nix/store
  bigdisk ls -lR disk.raw /etc`,
		Args: func(cmd *cobra.Command, args []string) error { return wantArgs(cmd, args, 1, 2) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLs(&opts, args[0], strings.Join(args[1:], ""), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&opts.Long, "long", "l", false, "mode, owner, size and where symlinks point, too")
	f.BoolVarP(&opts.Recursive, "recursive", "R", false, "everything below, as paths")
	f.BoolVar(&opts.JSON, "json", false, "print a JSON object a line")
	return cmd
}

// lsEntry is a line of ls --json.
type lsEntry struct {
	Path   string `json:"path"`
	Type   string `json:"type"`
	Mode   string `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Mtime  int64  `json:"mtime"`
	Size   int64  `json:"size"`
	Target string `json:"target,omitempty"`
}

func runLs(opts *lsOptions, name, path string, stdout io.Writer) error {
	im, err := read.Open(name)
	if err != nil {
		return err
	}
	defer im.Close()
	n, err := im.Lookup(path)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	out := bufio.NewWriter(stdout)
	err = read.Guard("listing "+path, func() error {
		return im.Walk(n, func(below string, n *read.Node, leave bool) error {
			switch {
			case leave, below == "" && n.Kind == store.Directory:
				return nil
			case below == "":
				below = path
			}
			if err := opts.print(out, below, n); err != nil {
				return err
			}
			if n.Kind == store.Directory && !opts.Recursive {
				return read.SkipDir
			}
			return nil
		})
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return cmp.Or(err, out.Flush())
}

func (o *lsOptions) print(w io.Writer, path string, n *read.Node) (err error) {
	kind := n.Kind.String()
	if n.Kind == 0 {
		kind = "special"
	}
	switch {
	case o.JSON:
		err = json.NewEncoder(w).Encode(lsEntry{path, kind, fmt.Sprintf("%04o", n.Mode), n.UID, n.GID, n.Mtime, n.Size, n.Target})
	case o.Long:
		_, err = fmt.Fprintf(w, "%s%s\n", longLine(n), printable(path)+arrow(n))
	default:
		_, err = fmt.Fprintln(w, printable(path))
	}
	return err
}

func longLine(n *read.Node) string {
	letter := map[store.Kind]byte{store.Directory: 'd', store.Regular: '-', store.Symlink: 'l'}[n.Kind]
	if letter == 0 {
		letter = '?'
	}
	return fmt.Sprintf("%c%v %5d:%-5d %12d ", letter, os.FileMode(n.Mode & 0o777).String()[1:], n.UID, n.GID, n.Size)
}

func arrow(n *read.Node) string {
	if n.Kind != store.Symlink {
		return ""
	}
	return " -> " + printable(n.Target)
}

// printable keeps what an image holds from giving orders to a terminal.
func printable(s string) string {
	for _, c := range s {
		if c < ' ' || c == 0x7f || c == 0xfffd || (c >= 0x80 && c < 0xa0) {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}
