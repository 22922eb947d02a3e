package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/ext4"
	"github.com/diskfs/go-diskfs/filesystem/squashfs"
	"github.com/spf13/cobra"
)

// diskfsCommand makes an image with go-diskfs. Bench calls it, so that it is
// measured as a process.
func diskfsCommand() *cobra.Command {
	var tree, output, format string
	c := &cobra.Command{
		Use:   "diskfs --tree DIR --format squashfs|ext4 -o FILE",
		Short: "make an image of a directory with go-diskfs",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) (err error) {
			f, err := os.Create(output)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			if format == "ext4" {
				return diskfsExt4(f, tree)
			}
			return diskfsSquashfs(f, tree)
		},
	}
	f := c.Flags()
	f.StringVar(&tree, "tree", "", "what goes into the image")
	f.StringVar(&format, "format", "squashfs", "squashfs or ext4")
	f.StringVarP(&output, "output", "o", "", "the image")
	return c
}

// diskfsSquashfs hands the tree over as hard links, since go-diskfs makes its
// images of a directory of its own.
func diskfsSquashfs(f *os.File, tree string) error {
	image, err := squashfs.Create(diskfile.New(f, false), 0, 0, 1<<20)
	if err != nil {
		return err
	}
	defer removeAll(image.Workspace())
	if out, err := exec.Command("cp", "-al", tree+"/.", image.Workspace()).CombinedOutput(); err != nil {
		return fmt.Errorf("hard links to the tree: %w: %s", err, out)
	}
	return image.Finalize(squashfs.FinalizeOptions{Compression: &squashfs.CompressorZstd{}})
}

// diskfsExt4Size is the size of the filesystem, in bytes.
const diskfsExt4Size = 5 << 30

func diskfsExt4(f *os.File, tree string) error {
	if err := f.Truncate(diskfsExt4Size); err != nil {
		return err
	}
	image, err := ext4.Create(diskfile.New(f, false), diskfsExt4Size, 0, 512, &ext4.Params{})
	if err != nil {
		return err
	}
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if err := diskfsAdd(image, d, path, name); err != nil {
			return fmt.Errorf("%s %s: %w", d.Type(), name, err)
		}
		return nil
	})
}

func diskfsAdd(image *ext4.FileSystem, d fs.DirEntry, path, name string) error {
	switch {
	case d.IsDir():
		return image.Mkdir(name)
	case d.Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return image.Symlink(target, name)
	}
	return diskfsCopy(image, path, name)
}

func diskfsCopy(image *ext4.FileSystem, path, name string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := image.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
