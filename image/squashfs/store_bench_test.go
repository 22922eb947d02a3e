package squashfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image/squashfs"
)

// storeVariable names a Nix store's directory for BenchmarkStore.
const storeVariable = "BIGDISK_BENCH_STORE"

// BenchmarkStore writes a real store, loaded into memory first, so that a
// profile shows what the writer itself spends its time on.
func BenchmarkStore(b *testing.B) {
	root := os.Getenv(storeVariable)
	if root == "" {
		b.Skipf("%s does not name a store's directory", storeVariable)
	}
	files, size := loadStore(b, root)
	b.SetBytes(size)
	b.ResetTimer()
	for range b.N {
		f, err := os.Create(filepath.Join(b.TempDir(), "image"))
		if err != nil {
			b.Fatal(err)
		}
		w, err := squashfs.NewWriter(b.Context(), f, squashfs.Options{BlockSize: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		if err := addWhole(w, files); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// addWhole adds files, a unit for each entry of the root.
func addWhole(w *squashfs.Writer, files []loaded) error {
	for i := range files {
		f := &files[i]
		if !strings.Contains(f.Path, "/") {
			if err := w.Begin(f.Path); err != nil {
				return err
			}
		}
		if err := w.Create(&f.Entry); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	return nil
}

func loadStore(b *testing.B, root string) (files []loaded, size int64) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := path[len(root)+1:]
		top := !strings.Contains(name, "/")
		if top && (d.Name() == ".links" || strings.HasSuffix(d.Name(), ".drv")) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		f, err := loadFile(path, name, d)
		files = append(files, f)
		size += f.Size
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return files, size
}

// loaded is a file of a store in memory.
type loaded struct {
	store.Entry
	data []byte
}

func loadFile(path, name string, d fs.DirEntry) (loaded, error) {
	switch d.Type() {
	case fs.ModeDir:
		return loaded{Entry: store.Entry{Path: name, Kind: store.Directory}}, nil
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		return loaded{Entry: store.Entry{Path: name, Kind: store.Symlink, Target: target}}, err
	}
	data, err := os.ReadFile(path)
	return loaded{store.Entry{Path: name, Kind: store.Regular, Size: int64(len(data))}, data}, err
}
