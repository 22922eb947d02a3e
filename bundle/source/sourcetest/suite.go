package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
)

// Sample returns paths of every kind that sources must cope with.
func Sample(t testing.TB) *Memory {
	t.Helper()
	m := NewMemory()
	file := m.Add(t, "file", []File{Reg("", "just a file\n")})
	m.Add(t, "empty-file", []File{Reg("", "")})
	exe := m.Add(t, "exe", []File{Exe("", "#!/bin/sh\n")}, file)
	m.Add(t, "link", []File{Link("", string(file))}, file)
	m.Add(t, "empty-dir", []File{Dir("")})
	large := make([]byte, 700_001)
	rand.NewChaCha8([32]byte{7}).Read(large)
	tree := m.Add(t, "tree", []File{
		Dir(""), Dir("a"), Reg("a/0", "12345678"), Exe("a/1", "1"), Dir("a/2"), Dir("a/2/deep"), Link("a/2/deep/l", "../../0"),
		Reg("a.b", "sorts after what is in a"), Reg("large", string(large)), Reg("no newline", "x"),
		Reg("zeros", strings.Repeat("\x00", 100_000)), Reg("\xff\xfe not UTF-8", "y"),
	}, file, exe)
	m.ReferToSelf(tree)
	return m
}

// Run puts a source through the tests that every source must pass. The
// function makes one that has the paths of m, and no other.
func Run(t *testing.T, open func(t *testing.T, m *Memory) source.Source) {
	m := Sample(t)
	absent := Sample(t).Add(t, "absent", []File{Reg("", "nowhere")})
	s := &suite{m: m, absent: absent, open: func(t *testing.T) source.Source {
		s := open(t, m)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return s
	}}
	t.Run("info", s.testInfo)
	t.Run("not found", s.testNotFound)
	t.Run("contents", s.testContents)
	t.Run("reading", s.testReading)
	t.Run("mismatch", s.testMismatch)
	t.Run("cancelled", s.testCancelled)
	t.Run("concurrent", s.testConcurrent)
}

type suite struct {
	m      *Memory
	absent store.Path
	open   func(t *testing.T) source.Source
}

func (s *suite) testInfo(t *testing.T) {
	src := s.open(t)
	if src.String() == "" {
		t.Error("the source has no name")
	}
	for _, p := range s.m.Paths() {
		info, err := src.Info(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.sameInfo(info); err != nil {
			t.Error(err)
		}
	}
}

func (s *suite) sameInfo(got *store.PathInfo) error {
	g, w := *got, *s.m.items[got.Path].info
	g.Sigs, w.Sigs = nil, nil
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("info %+v\nwant %+v", g, w)
	}
	return nil
}

func (s *suite) testNotFound(t *testing.T) {
	src := s.open(t)
	_, err := src.Info(t.Context(), s.absent)
	s.checkError(t, "Info", err, source.ErrNotFound)
	_, err = src.Open(t.Context(), &store.PathInfo{Path: s.absent, NarSize: 100})
	s.checkError(t, "Open", err, source.ErrNotFound)
	if err != nil && !strings.Contains(err.Error(), string(s.absent)) {
		t.Errorf("%q does not name the path", err)
	}
}

func (s *suite) checkError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// get opens a path that must be there.
func get(ctx context.Context, src source.Source, p store.Path) (store.Contents, error) {
	info, err := src.Info(ctx, p)
	if err != nil {
		return nil, err
	}
	return src.Open(ctx, info)
}

func (s *suite) testContents(t *testing.T) {
	src := s.open(t)
	for _, p := range s.m.Paths() {
		if err := s.checkContents(t, src, p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func (s *suite) checkContents(t *testing.T, src source.Source, p store.Path) error {
	c, err := get(t.Context(), src, p)
	if err != nil {
		return err
	}
	got, err := ReadAll(c)
	if err != nil {
		return err
	}
	want, err := ReadAll(s.m.open(t, p))
	if err != nil {
		return err
	}
	return sameTree(got, want)
}

func sameTree(got, want []File) error {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%q is missing", want[i].Path)
		case i >= len(want):
			return fmt.Errorf("%q is too much", got[i].Path)
		case got[i].Path != want[i].Path, got[i].Kind != want[i].Kind, got[i].Executable != want[i].Executable,
			got[i].Target != want[i].Target, string(got[i].Data) != string(want[i].Data):
			return fmt.Errorf("%q (%s, %d bytes) instead of %q (%s, %d bytes), or differs in it",
				got[i].Path, got[i].Kind, len(got[i].Data), want[i].Path, want[i].Kind, len(want[i].Data))
		}
	}
	return nil
}

// testReading skips files, reads parts of them, and reads where there is
// nothing to read.
func (s *suite) testReading(t *testing.T) {
	src := s.open(t)
	for _, n := range []int{0, 1, 100_000, 10_000_000} {
		for _, p := range s.m.Paths() {
			c, err := get(t.Context(), src, p)
			if err != nil {
				t.Fatal(err)
			}
			if err := readSome(c, n); err != nil {
				t.Errorf("%s, %d bytes of each file: %v", p, n, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, err := c.Next(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Next after Close: %v", err)
			}
		}
	}
	c, err := get(t.Context(), src, s.m.Paths()[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close before Next: %v", err)
	}
}

// readSome reads up to n bytes of each file, then to the end.
func readSome(c store.Contents, n int) error {
	buf := make([]byte, n)
	for {
		e, err := c.Next()
		if err == io.EOF {
			if _, err := c.Next(); err != io.EOF {
				return fmt.Errorf("after the end Next says %v", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		want := min(int64(n), e.Size)
		if got, err := io.ReadFull(c, buf[:want]); err != nil {
			return fmt.Errorf("%q: read %d, %w", e.Path, got, err)
		}
		if want < e.Size {
			continue
		}
		if got, err := c.Read(make([]byte, 1)); got != 0 || err != io.EOF {
			return fmt.Errorf("%q: after its end, Read = %d, %v", e.Path, got, err)
		}
	}
}

// testMismatch asks for other contents than the source has.
func (s *suite) testMismatch(t *testing.T) {
	src := s.open(t)
	for _, p := range s.m.Paths() {
		info := *s.m.items[p].info
		other := info
		other.NarHash[0] ^= 1
		longer, shorter := info, info
		longer.NarSize += 8
		shorter.NarSize -= 8
		for _, i := range []*store.PathInfo{&other, &longer, &shorter} {
			c, err := src.Open(t.Context(), i)
			if err == nil {
				_, err = ReadAll(c)
			}
			s.checkError(t, string(p), err, source.ErrMismatch)
		}
	}
}

func (s *suite) testCancelled(t *testing.T) {
	src := s.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	p := s.m.Paths()[0]
	info, err := src.Info(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := src.Open(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = ReadAll(c)
	s.checkError(t, "reading", err, context.Canceled)
	_, err = src.Info(ctx, p)
	s.checkError(t, "Info", err, context.Canceled)
	_, err = src.Open(ctx, info)
	s.checkError(t, "Open", err, context.Canceled)
}

func (s *suite) testConcurrent(t *testing.T) {
	src := s.open(t)
	group := new(errgroup.Group)
	for range 4 {
		for _, p := range s.m.Paths() {
			group.Go(func() error { return s.checkContents(t, src, p) })
		}
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
