package bundle_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"bigdisk/bundle"
	"bigdisk/bundle/store"
)

// graph is an InfoSource of references by short names.
type graph struct {
	refs map[string]string // "a": "b c"
	mu   sync.Mutex
	asks map[store.Path]int
}

// named makes a store path of a short name; they sort as the names do.
func named(name string) store.Path {
	digest := strings.NewReplacer("e", "0", "o", "0", "t", "0", "u", "0").Replace(name) + strings.Repeat("0", store.DigestLen)
	p, err := store.ParseBase(digest[:store.DigestLen] + "-" + name)
	if err != nil {
		panic(err)
	}
	return p
}

func paths(names string) []store.Path {
	var list []store.Path
	for _, n := range strings.Fields(names) {
		list = append(list, named(n))
	}
	return list
}

var errMissing = errors.New("not there")

func (g *graph) Info(_ context.Context, p store.Path) (*store.PathInfo, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asks == nil {
		g.asks = make(map[store.Path]int)
	}
	g.asks[p]++
	refs, ok := g.refs[p.Name()]
	if !ok {
		return nil, fmt.Errorf("%s: %w", p, errMissing)
	}
	return &store.PathInfo{Path: p, NarHash: store.Hash{1}, NarSize: 100, References: paths(refs)}, nil
}

func short(list []store.Path) string {
	var names []string
	for _, p := range list {
		names = append(names, p.Name())
	}
	return strings.Join(names, " ")
}

func TestFindClosure(t *testing.T) {
	tests := []struct {
		name, refs, roots string
		want              string
		order             string
	}{
		{"nothing", "a:", "", "", ""},
		{"one", "a:", "a", "a", "a"},
		{"self reference", "a:a", "a", "a", "a"},
		{"chain", "a:b b:c c:", "a", "a b c", "a b c"},
		{"diamond", "a:b,c b:d c:d d:d", "a", "a b c d", "a b c d"},
		{"root twice", "a:b b:", "a a", "a b", "a b"},
		{"root in root", "a:b b:", "b a", "a b", "b a"},
		{"order by first need", "a:f,x b:c,x c: f: x:", "b a", "a b c f x", "b c x a f"},
		{"not all", "a:b b: z:a", "a", "a b", "a b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := &graph{refs: edges(test.refs)}
			c, err := bundle.FindClosure(t.Context(), g, paths(test.roots), 3)
			if err != nil {
				t.Fatal(err)
			}
			var got []store.Path
			for info := range c.All() {
				got = append(got, info.Path)
				if want := short(paths(g.refs[info.Path.Name()])); short(info.References) != want {
					t.Errorf("%s refers to %q, want %q", info.Path, short(info.References), want)
				}
			}
			if short(got) != test.want || c.Len() != len(got) || c.NarBytes() != int64(100*len(got)) {
				t.Errorf("closure %q (%d, %d bytes), want %q", short(got), c.Len(), c.NarBytes(), test.want)
			}
			if order, err := c.Order(paths(test.roots)); err != nil || short(order) != test.order {
				t.Errorf("order %q, %v; want %q", short(order), err, test.order)
			}
			for p, n := range g.asks {
				if n != 1 {
					t.Errorf("%s asked for %d times", p, n)
				}
			}
		})
	}
}

// edges reads "a:b,c b:".
func edges(s string) map[string]string {
	m := make(map[string]string)
	for _, part := range strings.Fields(s) {
		from, to, _ := strings.Cut(part, ":")
		m[from] = strings.ReplaceAll(to, ",", " ")
	}
	return m
}

func TestFindClosureErrors(t *testing.T) {
	tests := []struct {
		name, refs, roots string
		is                error
		says              []string
	}{
		{"missing root", "a:", "b", errMissing, []string{string(named("b")) + ": not there"}},
		{"missing reference", "a:b", "a", errMissing, []string{string(named("b")), "needed by " + string(named("a"))}},
		{"deep", "a:b b:c c:d", "a", errMissing, []string{string(named("d")), "needed by " + string(named("c")) + ", for " + string(named("a"))}},
		{"two", "a:b b:a", "a", bundle.ErrCycle, []string{fmt.Sprintf("%s -> %s -> %s", named("a"), named("b"), named("a"))}},
		{"further down", "a:b b:c,b c:d d:b", "a", bundle.ErrCycle, []string{fmt.Sprintf("%s -> %s -> %s -> %s", named("b"), named("c"), named("d"), named("b"))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := bundle.FindClosure(t.Context(), &graph{refs: edges(test.refs)}, paths(test.roots), 0)
			if !errors.Is(err, test.is) {
				t.Fatalf("got %v, want %v", err, test.is)
			}
			for _, s := range test.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

func TestLongCycle(t *testing.T) {
	const n = 50_000
	g := &graph{refs: make(map[string]string)}
	for i := range n {
		g.refs[fmt.Sprintf("%05d", i)] = fmt.Sprintf("%05d", (i+1)%n)
	}
	_, err := bundle.FindClosure(t.Context(), g, []store.Path{named("00000")}, 0)
	if !errors.Is(err, bundle.ErrCycle) || len(err.Error()) > 2000 {
		t.Fatalf("got %.3000v", err)
	}
	delete(g.refs, "49999")
	g.refs["49999"] = ""
	if c, err := bundle.FindClosure(t.Context(), g, []store.Path{named("00000")}, 0); err != nil || c.Len() != n {
		t.Fatalf("a chain of %d: %v", n, err)
	}
}

func TestFindClosureCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	src := infoFunc(func(ctx context.Context, p store.Path) (*store.PathInfo, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if _, err := bundle.FindClosure(ctx, src, paths("a b c"), 2); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wrong := infoFunc(func(context.Context, store.Path) (*store.PathInfo, error) {
		return &store.PathInfo{Path: named("z")}, nil
	})
	if _, err := bundle.FindClosure(t.Context(), wrong, paths("a"), 2); err == nil || !strings.Contains(err.Error(), "that of "+string(named("z"))) {
		t.Errorf("info of another path: %v", err)
	}
}

type infoFunc func(context.Context, store.Path) (*store.PathInfo, error)

func (f infoFunc) Info(ctx context.Context, p store.Path) (*store.PathInfo, error) { return f(ctx, p) }

// What few have a use for must come back as it was.
func TestClosureKeepsInfo(t *testing.T) {
	want := &store.PathInfo{
		Path: named("a"), NarHash: store.Hash{1, 2, 3}, NarSize: 1 << 40, References: paths("a b"),
		Deriver: named("a") + ".drv", CA: "fixed:r:sha256:" + strings.Repeat("0", 52),
		Sigs: []string{"k-1:" + strings.Repeat("A", 86) + "==", "k-1:not base 64", "no colon", "", "long:" + strings.Repeat("x", 1000), "k-2:QUJD", "k-2:QUJE"},
	}
	src := infoFunc(func(_ context.Context, p store.Path) (*store.PathInfo, error) {
		if p == want.Path {
			return want, nil
		}
		return &store.PathInfo{Path: p}, nil
	})
	c, err := bundle.FindClosure(t.Context(), src, []store.Path{want.Path}, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := c.Info(want.Path)
	if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if other, ok := c.Info(named("b")); !ok || other.Sigs != nil || other.References != nil || other.Deriver != "" {
		t.Errorf("bare info became %+v", other)
	}
	if _, ok := c.Info(named("c")); ok {
		t.Error("membership is wrong")
	}
}

func TestNeededBy(t *testing.T) {
	c, err := bundle.FindClosure(t.Context(), &graph{refs: edges("a:x b:x,y x: y: z:")}, paths("a b z"), 0)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, roots, want string }{
		{"x", "a b z", "a"}, {"x", "b a", "b"}, {"y", "a b z", "b"}, {"z", "a z", "z"}, {"y", "a z", ""}, {"q", "a", ""}, {"x", "q b", "b"},
	}
	for _, test := range tests {
		got, ok := c.NeededBy(named(test.path), paths(test.roots))
		if want := paths(test.want); ok != (test.want != "") || ok && got != want[0] {
			t.Errorf("%s of %s is needed by %q, %v", test.path, test.roots, got, ok)
		}
	}
	if got, err := c.Order(paths("b")); err != nil || short(got) != "b x y" {
		t.Errorf("Order(b) = %q, %v", short(got), err)
	}
	if _, err := c.Order(paths("a q")); err == nil {
		t.Error("Order took a root that is not there")
	}
}

// synthetic is a store of n paths with ten references each, at higher numbers.
type synthetic struct{ n int }

func (s synthetic) path(i int) store.Path {
	return store.Path(fmt.Sprintf("%s/%032d-package-number-%d-1.2.3", store.Dir, i, i))
}

func (s synthetic) Info(_ context.Context, p store.Path) (*store.PathInfo, error) {
	var i int
	fmt.Sscanf(p.Digest(), "%d", &i)
	r := rand.New(rand.NewPCG(uint64(i), 0))
	info := &store.PathInfo{Path: p, NarSize: 1, Deriver: p + ".drv"}
	info.Sigs = []string{"cache.example.org-1:" + strings.Repeat("A", 86) + "=="}
	if i+1 < s.n {
		info.References = append(info.References, s.path(i+1))
	}
	for range 9 {
		info.References = append(info.References, s.path(i+r.IntN(s.n-i)))
	}
	info.SortReferences()
	return info, nil
}

// The release order depends on nothing that runs in parallel.
func TestOrderIsDeterministic(t *testing.T) {
	s := synthetic{2000}
	roots := []store.Path{s.path(1500), s.path(700), s.path(0)}
	var want []store.Path
	for _, jobs := range []int{1, 8, 100} {
		c, err := bundle.FindClosure(t.Context(), s, roots, jobs)
		if err != nil {
			t.Fatal(err)
		}
		order, err := c.Order(roots)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = order
		}
		if !slices.Equal(order, want) || len(order) != 2000 {
			t.Fatalf("with %d asks the order is another, of %d", jobs, len(order))
		}
	}
}

func BenchmarkFindClosure(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			if n > 100_000 && testing.Short() {
				b.Skip("takes long: run without -short")
			}
			s := synthetic{n}
			var c *bundle.Closure
			for b.Loop() {
				var err error
				if c, err = bundle.FindClosure(b.Context(), s, []store.Path{s.path(0)}, 4); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Order([]store.Path{s.path(0)}); err != nil {
					b.Fatal(err)
				}
			}
			c2 := c
			c = nil
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapAlloc)/float64(n), "B/path")
			if c2.Len() != n {
				b.Fatalf("%d paths", c2.Len())
			}
		})
	}
}

func ExampleFindClosure() {
	src := &graph{refs: map[string]string{"hello": "libc hello", "libc": "", "bash": "libc"}}
	c, err := bundle.FindClosure(context.Background(), src, paths("hello bash"), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	order, _ := c.Order(paths("hello bash"))
	for _, p := range order {
		fmt.Println(p.Name())
	}
	// Output:
	// hello
	// libc
	// bash
}
