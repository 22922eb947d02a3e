// Package bundle says what goes on a disk: which store paths belong together,
// and what stands beside them. The lock file is read in bundle/lock, and paths
// come from bundle/source.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"bigdisk/bundle/store"
)

// DefaultAsks is how many paths [FindClosure] asks for at the same time if it
// is not told. Most of the time goes into waiting for servers, so it does not
// depend on the number of CPUs.
const DefaultAsks = 64

// ErrCycle is wrapped when paths refer to each other in a circle. Nix cannot
// make such paths, and overflows its stack on a store that has them.
var ErrCycle = errors.New("store paths refer to each other in a circle")

// InfoSource knows what there is to know of store paths, such as a
// [bigdisk/bundle/source.Source].
type InfoSource interface {
	// Info returns the info of a path. It is called from several goroutines,
	// once for each path.
	Info(ctx context.Context, path store.Path) (*store.PathInfo, error)
}

// FindClosure returns the roots and all that they refer to, directly or not. It
// asks src for each path once, and for up to asks paths at the same time (0:
// [DefaultAsks]). A path may refer to itself. A path that cannot be had is a
// *[NeedError], which says what refers to it; a circle of several paths is an
// error that wraps [ErrCycle] and shows it.
func FindClosure(ctx context.Context, src InfoSource, roots []store.Path, asks int) (*Closure, error) {
	if asks <= 0 {
		asks = DefaultAsks
	}
	s := newSearch()
	for _, r := range roots {
		s.see(r, noReferrer)
	}
	group, ctx := errgroup.WithContext(ctx)
	questions, answers := make(chan question), make(chan answer, asks)
	for range asks {
		group.Go(func() error { return ask(ctx, src, questions, answers) })
	}
	group.Go(func() error {
		defer close(questions)
		return s.run(ctx, questions, answers)
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	c := s.finish()
	if err := c.checkCycles(); err != nil {
		return nil, err
	}
	return c, nil
}

// question asks for the path that the search has given that number.
type question struct {
	id   uint32
	path store.Path
}

type answer struct {
	id   uint32
	info *store.PathInfo
	err  error
}

// ask is one of the workers.
func ask(ctx context.Context, src InfoSource, questions <-chan question, answers chan<- answer) error {
	for q := range questions {
		info, err := src.Info(ctx, q.path)
		if err == nil && info.Path != q.path {
			err = fmt.Errorf("%s: the info given is that of %s", q.path, info.Path)
		}
		select {
		case answers <- answer{q.id, info, err}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

const noReferrer = ^uint32(0)

// search is a breadth-first search under way. One goroutine has it, and talks
// to the workers; so the paths found need no lock.
type search struct {
	ids   map[store.Path]uint32
	nodes []node
	// referrer is a path that refers to each path, noReferrer for a root.
	referrer []uint32
	refs     []uint32
	text     arena
	keys     names
}

func newSearch() *search { return &search{ids: make(map[store.Path]uint32)} }

// see returns the number of a path, which it gives it if need be.
func (s *search) see(p store.Path, referrer uint32) uint32 {
	if id, ok := s.ids[p]; ok {
		return id
	}
	id := uint32(len(s.nodes))
	p = store.Path(s.text.keep(string(p)))
	s.ids[p] = id
	s.nodes = append(s.nodes, node{path: p, id: id})
	s.referrer = append(s.referrer, referrer)
	return id
}

// run asks for each path that is seen, until there is an answer to all.
func (s *search) run(ctx context.Context, questions chan<- question, answers <-chan answer) error {
	asked, open := 0, 0
	for asked < len(s.nodes) || open > 0 {
		var next question
		out := questions
		if asked < len(s.nodes) {
			next = question{uint32(asked), s.nodes[asked].path}
		} else {
			out = nil
		}
		select {
		case out <- next:
			asked++
			open++
		case a := <-answers:
			open--
			if a.err != nil {
				return s.explain(a.id, a.err)
			}
			s.add(a.id, a.info)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// add takes in what is known of a path.
func (s *search) add(id uint32, info *store.PathInfo) {
	start := len(s.refs)
	for _, r := range info.References {
		s.refs = append(s.refs, s.see(r, id))
	}
	n := &s.nodes[id]
	n.first, n.count = uint64(start), uint32(len(s.refs)-start)
	n.hash, n.size = info.NarHash, info.NarSize
	n.rest = s.text.keep(packRest(info, &s.keys))
}

// NeedError is that a path of a closure could not be had.
type NeedError struct {
	// Root is the root that was found to need the path first; it may be the
	// path itself.
	Root store.Path
	// Referrer refers to the path; "" if the path is a root.
	Referrer store.Path
	Err      error
}

// Error says what the path is wanted for.
func (e *NeedError) Error() string {
	switch e.Referrer {
	case "":
		return e.Err.Error()
	case e.Root:
		return fmt.Sprintf("%v: needed by %s", e.Err, e.Referrer)
	}
	return fmt.Sprintf("%v: needed by %s, for %s", e.Err, e.Referrer, e.Root)
}

// Unwrap returns the reason.
func (e *NeedError) Unwrap() error { return e.Err }

// explain says what a path was wanted for.
func (s *search) explain(id uint32, err error) error {
	from, root := s.referrer[id], id
	for s.referrer[root] != noReferrer {
		root = s.referrer[root]
	}
	e := &NeedError{Root: s.nodes[root].path, Err: err}
	if from != noReferrer {
		e.Referrer = s.nodes[from].path
	}
	return e
}

// finish sorts what was found.
func (s *search) finish() *Closure {
	s.ids = nil
	slices.SortFunc(s.nodes, func(a, b node) int { return strings.Compare(string(a.path), string(b.path)) })
	rank := s.referrer // as long, and no longer needed
	for i, n := range s.nodes {
		rank[n.id] = uint32(i)
	}
	for i, r := range s.refs {
		s.refs[i] = rank[r]
	}
	c := &Closure{nodes: s.nodes, refs: s.refs, keys: s.keys.list}
	for i := range c.nodes {
		slices.Sort(c.references(uint32(i)))
	}
	return c
}

// Closure is a set of paths and what is known of each, such that whatever they
// refer to is among them. It is compact: some 250 bytes a path and 4 a
// reference. It is safe for concurrent use.
type Closure struct {
	nodes []node // sorted by path
	refs  []uint32
	keys  []string
}

// node is one path. Its references are numbers of nodes.
type node struct {
	path  store.Path
	rest  string // deriver, signatures and content address: see packRest
	hash  store.Hash
	size  int64
	first uint64 // refs[first:first+count] are its references
	count uint32
	id    uint32 // its number in the search
}

func (c *Closure) references(i uint32) []uint32 {
	n := &c.nodes[i]
	return c.refs[n.first : n.first+uint64(n.count)]
}

// Len is the number of paths.
func (c *Closure) Len() int { return len(c.nodes) }

// NarBytes is the sum of the paths' NAR sizes in bytes.
func (c *Closure) NarBytes() int64 {
	var sum int64
	for i := range c.nodes {
		sum += c.nodes[i].size
	}
	return sum
}

// All gives the info of each path, sorted by path. Each is made for the caller.
func (c *Closure) All() iter.Seq[*store.PathInfo] {
	return func(yield func(*store.PathInfo) bool) {
		for i := range c.nodes {
			if !yield(c.info(uint32(i))) {
				return
			}
		}
	}
}

// Info returns the info of a path, and whether it is in the closure. It is made
// for the caller.
func (c *Closure) Info(path store.Path) (*store.PathInfo, bool) {
	i, ok := c.find(path)
	if !ok {
		return nil, false
	}
	return c.info(i), true
}

func (c *Closure) find(path store.Path) (uint32, bool) {
	i, ok := slices.BinarySearchFunc(c.nodes, path, func(n node, p store.Path) int {
		return strings.Compare(string(n.path), string(p))
	})
	return uint32(i), ok
}

func (c *Closure) info(i uint32) *store.PathInfo {
	n := &c.nodes[i]
	info := &store.PathInfo{Path: n.path, NarHash: n.hash, NarSize: n.size}
	if n.count > 0 {
		info.References = make([]store.Path, n.count)
		for k, r := range c.references(i) {
			info.References[k] = c.nodes[r].path
		}
	}
	unpackRest(n.rest, c.keys, info)
	return info
}
