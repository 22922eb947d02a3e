package nar

import (
	"context"
	"io"

	"bigdisk/bundle/store"
)

// dumpBuffer is how much of a file Dump reads at once.
const dumpBuffer = 256 << 10

// Dump writes the archive of the file, symlink or directory at path, the same
// bytes as nix-store --dump.
func Dump(ctx context.Context, w io.Writer, path string) error {
	d := OpenDir(path)
	defer d.Close()
	a := NewWriter(w)
	buf := make([]byte, dumpBuffer)
	for {
		e, err := d.Next()
		if err == io.EOF {
			return a.Close()
		}
		if err != nil {
			return err
		}
		if err := a.Create(e); err != nil {
			return err
		}
		if e.Kind == store.Regular {
			if err := copyFile(ctx, a, d, buf); err != nil {
				return err
			}
		} else if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// copyFile copies what is left of src's current file, a buffer at a time.
func copyFile(ctx context.Context, dst io.Writer, src io.Reader, buf []byte) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
