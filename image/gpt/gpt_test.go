package gpt

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/image/imagetest"
	"bigdisk/image/read"
)

func write(t *testing.T, length, round int64, o Options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := DiskSize(length, round)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, length, size, o); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestToolsAccept(t *testing.T) {
	imagetest.NeedTools(t, "sgdisk", "sfdisk")
	const tib = 1 << 40
	for _, c := range []struct{ length, round int64 }{
		{1, 0}, {Align, 0}, {Align + 1, 0}, {100 << 20, 1 << 30}, {3 * tib, 0}, {15 * tib, 1 << 30},
	} {
		t.Run(fmt.Sprint(c.length), func(t *testing.T) {
			name := write(t, c.length, c.round, Options{Name: "bigdisk-1234567"})
			out, err := exec.Command("sgdisk", "-v", name).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("No problems found")) || bytes.Contains(out, []byte("arning")) {
				t.Errorf("sgdisk -v: %v: %s", err, out)
			}
			out, err = exec.Command("sgdisk", "-i", "1", name).CombinedOutput()
			for _, want := range []string{"Linux filesystem", "'bigdisk-1234567'", "First sector: 2048 "} {
				if !strings.Contains(string(out), want) {
					t.Errorf("sgdisk -i 1: %v: no %q in %s", err, want, out)
				}
			}
			out, err = exec.Command("sfdisk", "--verify", name).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("No errors detected")) {
				t.Errorf("sfdisk --verify: %v: %s", err, out)
			}
		})
	}
}

func TestSameBytes(t *testing.T) {
	var sums [3][sha256.Size]byte
	for i, seed := range []byte{1, 1, 2} {
		b, err := os.ReadFile(write(t, 5<<20, 0, Options{Name: "x", Seed: [32]byte{seed}}))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(b)
	}
	if sums[0] != sums[1] {
		t.Error("the same seed gives other bytes")
	}
	if sums[0] == sums[2] {
		t.Error("another seed gives the same GUIDs")
	}
}

func TestWriteRefuses(t *testing.T) {
	f := &memory{}
	for _, c := range []struct {
		length, size int64
		name         string
	}{
		{Align, 2 * Align, "x"},
		{Align, 3*Align + 1, "x"},
		{Align, 3 * Align, strings.Repeat("é", 37)},
		{Align, 3 * Align, strings.Repeat("😀", 19)},
	} {
		if err := Write(f, c.length, c.size, Options{Name: c.name}); err == nil {
			t.Errorf("%d of %d bytes with name %q was written", c.length, c.size, c.name)
		}
	}
	if len(f.at) > 0 {
		t.Error("something was written all the same")
	}
}

// memory keeps the offsets that were written to.
type memory struct{ at []int64 }

func (m *memory) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.at = append(m.at, off, off+int64(len(p)))
	return len(p), nil
}

func TestPartitionIsLeftAlone(t *testing.T) {
	f := &memory{}
	size := DiskSize(10<<20, 0)
	if err := Write(f, 10<<20, size, Options{}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(f.at); i += 2 {
		if from, to := f.at[i], f.at[i+1]; to > Align && from < size-Align {
			t.Errorf("bytes %d to %d were written", from, to)
		}
	}
}

func TestReaderFindsFilesystem(t *testing.T) {
	imagetest.NeedTools(t, "mke2fs")
	name := write(t, 4<<20, 0, Options{Name: "x"})
	out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-E", fmt.Sprintf("offset=%d", Align), name, "4096").CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	im, err := read.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if i := im.Info(); !i.Partitioned || i.Offset != Align || i.Format != read.Ext4 {
		t.Errorf("read as %+v", i)
	}
}

func Example() {
	f, err := os.CreateTemp("", "disk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const filesystem = 10 << 20 // bytes, written from Align on before this
	size := DiskSize(filesystem, 0)
	if err := f.Truncate(size); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(size>>20, "MiB:", Write(f, filesystem, size, Options{Name: "bigdisk-0123456"}))
	// Output: 12 MiB: <nil>
}
