package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"bigdisk/bundle/store"
)

// memFile is a file of a tree in memory.
type memFile struct {
	entry store.Entry
	data  []byte
}

// memTree is contents in memory. Delays, failures and counts are up to the test.
type memTree struct {
	files  []memFile
	at     int
	unread []byte
	pause  func()        // before every call
	fail   map[int]error // instead of entry i; len(files) is the end
	closed func()
}

func (m *memTree) Next() (*store.Entry, error) {
	m.wait()
	if err := m.fail[m.at]; err != nil {
		return nil, err
	}
	if m.at == len(m.files) {
		return nil, io.EOF
	}
	f := &m.files[m.at]
	m.at++
	m.unread = f.data
	return &f.entry, nil
}

func (m *memTree) Read(p []byte) (int, error) {
	m.wait()
	if len(m.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, m.unread)
	m.unread = m.unread[n:]
	return n, nil
}

func (m *memTree) Close() error {
	if m.closed != nil {
		m.closed()
	}
	return nil
}

func (m *memTree) wait() {
	if m.pause != nil {
		m.pause()
	}
}

// randomTree makes a tree with up to most bytes of data.
func randomTree(r *rand.Rand, most int) []memFile {
	files := []memFile{{entry: store.Entry{Kind: store.Directory}}}
	for i, left := 0, r.IntN(most+1); left > 0 || i < 2; i++ {
		n := r.IntN(max(left, 0) + 1)
		if r.IntN(3) == 0 {
			n = max(left, 0)
		}
		data := bytes.Repeat([]byte(fmt.Sprint(r.Uint64())), n/10+1)[:n]
		files = append(files,
			memFile{store.Entry{Path: fmt.Sprintf("f%04d", i), Kind: store.Regular, Size: int64(n)}, data},
			memFile{store.Entry{Path: fmt.Sprintf("g%04d", i), Kind: store.Symlink, Target: "f"}, nil})
		left -= n + 1
	}
	return files
}

// sum reads contents to the end and hashes all they say.
func sum(c store.Contents) (string, error) {
	h := sha256.New()
	for {
		e, err := c.Next()
		if err == io.EOF {
			return fmt.Sprintf("%x", h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%+v\n", *e)
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 1000+int(e.Size)%7777))
		if err != nil {
			return "", err
		}
		if n != e.Size {
			return "", fmt.Errorf("%s: %d of %d bytes", e.Path, n, e.Size)
		}
	}
}

// noGoroutines fails the test when goroutines of this package outlive it.
func noGoroutines(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for wait := time.Millisecond; ; wait *= 2 {
			now := runtime.NumGoroutine()
			if now <= before {
				return
			}
			if wait > time.Second {
				buf := make([]byte, 1<<16)
				t.Fatalf("%d goroutines more than before:\n%s", now-before, buf[:runtime.Stack(buf, true)])
			}
			time.Sleep(wait)
		}
	})
}

// aheadCase is a random setting for the properties below.
type aheadCase struct {
	trees    [][]memFile
	sums     []string
	a        ahead
	open     atomic.Int64 // contents open now
	spool    atomic.Int64 // bytes of them
	mostOpen atomic.Int64
	mostDisk atomic.Int64
	failAt   int // no path fails if negative
}

func newAheadCase(t *testing.T, seed uint64) *aheadCase {
	r := rand.New(rand.NewPCG(seed, 0))
	c := &aheadCase{failAt: -1}
	for range r.IntN(40) {
		most := []int{0, 100, 5000, 5000, 5000, batchSize, 9 * batchSize}[r.IntN(7)]
		files := randomTree(r, most)
		s, err := sum(&memTree{files: files})
		if err != nil {
			t.Fatal(err)
		}
		c.trees, c.sums = append(c.trees, files), append(c.sums, s)
	}
	delays := r.IntN(3)
	c.a = ahead{
		openers: 1 + r.IntN(8), readers: 1 + r.IntN(4), window: 1 + r.IntN(20),
		memory: int64(r.IntN(20)) * batchSize, spool: int64(1 + r.IntN(4*batchSize)),
		size: func(i int) int64 { return c.narSize(i) }, blame: blame,
		open: func(ctx context.Context, i int) (store.Contents, error) {
			jitter(delays, i)
			most(&c.mostOpen, c.open.Add(1))
			most(&c.mostDisk, c.spool.Add(min(c.narSize(i), c.a.spool)))
			m := &memTree{files: c.trees[i], closed: func() {
				c.open.Add(-1)
				c.spool.Add(-min(c.narSize(i), c.a.spool))
			}}
			if delays == 2 {
				m.pause = func() { jitter(1, i) }
			}
			if i == c.failAt {
				m.fail = map[int]error{len(m.files): errRotten}
			}
			return m, nil
		},
	}
	return c
}

var errRotten = errors.New("NAR hash differs")

func (c *aheadCase) narSize(i int) (n int64) {
	for _, f := range c.trees[i] {
		n += 160 + f.entry.Size
	}
	return n
}

func most(m *atomic.Int64, v int64) {
	for old := m.Load(); v > old && !m.CompareAndSwap(old, v); old = m.Load() {
	}
}

// jitter lets others run, in a pattern of its own for every path.
func jitter(delays, i int) {
	switch {
	case delays == 0:
	case i%7 == 3:
		time.Sleep(20 * time.Microsecond)
	default:
		runtime.Gosched()
	}
}

func blame(i int, err error) error { return fmt.Errorf("path %d: %w", i, err) }

// TestAheadInOrder is the property: whatever the sizes, limits and timing, it
// ends, in order, with all bytes, within its limits.
func TestAheadInOrder(t *testing.T) {
	noGoroutines(t)
	for seed := range uint64(60) {
		c := newAheadCase(t, seed)
		next := 0
		err := within(t, seed, func() error {
			return c.a.each(t.Context(), len(c.trees), func(i int, contents store.Contents) error {
				if i != next {
					return fmt.Errorf("path %d came, not %d", i, next)
				}
				next++
				if i%5 == 4 {
					return nil // left unread, which is allowed
				}
				got, err := sum(contents)
				if err == nil && got != c.sums[i] {
					err = fmt.Errorf("path %d is not what it was", i)
				}
				return err
			})
		})
		if err != nil || next != len(c.trees) {
			t.Fatalf("seed %d: %d of %d paths: %v", seed, next, len(c.trees), err)
		}
		if n := c.open.Load(); n != 0 {
			t.Fatalf("seed %d: %d contents were not closed", seed, n)
		}
		if m := c.mostDisk.Load(); m > c.a.spool {
			t.Errorf("seed %d: %d bytes on disk at a time, over %d", seed, m, c.a.spool)
		}
		if m := c.mostOpen.Load(); m > int64(c.a.window)+1 {
			t.Errorf("seed %d: %d contents open at a time with a window of %d", seed, m, c.a.window)
		}
	}
}

// within fails a test that hangs, with the stacks that show why.
func within(t *testing.T, seed uint64, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("seed %d: hangs:\n%s", seed, buf[:runtime.Stack(buf, true)])
		return nil
	}
}

func TestAheadFails(t *testing.T) {
	errUse := errors.New("disk full")
	noGoroutines(t)
	for seed := range uint64(45) {
		c := newAheadCase(t, seed)
		if len(c.trees) == 0 {
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		at := int(seed) % len(c.trees)
		var want error
		use := func(i int, contents store.Contents) error {
			_, err := sum(contents)
			return err
		}
		switch seed % 3 {
		case 0:
			c.failAt, want = at, errRotten
		case 1:
			want = errUse
			use = func(i int, contents store.Contents) error {
				if i == at {
					return errUse
				}
				return nil
			}
		default:
			want = context.Canceled
			use = func(i int, contents store.Contents) error {
				if i == at {
					cancel()
				}
				_, err := sum(contents)
				return err
			}
		}
		err := within(t, seed, func() error { return c.a.each(ctx, len(c.trees), use) })
		cancel()
		if !errors.Is(err, want) {
			t.Errorf("seed %d: got %v, want %v", seed, err, want)
		}
		if want == errRotten && err.Error() != blame(at, want).Error() {
			t.Errorf("seed %d: %v does not name path %d", seed, err, at)
		}
		if want == errUse && err != want {
			t.Errorf("seed %d: %v, want what use returned", seed, err)
		}
		if n := c.open.Load(); n != 0 {
			t.Errorf("seed %d: %d contents were not closed", seed, n)
		}
	}
}

// TestAheadSlowPath holds the first path back until all the others are open,
// which needs more than its opener and its reader.
func TestAheadSlowPath(t *testing.T) {
	noGoroutines(t)
	const n = 40
	var others atomic.Int64
	all := make(chan struct{})
	a := ahead{
		openers: 4, readers: 2, window: n, memory: 1 << 20, spool: 1 << 30,
		size: func(int) int64 { return 5 * batchSize }, blame: blame,
		open: func(ctx context.Context, i int) (store.Contents, error) {
			if i == 0 {
				select {
				case <-all:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			} else if others.Add(1) == n-1 {
				close(all)
			}
			data := bytes.Repeat([]byte{byte(i)}, 5*batchSize)
			return &memTree{files: []memFile{{store.Entry{Kind: store.Regular, Size: int64(len(data))}, data}}}, nil
		},
	}
	err := within(t, 0, func() error {
		return a.each(t.Context(), n, func(i int, c store.Contents) error {
			_, err := sum(c)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAheadMemory counts the batches that exist while nothing is used.
func TestAheadMemory(t *testing.T) {
	const memory = 8 * batchSize
	var read atomic.Int64
	data := make([]byte, 20*batchSize)
	a := ahead{
		openers: 4, readers: 4, window: 100, memory: memory, spool: 1 << 40,
		size: func(int) int64 { return int64(len(data)) }, blame: blame,
		open: func(ctx context.Context, i int) (store.Contents, error) {
			m := &memTree{files: []memFile{{store.Entry{Kind: store.Regular, Size: int64(len(data))}, data}}}
			return &countingContents{m, &read}, nil
		},
	}
	var used int64
	err := a.each(t.Context(), 20, func(i int, c store.Contents) error {
		time.Sleep(10 * time.Millisecond) // readers take all they can get
		if over := read.Load() - used; over > memory {
			return fmt.Errorf("%d bytes read ahead with %d bytes of memory", over, memory)
		}
		used += int64(len(data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type countingContents struct {
	store.Contents
	n *atomic.Int64
}

func (c *countingContents) Read(p []byte) (int, error) {
	n, err := c.Contents.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestFillerRefuses(t *testing.T) {
	tests := []struct {
		name string
		file memFile
		want string
	}{
		{"short file", memFile{store.Entry{Path: "a", Kind: store.Regular, Size: 10}, []byte("short")}, "unexpected EOF"},
		{"negative size", memFile{store.Entry{Path: "a", Kind: store.Regular, Size: -1}, nil}, "a: a regular of -1 bytes"},
		{"directory with bytes", memFile{store.Entry{Path: "a", Kind: store.Directory, Size: 1}, nil}, "a: a directory of 1 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := filler{contents: &memTree{files: []memFile{test.file}}}
			_, err := f.fill(&batch{size: batchSize})
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func BenchmarkAhead(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var trees [][]memFile
	var bytes int64
	for range 100 {
		files := randomTree(r, 1<<20)
		for _, f := range files {
			bytes += f.entry.Size
		}
		trees = append(trees, files)
	}
	a := ahead{
		openers: 8, readers: 2, window: 64, memory: 64 << 20, spool: 1 << 30,
		size: func(int) int64 { return 1 << 20 }, blame: blame,
		open: func(ctx context.Context, i int) (store.Contents, error) { return &memTree{files: trees[i]}, nil },
	}
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		err := a.each(b.Context(), len(trees), func(i int, c store.Contents) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAheadTiny is a store of many small paths: what one costs.
func BenchmarkAheadTiny(b *testing.B) {
	files := file("x")
	a := ahead{
		openers: 16, readers: 2, window: window, memory: 64 << 20, spool: 1 << 30,
		size: func(int) int64 { return 200 }, blame: blame,
		open: func(ctx context.Context, i int) (store.Contents, error) { return &memTree{files: files}, nil },
	}
	b.ReportAllocs()
	err := a.each(b.Context(), b.N, func(i int, c store.Contents) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
}
