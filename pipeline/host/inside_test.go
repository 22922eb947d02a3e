package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinksOffTheDisk has disks on which something leads to the host's own files
// or never ends.
func TestLinksOffTheDisk(t *testing.T) {
	link := func(target string) func(string) error {
		return func(name string) error { return os.Symlink(target, name) }
	}
	sparse := func(name string) error { return errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, 1<<40)) }
	fifo := func(name string) error { return unix.Mkfifo(name, 0o644) }
	for name, c := range map[string]struct {
		at   string
		make func(name string) error
		says string
	}{
		"modules in /dev": {"etc/nixmodules/modules.json", link("/dev/zero"), "escapes"},
		"modules pipe":    {"etc/nixmodules/modules.json", fifo, "is no file of up to"},
		"modules sparse":  {"etc/nixmodules/modules.json", sparse, "is no file of up to"},
		"schema pipe":     {schemaPath, fifo, "is no file of up to"},
		"schema sparse":   {schemaPath, sparse, "is no file of up to"},
		"database off":    {databasePath, link("../../../../../../elsewhere"), "escapes"},
		"database dir":    {databasePath, func(name string) error { return os.Mkdir(name, 0o755) }, "is of another type"},
		"store off":       {"nix/store", link("/nix/store"), "escapes"},
		"store file":      {"nix/store", sparse, "is of another type"},
	} {
		t.Run(name, func(t *testing.T) {
			root := makeDisk(t, filepath.Join(t.TempDir(), "disk"), map[string]aPath{"a": {text: "a"}})
			at := filepath.Join(root, c.at)
			if err := errors.Join(os.RemoveAll(at), os.MkdirAll(filepath.Dir(at), 0o755), c.make(at)); err != nil {
				t.Fatal(err)
			}
			o := Options{Sample: 3}
			if err := o.checkMounted(t.Context(), root, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
