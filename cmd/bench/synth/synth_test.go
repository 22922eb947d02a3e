package synth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nar"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/cmd/bench/synth"
)

// TestContents holds every path's contents against its info.
func TestContents(t *testing.T) {
	s := synth.Store{N: 2000, Seed: 7}
	files, same := 0, make(map[string]int)
	for i := range s.N {
		info, err := s.Info(t.Context(), s.Path(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.ParsePath(string(info.Path)); err != nil {
			t.Fatal(err)
		}
		c, err := s.Open(t.Context(), info)
		if err != nil {
			t.Fatal(err)
		}
		archive, n := archive(t, c, same)
		files += n
		if sum := sha256.Sum256(archive); store.Hash(sum) != info.NarHash || int64(len(archive)) != info.NarSize {
			t.Fatalf("path %d: NAR of %d bytes with hash %s, info says %d and %s", i, len(archive), store.Hash(sum), info.NarSize, info.NarHash)
		}
		for _, r := range info.References {
			if !bytes.Contains(archive, []byte(r)) {
				t.Errorf("path %d does not mention %s", i, r)
			}
		}
	}
	if files < 9*s.N/2 || len(same) > 7*files/10 || len(same) < 6*files/10 {
		t.Errorf("%d files, of which %d different, in %d paths", files, len(same), s.N)
	}
}

// archive makes the NAR of contents and counts the files in it.
func archive(t *testing.T, c store.Contents, same map[string]int) ([]byte, int) {
	t.Helper()
	var b bytes.Buffer
	files := 0
	w := nar.NewWriter(&b)
	for {
		e, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Create(e); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == store.Regular {
			files++
			same[string(data)]++
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close, Next says %v", err)
	}
	return b.Bytes(), files
}

// TestClosure finds all of the store from its modules, and ten references a
// path.
func TestClosure(t *testing.T) {
	for _, n := range []int{1, 2, 11, 1000, 1001, 5000} {
		s := synth.Store{N: n, Seed: 1}
		entries := s.Lock()
		text, err := lock.Marshal(entries)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock.Parse(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		var roots []store.Path
		for _, e := range entries {
			roots = append(roots, e.Path)
		}
		c, err := bundle.FindClosure(t.Context(), s, roots, 4)
		if err != nil {
			t.Fatal(err)
		}
		refs := 0
		for info := range c.All() {
			refs += len(info.References)
		}
		if want := 10*n - 55; c.Len() != n || n > 10 && refs != want {
			t.Errorf("%d paths: closure of %d, with %d references instead of %d", n, c.Len(), refs, want)
		}
	}
}

func TestErrors(t *testing.T) {
	s := synth.Store{N: 100, Seed: 1}
	other := synth.Store{N: 200, Seed: 1}.Path(150)
	if _, err := s.Info(t.Context(), other); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("a path past the end: %v", err)
	}
	if _, err := s.Info(t.Context(), (synth.Store{N: 100, Seed: 2}).Path(5)); !errors.Is(err, source.ErrNotFound) {
		t.Errorf("a path of another store: %v", err)
	}
	info, err := s.Info(t.Context(), s.Path(5))
	if err != nil {
		t.Fatal(err)
	}
	wrong := *info
	wrong.NarHash[0] ^= 1
	if _, err := s.Open(t.Context(), &wrong); !errors.Is(err, source.ErrMismatch) {
		t.Errorf("another hash: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := s.Open(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := c.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
