package squashfs_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
	"bigdisk/image/squashfs"
)

func execOutput(name string, args ...string) ([]byte, error) {
	return exec.Command(name, args...).CombinedOutput()
}

// entryName is the name of the nth of many: what a store path's looks like.
func entryName(n int) string {
	return fmt.Sprintf("%032d-package-%d.%d", n*7919%1_000_003, n, n%10)
}

// TestMillionNames writes a directory with a million entries and looks some of
// them up in a mounted image. What that costs is for TestLookupCost to say.
func TestMillionNames(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	const names = 1_000_000
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(t.Context(), f, squashfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		if i%2 == 0 {
			err = w.Create(&store.Entry{Path: entryName(i), Kind: store.Directory})
		} else {
			err = w.Create(&store.Entry{Path: entryName(i), Kind: store.Symlink, Target: entryName(i - 1)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	at := imagetest.Mount(t, name)
	for i := 0; i < names; i += 997 {
		info, err := os.Lstat(filepath.Join(at, entryName(i)))
		if err != nil || info.IsDir() != (i%2 == 0) {
			t.Fatalf("%s: %v, %v", entryName(i), info, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(at, "not-there")); !os.IsNotExist(err) {
		t.Errorf("a name that is not there: %v", err)
	}
	entries, err := os.ReadDir(at)
	if err != nil || len(entries) != names {
		t.Errorf("the kernel lists %d of %d entries (%v)", len(entries), names, err)
	}
}

// TestBeyondFourGiB puts a file behind the first 4 GiB of an image, where only
// extended inodes can say where it lies, and one of over 4 GiB.
func TestBeyondFourGiB(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	if testing.Short() {
		t.Skip("writes 4 GiB")
	}
	const size = 4<<30 + 5
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(t.Context(), f, squashfs.Options{Compression: parse(t, "none"), BlockSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Create(&store.Entry{Path: "big", Kind: store.Regular, Size: size}); err != nil {
		t.Fatal(err)
	}
	piece := []byte(imagetest.Noise(1, 1<<20))
	for left := int64(size); left > 0; left -= int64(len(piece)) {
		if _, err := w.Write(piece[:min(left, int64(len(piece)))]); err != nil {
			t.Fatal(err)
		}
	}
	after := imagetest.Text(1, 3<<20)
	for path, data := range map[string]string{"after": after} {
		if err := w.Create(&store.Entry{Path: path, Kind: store.Regular, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	at := imagetest.Mount(t, name)
	if got, err := os.ReadFile(filepath.Join(at, "after")); err != nil || string(got) != after {
		t.Errorf("the file behind 4 GiB is not what was written (%v)", err)
	}
	big, err := os.Open(filepath.Join(at, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	end := make([]byte, 5)
	if _, err := big.ReadAt(end, size-5); err != nil || string(end) != string(piece[:5]) {
		t.Errorf("the file of over 4 GiB ends in %x, want %x (%v)", end, piece[:5], err)
	}
}

// TestMemoryPerFile holds what the writer keeps to about 100 bytes a file.
func TestMemoryPerFile(t *testing.T) {
	const files = 300_000
	w, err := squashfs.NewWriter(t.Context(), &memory{}, squashfs.Options{BlockSize: 4096, Jobs: 2, ScratchDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	before := heapInUse()
	for i := range files {
		if i%100 == 0 {
			if err := w.Create(&store.Entry{Path: fmt.Sprintf("d%d", i), Kind: store.Directory}); err != nil {
				t.Fatal(err)
			}
		}
		data := fmt.Sprintf("file %d", i)
		if err := w.Create(&store.Entry{Path: fmt.Sprintf("d%d/%d", i-i%100, i), Kind: store.Regular, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	grown := heapInUse() - before
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes a file", grown/files)
	// 8 MiB are the metadata tables before they spill, which do not grow on.
	if grown > files*100+2*8<<20 {
		t.Errorf("%d files take %d bytes, %d each", files, grown, grown/files)
	}
}

// BenchmarkWriter writes 64 MiB of text, half of it in small files.
func BenchmarkWriter(b *testing.B) {
	for _, c := range []string{"zstd:fastest", "zstd:default", "zstd:better", "gzip", "lz4", "none"} {
		b.Run(c, func(b *testing.B) {
			large, small := imagetest.Text(1, 32<<20), imagetest.Text(2, 16<<10)
			b.SetBytes(64 << 20)
			b.ReportAllocs()
			for b.Loop() {
				benchmarkOnce(b, squashfs.Options{Compression: parse(b, c), BlockSize: 1 << 20}, large, small)
			}
		})
	}
}

func benchmarkOnce(b *testing.B, opts squashfs.Options, large, small string) {
	w, err := squashfs.NewWriter(context.Background(), &memory{}, opts)
	if err != nil {
		b.Fatal(err)
	}
	create := func(path, head, data string) {
		if err := w.Create(&store.Entry{Path: path, Kind: store.Regular, Size: int64(len(head) + len(data))}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(w, head); err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			b.Fatal(err)
		}
	}
	create("large", "", large)
	for i := range 2048 {
		create(fmt.Sprintf("small%d", i), fmt.Sprint(i), small)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
