package storedb

import (
	"slices"
	"strings"

	"bigdisk/bundle/store"
)

// DatabasePath is where Nix looks for the database, relative to the store's
// root: the image, or DIR of local?root=DIR.
const DatabasePath = "nix/var/nix/db/db.sqlite"

// File is an entry of an image with its contents.
type File struct {
	store.Entry
	// Data is a regular file's contents.
	Data []byte
}

// Layout lists what a store must have beside its store paths and its database
// before Nix opens it read-only, parent directories included. Nix would make
// the directories, and cannot; "schema" must hold the two bytes "10" and no
// newline.
//
// The entries are sorted, so they come depth first: store paths go in right
// after nix/store/.links, [DatabasePath] right after nix/var/nix/db/schema.
func Layout() []File {
	files := []File{{
		Entry: store.Entry{Path: "nix/var/nix/db/schema", Kind: store.Regular, Size: int64(len(schemaVersion))},
		Data:  []byte(schemaVersion),
	}}
	for _, dir := range []string{
		"nix",
		"nix/store",
		"nix/store/.links",
		"nix/var",
		"nix/var/nix",
		"nix/var/nix/db",
		"nix/var/nix/gcroots",
		"nix/var/nix/gcroots/per-user",
		"nix/var/nix/profiles",
		"nix/var/nix/profiles/per-user",
		"nix/var/nix/temproots",
	} {
		files = append(files, File{Entry: store.Entry{Path: dir, Kind: store.Directory}})
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// schemaVersion is the version of the tables in schema.sql, as Nix writes it.
const schemaVersion = "10"
