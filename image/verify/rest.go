package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

// checkRest walks everything that is in no store path: few files in an image
// of ours, whatever was there in one of others'.
func (v *verifier) checkRest(ctx context.Context) error {
	root, err := v.im.Root()
	if err != nil {
		return v.soften("/", err)
	}
	err = read.Guard("reading the tree", func() error {
		return v.im.Walk(root, func(path string, n *read.Node, leave bool) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if leave {
				return nil
			}
			if base, ok := strings.CutPrefix(path, "nix/store/"); ok && base != ".links" && !strings.Contains(base, "/") {
				if _, err := store.ParseBase(base); err == nil {
					return read.SkipDir // checkPaths has it
				}
			}
			return v.checkRestNode(path, n)
		})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return v.soften("/", err)
}

func (v *verifier) checkRestNode(path string, n *read.Node) error {
	v.count(n)
	if n.Kind == store.Directory {
		if err := v.enter(n); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	v.noteLinks("/"+path, n)
	// Only of our own images is it known what everything else should look like.
	if v.Manifest == nil || path == "lost+found" {
		return nil
	}
	full := "/" + path
	v.checkOwner(full, full, n)
	if n.Mtime != 1 || n.MtimeNsec != 0 {
		v.errorf(WrongTime, full, "%s was modified %d.%09d seconds after 1970, not 1", full, n.Mtime, n.MtimeNsec)
	}
	if v.Manifest.Options.Writable {
		return nil
	}
	switch n.Kind {
	case store.Directory:
		v.checkMode(full, full, n, 0o555, 0o555)
	case store.Regular:
		v.checkMode(full, full, n, 0o444, 0o555)
	case store.Symlink:
		v.checkMode(full, full, n, 0o777, 0o777)
	default:
		v.errorf(WrongFileType, full, "%s is a device, FIFO or socket", full)
	}
	return nil
}

// lowerDirs are the directories that Nix creates when it opens a store, and so
// must find in a read-only one.
var lowerDirs = []string{
	"nix/store/.links",
	"nix/var/nix/profiles",
	"nix/var/nix/profiles/per-user",
	"nix/var/nix/gcroots",
	"nix/var/nix/gcroots/per-user",
	"nix/var/nix/temproots",
}

// schemaPath holds the version of the database's tables.
const schemaPath = "nix/var/nix/db/schema"

// checkLowerStore looks for what Nix needs besides store paths and database.
func (v *verifier) checkLowerStore(context.Context) error {
	for _, dir := range lowerDirs {
		n, err := v.lookupLower(dir)
		if err != nil {
			return err
		}
		if n != nil && n.Kind != store.Directory {
			v.lowerStore(dir, "it is not a directory")
		}
	}
	if err := v.checkSchemaFile(); err != nil {
		return err
	}
	n, err := v.lookupLower(databasePath)
	if n != nil && n.Mode&0o444 != 0o444 {
		v.lowerStore(databasePath, fmt.Sprintf("its mode is %04o, so not everybody can read it", n.Mode))
	}
	return err
}

func (v *verifier) checkSchemaFile() error {
	n, err := v.lookupLower(schemaPath)
	if n == nil || err != nil {
		return err
	}
	got, err := v.readSmall(n, 64)
	if err != nil {
		return v.soften("/"+schemaPath, err)
	}
	if string(got) != "10" {
		v.lowerStore(schemaPath, fmt.Sprintf("it says %q, not \"10\" without a newline", clip(string(got))))
	}
	return nil
}

// lookupLower finds a file that a lower store must have; it returns nil if it
// reported that it is missing.
func (v *verifier) lookupLower(path string) (*read.Node, error) {
	n, err := v.im.Lookup(path)
	if errors.Is(err, fs.ErrNotExist) {
		v.lowerStore(path, "it is missing, and Nix cannot create it on a read-only disk")
		return nil, nil
	}
	if err != nil {
		return nil, v.soften("/"+path, err)
	}
	return n, nil
}

// lowerStore reports what keeps Nix from using the image as a read-only store.
// Others may have made the image for something else, so without a manifest it
// is a warning.
func (v *verifier) lowerStore(path, detail string) {
	v.add(Finding{Kind: LowerStore, Warning: v.Manifest == nil, Path: "/" + path, Detail: detail})
}

// readSmall reads a file of at most most bytes.
func (v *verifier) readSmall(n *read.Node, most int64) ([]byte, error) {
	if n.Size > most {
		return nil, fmt.Errorf("%w: %d bytes, where %d are the most that make sense", read.ErrDamaged, n.Size, most)
	}
	f, err := v.im.OpenFile(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", read.ErrDamaged, err)
	}
	defer f.Close()
	return io.ReadAll(f)
}
