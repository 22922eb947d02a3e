package treegen

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bigdisk/bundle/store"
)

func TestDataIsWhatCheckExpects(t *testing.T) {
	d := Data{{Len: 5, Seed: 1}, {Len: 300_000}, {Len: 300_001, Seed: 7}, {Len: 3}}
	var b bytes.Buffer
	if n, err := d.WriteTo(&b); err != nil || n != d.Size() || int64(b.Len()) != n {
		t.Fatalf("%d of %d bytes: %v", n, d.Size(), err)
	}
	if err := d.Check(bytes.NewReader(b.Bytes()), 0, d.Size()); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 6, 300_004, 300_005, 600_005, b.Len() - 1} {
		bad := bytes.Clone(b.Bytes())
		bad[at] ^= 0x80
		if err := d.Check(bytes.NewReader(bad), 0, d.Size()); err == nil {
			t.Errorf("a change at %d is not seen", at)
		}
		if err := d.Check(bytes.NewReader(bad), int64(at)+1, d.Size()); err != nil {
			t.Errorf("after %d: %v", at, err)
		}
	}
	if err := d.Check(bytes.NewReader(b.Bytes()[:b.Len()-1]), 0, d.Size()); err == nil {
		t.Error("a short file is not seen")
	}
}

func TestStoreNames(t *testing.T) {
	last := ""
	for item := range Store(3000) {
		name, ok := strings.CutPrefix(item.Path, "nix/store/")
		if !ok || strings.Contains(name, "/") {
			continue
		}
		if _, err := store.ParseBase(name); err != nil {
			t.Error(err)
		}
		if name <= last {
			t.Errorf("%q comes after %q", name, last)
		}
		last = name
	}
}

// TestChecker writes a tree as plain files and changes it in each way that
// the checker looks at.
func TestChecker(t *testing.T) {
	tree := Of(Dir("d"), File("d/f", Noise(10, 1)), Exec("d/x", Zeros(3)), Symlink("l", "d/f"))
	changes := map[string]func(dir string) error{
		"":             func(string) error { return nil },
		"other bytes":  func(dir string) error { return rewrite(dir+"/d/f", "0123456789") },
		"bytes, not":   func(dir string) error { return rewrite(dir+"/d/f", "0") },
		"mode":         func(dir string) error { return os.Chmod(dir+"/d/x", 0o444) },
		"modified":     func(dir string) error { return os.Chtimes(dir+"/d/x", time.Now(), time.Now()) },
		"entries, not": func(dir string) error { return extra(dir + "/d") },
		"no such file": func(dir string) error { return gone(dir+"/d", "f") },
		"other names":  func(dir string) error { return errors.Join(gone(dir+"/d", "x"), extra(dir+"/d")) },
	}
	for want, change := range changes {
		dir := t.TempDir()
		plant(t, dir, tree)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		c := Checker{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		if want == "other names" {
			c.Sample = 3 // which leaves d/x to the names
		}
		err := c.Check(dir, tree)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q: %v", want, err)
		}
		os.Chmod(dir, 0o755)
		os.Chmod(dir+"/d", 0o755)
	}
}

// plant writes a small tree as plain files.
func plant(t *testing.T, dir string, tree Tree) {
	t.Helper()
	var dirs []string
	for item := range tree {
		path := filepath.Join(dir, item.Path)
		var err error
		switch item.Kind {
		case store.Directory:
			err = os.Mkdir(path, 0o755)
			dirs = append(dirs, path)
		case store.Symlink:
			err = os.Symlink(item.Target, path)
		default:
			var b bytes.Buffer
			item.Data.WriteTo(&b)
			err = os.WriteFile(path, b.Bytes(), 0o644)
			if err == nil {
				err = os.Chmod(path, os.FileMode(mode(item)&0o777))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := setTime(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range append(dirs, dir) {
		if err := closeDir(d); err != nil {
			t.Fatal(err)
		}
	}
}
