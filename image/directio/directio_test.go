package directio

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// buffer returns n random bytes that start at a multiple of Align, and off
// bytes more.
func buffer(n, off int) []byte {
	b := make([]byte, n+off+Align)
	skip := (Align - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Align)) % Align
	b = b[skip+off : skip+off+n]
	r := rand.NewChaCha8([32]byte{byte(n), byte(off)})
	r.Read(b)
	return b
}

func create(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestWriteAt mixes writes that can go past the page cache with some that
// cannot, over each other too, and reads them through the page cache.
func TestWriteAt(t *testing.T) {
	f := create(t)
	w := New(f)
	defer w.Close()
	if !w.Direct() {
		t.Log("the filesystem of the temporary directory has no O_DIRECT: all goes through the page cache")
	}
	want := make([]byte, 0, 1<<20)
	for _, c := range []struct {
		name string
		p    []byte
		at   int64
		past bool
	}{
		{"aligned", buffer(256<<10, 0), 0, true},
		{"short", buffer(Align, 0), 256 << 10, false},
		{"past a hole", buffer(128<<10, 0), 300 << 10, true},
		{"odd length", buffer(100_001, 0), 512 << 10, false},
		{"odd memory", buffer(64<<10, 512), 640 << 10, false},
		{"odd offset", buffer(64<<10, 0), 704<<10 + 1, false},
		{"over what the page cache holds", buffer(128<<10, 0), 640 << 10, true},
		{"through the page cache over that", buffer(1000, 0), 700 << 10, false},
	} {
		n, past, err := w.WriteAt(c.p, c.at)
		if n != len(c.p) || err != nil || past != (c.past && w.Direct()) {
			t.Errorf("%s: %d of %d bytes, past the page cache: %v, %v", c.name, n, len(c.p), past, err)
		}
		want = want[:max(len(want), int(c.at)+len(c.p))]
		copy(want[c.at:], c.p)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what was written, %v", err)
	}
}

// TestRefused has a filesystem that takes O_DIRECT and no such writes, as some
// do: one that has more to ask than Align.
func TestRefused(t *testing.T) {
	f := create(t)
	w := New(f)
	w.Close()
	// A file that says EINVAL to a write.
	stubborn, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.direct = stubborn
	defer w.Close()
	p := buffer(128<<10, 0)
	for range 2 {
		if n, past, err := w.WriteAt(p, 0); n != len(p) || past || err != nil {
			t.Errorf("%d of %d bytes, past the page cache: %v, %v", n, len(p), past, err)
		}
		if w.Direct() {
			t.Error("what refused once is asked again")
		}
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, p) {
		t.Errorf("the file is not what was written, %v", err)
	}
}

// short writes only a part of what is asked, and refuses the rest, which is no
// longer aligned.
type short struct{ *os.File }

func (f short) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p[:len(p)/2+1], at)
	if err == nil {
		err = &os.PathError{Op: "write", Path: f.Name(), Err: unix.EINVAL}
	}
	return n, err
}

// TestShort wants what is left of a write that was done in part to be written
// too.
func TestShort(t *testing.T) {
	f := create(t)
	w := &Writer{file: f, direct: short{f}}
	want := []byte{}
	for i := range 2 {
		p := buffer(128<<10, 0)
		want = append(want, p...)
		if n, past, err := w.WriteAt(p, int64(i*len(p))); n != len(p) || past || err != nil {
			t.Errorf("%d of %d bytes, past the page cache: %v, %v", n, len(p), past, err)
		}
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what was written, %v", err)
	}
}

func BenchmarkWriteAt(b *testing.B) {
	p := buffer(1<<20, 0)
	const size = 256 << 20
	for _, direct := range []bool{true, false} {
		name := "cache"
		if direct {
			name = "direct"
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				f, err := os.Create(filepath.Join(b.TempDir(), "image"))
				if err != nil {
					b.Fatal(err)
				}
				w := New(f)
				w.refused.Store(!direct)
				for at := int64(0); at < size; at += int64(len(p)) {
					if _, _, err := w.WriteAt(p, at); err != nil {
						b.Fatal(err)
					}
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				w.Close()
				f.Close()
			}
		})
	}
}
