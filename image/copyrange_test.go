package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// directFile is a file whose large writes are better than the kernel's copies.
type directFile struct {
	*os.File
	writes int
	told   int64
}

func (d *directFile) InFile() (*os.File, int64) { return d.File, 0 }
func (d *directFile) Direct() bool              { return true }
func (d *directFile) Wrote(_, n int64)          { d.told += n }

// inFile is what lies in a file from an offset on.
type inFile struct {
	io.ReaderAt
	file   *os.File
	offset int64
}

func (f inFile) InFile() (*os.File, int64) { return f.file, f.offset }

// TestCopyRange copies into a file in each of the ways there are.
func TestCopyRange(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 5<<20+100)
	rand.NewChaCha8([32]byte{}).Read(data)
	name := filepath.Join(dir, "source")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	name = filepath.Join(dir, "shifted")
	if err := os.WriteFile(name, append(make([]byte, 4096), data...), 0o644); err != nil {
		t.Fatal(err)
	}
	shifted, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer shifted.Close()
	sources := map[string]io.ReaderAt{
		"file":    src,
		"in file": inFile{bytes.NewReader(data), shifted, 4096},
		"reader":  bytes.NewReader(data),
	}
	ranges := []struct{ to, from, n int64 }{
		{0, 0, 0}, {0, 0, 1}, {4096, 8192, 4096}, {0, 0, 4 << 20}, {1, 3, 3 << 20}, {4096, 5, 5 << 20}, {1 << 20, 0, int64(len(data))},
	}
	for what, from := range sources {
		for _, r := range ranges {
			out, err := os.Create(filepath.Join(dir, "copy"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			direct := &directFile{File: out}
			for _, dst := range []io.WriterAt{out, direct, struct{ io.WriterAt }{out}} {
				if err := out.Truncate(0); err != nil {
					t.Fatal(err)
				}
				if err := CopyRange(t.Context(), dst, r.to, from, r.from, r.n); err != nil {
					t.Fatalf("%T to %T, %v: %v", from, dst, r, err)
				}
				got, err := os.ReadFile(out.Name())
				if err != nil {
					t.Fatal(err)
				}
				if want := append(make([]byte, r.to), data[r.from:r.from+r.n]...); r.n > 0 && !bytes.Equal(got, want) {
					t.Errorf("%s to %T, %v: other bytes", what, dst, r)
				}
			}
			if r.to%copyAlign == 0 && direct.told > 0 {
				t.Errorf("%s, %v: the kernel copied %d bytes", what, r, direct.told)
			}
		}
	}
}

// TestCopyRangeEnds wants a source that ends early to be an error.
func TestCopyRangeEnds(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = CopyRange(t.Context(), out, 0, bytes.NewReader(make([]byte, 3<<20)), 0, 3<<20+1)
	if err == nil || !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
		t.Errorf("%v", err)
	}
}

// zeros is a source without an end, and of no file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// eachWrite is a destination that only counts; do is given the count.
type eachWrite struct {
	writes atomic.Int64
	do     func(write int64) error
}

func (d *eachWrite) WriteAt(p []byte, _ int64) (int, error) {
	if err := d.do(d.writes.Add(1)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestCopyRangeStops wants a copy of 16 GiB to end soon once a write has
// failed or nobody wants it any more, and the error to be that which ended it.
func TestCopyRangeStops(t *testing.T) {
	for _, want := range []error{unix.ENOSPC, context.Canceled} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		dst := &eachWrite{do: func(write int64) error {
			switch {
			case write < 5:
				return nil
			case want == context.Canceled:
				cancel()
				return nil
			}
			return want
		}}
		if err := CopyRange(ctx, dst, 0, zeros{}, 0, 1<<34); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		// The other copier may be late to see it, but not by much.
		if n := dst.writes.Load(); n > 1<<10 {
			t.Errorf("%v: %d MiB written", want, n)
		}
	}
}

// TestCopyRangeCancelled wants nothing to be copied any more between files
// either, where the kernel does it.
func TestCopyRangeCancelled(t *testing.T) {
	var files [2]*os.File
	for i := range files {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	if _, err := files[0].Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// At an odd place, so that no blocks can be shared.
	if err := CopyRange(ctx, files[1], 1, files[0], 0, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if st, err := files[1].Stat(); err != nil || st.Size() != 0 {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
}
