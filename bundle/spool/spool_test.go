package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"testing/iotest"

	"bigdisk/bundle/spool"
)

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// free fails the test unless all of the budget can be had.
func free(t *testing.T, b *spool.Budget) {
	t.Helper()
	if !b.TryAcquire(b.Size()) {
		t.Error("some of the budget was not given back")
		return
	}
	b.Release(b.Size())
}

func TestSpool(t *testing.T) {
	tests := []struct {
		name                 string
		size, hint, in, most int64
		budget               int64
		inMemory             bool
	}{
		{"empty", 0, 0, 1, 1 << 20, 1 << 20, true},
		{"one byte", 1, 1, 1, 1 << 20, 1 << 20, true},
		{"unknown size", 300_001, 0, 1000, 1 << 20, 1 << 20, true},
		{"right hint", 300_001, 300_001, 65536, 1 << 20, 1 << 20, true},
		{"hint too small", 300_001, 10, 65536, 1 << 20, 1 << 20, true},
		{"hint absurd", 300_001, 1 << 62, 65536, 1 << 20, 1 << 20, false},
		{"over the most", 600_000, 0, 65536, 1 << 19, 16 << 20, false},
		{"over the budget", 600_000, 0, 65536, 16 << 20, 1 << 19, false},
		{"nothing in memory", 10, 10, 3, 0, 1 << 20, false},
		{"one large write", 600_000, 0, 600_000, 1 << 19, 16 << 20, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			budget := spool.NewBudget(test.budget)
			s := spool.NewArea(dir, budget, test.most).New(test.hint)
			want := random(int(test.size))
			for rest := want; len(rest) > 0; {
				n := min(int(test.in), len(rest))
				if k, err := s.Write(rest[:n]); k != n || err != nil {
					t.Fatalf("Write = %d, %v", k, err)
				}
				rest = rest[n:]
			}
			if names, _ := os.ReadDir(dir); len(names) != 0 {
				t.Errorf("the file has the name %v", names)
			}
			if s.Size() != test.size || s.InMemory() != test.inMemory {
				t.Errorf("Size %d, InMemory %v; want %d, %v", s.Size(), s.InMemory(), test.size, test.inMemory)
			}
			if err := iotest.TestReader(onlyReader{s}, want); err != nil {
				t.Fatal(err)
			}
			free(t, budget)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
		})
	}
}

type onlyReader struct{ io.Reader }

func TestCloseHalfway(t *testing.T) {
	budget := spool.NewBudget(8 << 20)
	a := spool.NewArea(t.TempDir(), budget, 4<<20)
	for _, read := range []int64{-1, 0, 100, 1 << 20} {
		s := a.New(0)
		if _, err := s.Write(random(2 << 20)); err != nil {
			t.Fatal(err)
		}
		if read >= 0 {
			if _, err := io.CopyN(io.Discard, s, read); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{1}); read > 0 && err == nil {
				t.Error("written after it was read")
			}
		}
		s.Close()
		free(t, budget)
	}
}

// A scratch directory that fails: as a missing one, and as a full one.
func TestScratch(t *testing.T) {
	budget := spool.NewBudget(1 << 20)
	s := spool.NewArea(t.TempDir()+"/missing", budget, 0).New(0)
	if _, err := s.Write([]byte{1}); !errors.Is(err, spool.ErrScratch) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	s.Close()

	for _, fail := range []int64{0, 100, 300_000} {
		a := spool.NewFullArea("/scratch", budget, 1<<18, fail)
		s := a.New(0)
		_, err := io.Copy(s, bytes.NewReader(random(1<<20)))
		if !errors.Is(err, spool.ErrScratch) || !errors.Is(err, syscall.ENOSPC) ||
			!bytes.Contains([]byte(err.Error()), []byte("/scratch is full")) {
			t.Errorf("full after %d bytes: %v", fail, err)
		}
		if _, again := s.Read(make([]byte, 1)); again != err {
			t.Errorf("the failure was forgotten: %v", again)
		}
		s.Close()
		free(t, budget)
	}
}

func TestBudget(t *testing.T) {
	b := spool.NewBudget(100)
	n, err := b.Acquire(t.Context(), 1000)
	if err != nil || n != 100 {
		t.Fatalf("Acquire of more than all = %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Acquire(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire with a context that is done: %v", err)
	}
	if b.TryAcquire(1) {
		t.Error("more than all was had")
	}
	b.Release(n)
	free(t, b)
}

func BenchmarkSpool(b *testing.B) {
	data := random(1 << 20)
	for _, bench := range []struct {
		name string
		most int64
	}{{"memory", 64 << 20}, {"file", 0}} {
		b.Run(bench.name, func(b *testing.B) {
			a := spool.NewArea(b.TempDir(), spool.NewBudget(64<<20), bench.most)
			b.SetBytes(16 << 20)
			buf := make([]byte, 128<<10)
			for b.Loop() {
				s := a.New(16 << 20)
				for range 16 {
					s.Write(data)
				}
				if _, err := io.CopyBuffer(io.Discard, onlyReader{s}, buf); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
