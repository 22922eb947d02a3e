package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"bigdisk/gcp/rawtar"
)

// targzCommand makes the archive that is otherwise made while it is sent.
func targzCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "targz IMAGE -o FILE",
		Short: "make the archive of an image that Compute Engine imports",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			a, err := rawtar.Open(args[0], rawtar.Options{})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close()) }()
			f, err := os.Create(output)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			return a.Write(c.Context(), f, runtime.GOMAXPROCS(0))
		},
	}
	c.Flags().StringVarP(&output, "output", "o", os.DevNull, "the archive")
	return c
}

// targz makes archives of a squashfs and of an ext4 image.
func (b *bench) targz() error {
	squash, ext := b.buildTo(b.out(".sqsh"), "squashfs"), b.buildTo(b.out(".raw"), "ext4")
	for _, c := range []contender{squash, ext} {
		c.keep = true
		if _, err := c.run(b.ctx, false); err != nil {
			return err
		}
		defer removeImage(c.out)
	}
	// Nothing is written, so that the disk does not count.
	rows, err := race(b.ctx, b.rounds, []contender{
		{name: "cat", steps: []step{{"sh", "-c", fmt.Sprintf("cat %q > %s", squash.out, os.DevNull)}}},
		{name: "bigdisk", steps: []step{{b.self, "targz", squash.out}}},
	})
	if err != nil {
		return err
	}
	printTable(os.Stdout, "tar.gz of squashfs", rows)
	ours, theirs := b.out(".tar.gz"), b.out(".pigz.tar.gz")
	pigz := fmt.Sprintf("tar --format=oldgnu -C %q -Scf - %q | pigz --best > %q", filepath.Dir(ext.out), filepath.Base(ext.out), theirs)
	contenders := []contender{{name: "bigdisk", out: ours, steps: []step{{b.self, "targz", ext.out, "-o", ours}}}}
	if present("pigz") {
		contenders = append(contenders, contender{name: "tar, pigz --best", out: theirs, steps: []step{{"sh", "-c", pigz}}})
	}
	if rows, err = race(b.ctx, b.rounds, contenders); err == nil {
		printTable(os.Stdout, "tar.gz of ext4", rows)
	}
	return err
}
